"""Hold episodes as features of their clips: what a head matches.

M queries, B episodes, K ways, S shots, U clips without a label, D features.
"""

from dataclasses import dataclass

from torch import Tensor

from utils.errors import HeadError

Features = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Holds B episodes of one size as features, supports in the order of the episode labels.

    Args:
        support: name to [B, K, S, ...]. query: name to [B, M, ...].
        text_BKD: text features of each way's class; None: the head reads no text.
        unlabelled: name to [B, U, ...], clips of the episode without a label.
        given_BKS: which of S supports are there, where classes have different numbers of them; None: all are.
    """

    support: Features
    query: Features
    text_BKD: Tensor | None = None
    unlabelled: Features | None = None
    given_BKS: Tensor | None = None

    def __post_init__(self):
        parts = {"support": self.support, "query": self.query}
        shapes = {f"{role} {name}": list(value.shape) for role, part in parts.items() for name, value in part.items()}
        leading = {tuple(shape[:3]) for name, shape in shapes.items() if name.startswith("support")}
        if len(leading) != 1 or len({shape[0] for shape in shapes.values()}) != 1:
            raise HeadError(f"expected supports [B, K, S, ...] and queries [B, M, ...] of the same episodes, found "
                            f"{shapes}")

    def prototypes(self, name: str) -> Tensor:
        """Return the mean of a feature over the shots, [B, K, ...]."""
        return self.over_shots(self.support[name])

    @property
    def sizes(self) -> tuple[int, int]:
        """Gives K and S."""
        ways, shots = next(iter(self.support.values())).shape[1:3]
        return ways, shots

    def over_clips(self, scores_BMN: Tensor) -> Tensor:
        """Return scores for classes, the mean of those for their clips, [B, M, K * S] -> [B, M, K]."""
        return self.over_shots(scores_BMN.transpose(1, 2).unflatten(1, self.sizes)).transpose(1, 2)

    def over_shots(self, values: Tensor) -> Tensor:
        """Return the mean over the shots that are there, [B, K, S, ...] -> [B, K, ...]."""
        if self.given_BKS is None:
            return values.mean(dim=2)
        given = self.given_BKS.reshape(*self.given_BKS.shape, *[1] * (values.ndim - 3)).to(values.dtype)
        return (values * given).sum(dim=2) / given.sum(dim=2)
