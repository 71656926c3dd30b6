"""Episodes of noise."""

import torch

from utils.episode import Episode


def random_episode(seed: int, way: int = 3, queries: int = 2, frames: int = 4, size: int = 32) -> Episode:
    """One support a class, `queries` queries, of the first classes."""
    generator = torch.Generator().manual_seed(seed)
    labels, asked = torch.arange(way), torch.arange(queries) % way
    return Episode(
        support_NTCHW=torch.randn(way, frames, 3, size, size, generator=generator), support_labels_N=labels,
        support_classes_N=labels, query_MTCHW=torch.randn(queries, frames, 3, size, size, generator=generator),
        query_labels_M=asked, query_classes_M=asked, classes_K=labels)
