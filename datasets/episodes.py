"""Choose which videos make an episode: a pure function of (seed, split, index).

The draws use the raw 64-bit stream of PCG64, which NumPy keeps across its versions (it does not keep the streams of
`Generator.choice` or `shuffle`), so an episode list and its hash outlive the installation that made them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from utils.episode import EpisodeSpec, VideoRecord
from utils.errors import EpisodeError
from utils.seed import numpy_generator


def raw_numbers(generator: np.random.Generator, expected: int) -> Iterator[int]:
    """Yield the generator's raw stream, which is fetched `expected` numbers at a time: one by one takes thrice as long.
    """
    while True:
        yield from generator.bit_generator.random_raw(expected).tolist()


def draw_distinct(raw: Iterator[int], population: int, count: int) -> list[int]:
    """Draw `count` distinct integers of 0..population-1 in random order, all orders equally likely.

    Steps of a Fisher-Yates shuffle, kept sparse: time and memory grow with `count`, not with `population`.

    Args:
        raw: numbers of 0..2**64-1, all equally likely (`raw_numbers`).

    Raises ValueError: more draws than the population has.
    """
    if not 0 <= count <= population:
        raise ValueError(f"expected 0 to {population} distinct draws, found {count}")
    moved: dict[int, int] = {}
    drawn = []
    for step in range(count):
        left = population - step
        limit = 2**64 - 2**64 % left  # draws from here on would favour small values
        number = next(raw)
        while number >= limit:
            number = next(raw)
        chosen = step + number % left
        drawn.append(moved.get(chosen, chosen))
        moved[chosen] = moved.get(step, step)
    return drawn


def rank_indices(count: int, rank: int, world: int, start: int = 0) -> range:
    """Return the episodes of `start`..count-1 that `rank` of `world` processes handles: interleaved, disjoint."""
    if not 0 <= rank < world:
        raise EpisodeError(f"expected a rank in 0..{world - 1}, found {rank}")
    return range(start + rank, count, world)


class EpisodeSampler:
    """Draw K-way S-shot episodes from a split.

    Args:
        records: the split's videos; class indices dense from 0.
        split: train, val or test; each split has its own stream.
        way, shot, query: classes an episode (K), supports (S) and queries a class (M = way * query).

    Raises EpisodeError: fewer than `way` classes, or a class with fewer than `shot + query` videos.
    """

    def __init__(self, records: Sequence[VideoRecord], *, split: str, seed: int, way: int, shot: int, query: int):
        if min(way, shot, query) < 1:
            raise EpisodeError(f"{split}: expected at least one class, one support and one query a class, "
                               f"found way {way}, shot {shot}, query {query}")
        self.split, self.seed, self.way, self.shot, self.query = split, seed, way, shot, query
        labels = np.fromiter((record.class_index for record in records), np.int64, len(records))
        order = np.argsort(labels, kind="stable")
        bounds = np.cumsum(np.bincount(labels))[:-1]
        # Per class, its record indices in list order.
        self.members: list[list[int]] = [part.tolist() for part in np.split(order, bounds)]
        if len(records) == 0 or len(self.members) < way:
            classes = len(self.members) if len(records) else 0
            raise EpisodeError(f"{split}: an episode draws {way} classes, found {classes} in the list")
        for index, videos in enumerate(self.members):
            if len(videos) < shot + query:
                raise EpisodeError(f"{split}: class {index} needs {shot + query} videos for {shot} supports and "
                                   f"{query} queries, found {len(videos)}")

    def spec(self, index: int) -> EpisodeSpec:
        """Draw episode number `index`: the same for every call, process and worker."""
        if index < 0:
            raise EpisodeError(f"{self.split}: expected an episode number from 0, found {index}")
        each = self.shot + self.query
        raw = raw_numbers(numpy_generator(self.seed, "episode:" + self.split, index), self.way * (1 + 2 * each))
        classes = draw_distinct(raw, len(self.members), self.way)
        support: list[tuple[int, int]] = []
        query: list[tuple[int, int]] = []
        for label, class_index in enumerate(classes):
            videos = self.members[class_index]
            drawn = [(videos[i], label) for i in draw_distinct(raw, len(videos), each)]
            support += drawn[: self.shot]
            query += drawn[self.shot :]
        support = [support[i] for i in draw_distinct(raw, len(support), len(support))]
        query = [query[i] for i in draw_distinct(raw, len(query), len(query))]
        support_N, support_labels_N = zip(*support, strict=True)
        query_M, query_labels_M = zip(*query, strict=True)
        return EpisodeSpec(self.split, index, tuple(classes), support_N, support_labels_N, query_M, query_labels_M)
