"""Shows the progress of benchmarks on the screen, with the time left."""

from collections.abc import Mapping

from tqdm import tqdm

from runs.benchmarks.rows import Done

FORM = "{desc}: {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left"


class Bar:
    """Draws one bar over several benchmarks.

    Args:
        weights: by name, the seconds that each is expected to take; only their proportions count.
    """

    def __init__(self, weights: Mapping[str, float]):
        self._weights, self._before = weights, 0.0
        self._bar = tqdm(total=sum(weights.values()), leave=False, dynamic_ncols=True, bar_format=FORM)

    def start(self, name: str) -> Done:
        """Start a benchmark; return the function that it tells its progress."""
        self._bar.set_description_str(name)

        def done(share: float) -> None:
            self._show(self._before + share * self._weights[name])

        return done

    def end(self, name: str) -> None:
        """Count a benchmark as done."""
        self._before += self._weights[name]
        self._show(self._before)

    def _show(self, place: float) -> None:
        self._bar.n = place
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar off the screen."""
        self._bar.close()
