"""Shows the progress of benchmarks on the screen, with the time left."""

from collections.abc import Mapping

from tqdm import tqdm

from runs.benchmarks.rows import Done

FORM = "{desc}: {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left"


class Bar(tqdm):
    """Draws one bar over several benchmarks.

    Args:
        weights: by name, the seconds that each is expected to take; only their proportions count.
    """

    def __init__(self, weights: Mapping[str, float]):
        super().__init__(total=sum(weights.values()), leave=False, dynamic_ncols=True, bar_format=FORM)
        self._weights, self._before = weights, 0.0

    def begin(self, name: str) -> Done:
        """Start a benchmark; return the function that it tells its progress, 0..1."""
        self.set_description_str(name)
        before, weight = self._before, self._weights[name]
        self._before += weight

        def done(share: float) -> None:
            self.n = before + share * weight
            self.refresh()

        return done
