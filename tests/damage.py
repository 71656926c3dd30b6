"""Damage to bytes, the same for a seed."""

import random
from collections.abc import Iterator


def flipped(content: bytes, number: int, seed: int = 5) -> Iterator[bytes]:
    """The content with one bit flipped, `number` times."""
    draw = random.Random(seed)
    for _ in range(number):
        one = bytearray(content)
        one[draw.randrange(len(one))] ^= 1 << draw.randrange(8)
        yield bytes(one)


def mutated(content: bytes, number: int, seed: int = 11) -> Iterator[bytes]:
    """The content with some bytes put over others or between them, most of them in its head or tail."""
    draw = random.Random(seed)
    for _ in range(number):
        one = bytearray(content)
        for _ in range(draw.randrange(1, 5)):
            size, near = len(one), draw.randrange(1, 400)
            at = draw.choice([draw.randrange(size), draw.randrange(min(400, size)), max(0, size - near)])
            one[at:at + draw.choice([0, 1, 1, 4])] = draw.randbytes(draw.choice([1, 1, 4, 8]))
        yield bytes(one)
