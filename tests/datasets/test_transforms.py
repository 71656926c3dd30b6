"""Pixels: golden values at test, the published recipes in training, and reproducible draws."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import transforms
from datasets.transforms import Erasing, Jitter
from tests.datasets.pictures import PLAIN, augmented, picture, query, unaugmented
from tests.golden.arrays import GoldenFile

GOLDEN = GoldenFile(Path(__file__).parents[1] / "golden" / "test_transform.npz")
CLIP = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def support(scale=(36, 36), crop=32, diff_support=False, **changes):
    return augmented(scale, crop, {**changes, "support_query_diff_support": diff_support})[0]


def resized(clip, size) -> torch.Tensor:
    pixels = torch.from_numpy(clip).permute(0, 3, 1, 2) / 255
    return torch.nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False)


def places(clip, out, size, crop) -> list[tuple[int, int, bool]]:
    """Where `out` was cut from the resized clip: (top, left, flipped) of every match."""
    whole, found = resized(clip, size), []
    for flipped in (False, True):
        source = whole.flip(-1) if flipped else whole
        for top in range(size[0] - crop + 1):
            for left in range(size[1] - crop + 1):
                if torch.allclose(source[..., top : top + crop, left : left + crop], out, atol=1e-5):
                    found.append((top, left, flipped))
    return found


@pytest.mark.parametrize("make", [support, query, lambda **size: unaugmented(**PLAIN, **size)])
def test_pixels_do_not_depend_on_the_number_of_threads(make):
    """Loader workers have one thread, the main process has several."""
    clip, transform, before = picture(240, 320, 8), make(scale=256, crop=224), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((transform(clip, 0), torch.from_numpy(transforms.resize_frames(clip, (256, 256)))))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("case", sorted(k.removesuffix("/clip") for k in GOLDEN.files if k.endswith("/clip")))
@pytest.mark.parametrize("as_tensor", [False, True])
def test_test_transform_is_the_published_one(case, as_tensor):
    scale = int(case.split("/")[1])
    crop = {256: 224, 64: 56}[scale]
    transform = unaugmented(scale=scale, crop=crop, **CLIP)
    clip = GOLDEN[f"{case}/clip"]
    out = transform(torch.from_numpy(clip) if as_tensor else clip)
    assert out.dtype == torch.float32 and out.shape == (len(clip), 3, crop, crop)
    out = out.transpose(0, 1)
    out = out[:, :1, ::4, ::4] if scale == 256 else out
    assert np.abs(out.numpy() - GOLDEN[f"{case}/out"]).max() <= 1e-6


def test_scale_is_height_and_width():
    clip = picture()
    out = unaugmented(scale=(20, 50), crop=10, **PLAIN)(clip)
    assert torch.allclose(out, resized(clip, (20, 50))[..., 5:15, 20:30], atol=1e-6)


@pytest.mark.parametrize("build", [support, query])
def test_training_without_augmentation_is_a_random_crop(build):
    clip, transform = picture(), build()
    seen = set()
    for seed in range(40):
        found = places(clip, transform(clip, seed=seed), (36, 36), 32)
        assert len(found) == 1 and not found[0][2]  # all frames alike, not flipped
        seen.add(found[0][:2])
    assert {top for top, _ in seen} == {left for _, left in seen} == set(range(5))


def test_random_flip_is_for_all_training_clips():
    for transform in (support(random_flip=True), query(random_flip=True)):
        flips = [places(picture(), transform(picture(), seed=s), (36, 36), 32)[0][2] for s in range(30)]
        assert 5 < sum(flips) < 25


def spread(out: torch.Tensor) -> float:
    """How far the frames of a clip of equal frames differ: 0 when one draw served the whole clip."""
    return float((out - out[:1]).abs().max())


def is_augmented(transform, seeds=12) -> bool:
    """Whether a clip ever comes out as something else than a crop of itself."""
    clip = picture()
    return any(not places(clip, transform(clip, seed=s), (36, 36), 32) for s in range(seeds))


@pytest.mark.parametrize(("transform", "expected"), [
    (support(), False), (query(), False),
    (support(color_aug=True), True), (query(color_aug=True), True),
    (support(support_query_diff=True), False), (query(support_query_diff=True), True),
    (support(support_query_diff=True, diff_support=True), True), (support(diff_support=True), False),
])
def test_who_gets_colour_jitter(transform, expected):
    assert is_augmented(transform) == expected


def test_one_draw_serves_the_whole_clip():
    clip = np.repeat(picture(frames=1), 5, axis=0)
    transform = query(support_query_diff=True, erasing=Erasing(0.8, "pixel", (0.02, 0.33), 0.3))
    outs = [transform(clip, seed=s) for s in range(20)]
    assert max(spread(out) for out in outs) == 0
    assert len({float(out.sum()) for out in outs}) == 20


def test_grayscale_comes_with_its_probability():
    transform = query(support_query_diff=True, jitter=Jitter(0.0, 0.0, 0.0, 0.0, 0.3))
    gray = 0
    for seed in range(100):
        out = transform(picture(frames=1), seed=seed)
        gray += bool((out[:, 0] == out[:, 1]).all() and (out[:, 0] == out[:, 2]).all())
    assert 15 <= gray <= 45


@pytest.mark.parametrize("mode", ["const", "pixel"])
def test_erasing_belongs_to_the_query_recipe(mode):
    erasing = Erasing(1.0, mode, (0.1, 0.3), 0.3)
    still = {"jitter": Jitter(0.0, 0.0, 0.0, 0.0, 0.0), "mean": [2.0] * 3}  # no pixel is 0 after normalisation
    clip = picture()

    def erased(transform) -> float:
        out = transform(clip, seed=1)
        return float(((out == 0) if mode == "const" else (out > -0.999)).float().mean())

    share = erased(query(support_query_diff=True, erasing=erasing, **still))
    assert 0.08 < share < 0.35
    assert erased(support(support_query_diff=True, diff_support=True, erasing=erasing, **still)) > 0.08
    for plain in (query(erasing=erasing, **still), query(erasing=erasing, color_aug=True, **still),
                  support(support_query_diff=True, erasing=erasing, **still),
                  query(support_query_diff=True, erasing=None, **still)):
        assert erased(plain) == 0


def test_draws_depend_on_the_seed_and_leave_torch_alone():
    transform, clip = query(support_query_diff=True), picture()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = transform(clip, seed=2**62 + 5)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, transform(clip, seed=2**62 + 5))
    assert not torch.equal(first, transform(clip, seed=3))


def test_refusals():
    with pytest.raises(ValueError, match=r"expected a clip of uint8 \[T, H, W, 3\], found torch.float32 \[2, 3\]"):
        support()(torch.zeros(2, 3), seed=0)
    with pytest.raises(ValueError, match="a random transform needs a seed"):
        support()(picture())
    with pytest.raises(ValueError, match=r"that a crop of 40 fits into, found \(36, 36\)"):
        support(crop=40)
    with pytest.raises(ValueError, match="height and width"):
        unaugmented(scale=(8,), crop=4, **PLAIN)
