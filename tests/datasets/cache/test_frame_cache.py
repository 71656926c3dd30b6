"""A frame cache gives what decoding gives; a stale or damaged one is refused by name."""

import gc
import math
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from datasets import builder, transforms
from datasets.cache import codec as frame_codec
from datasets.cache.codec import Codec
from datasets.cache.index import DATA, INDEX, Entry, FrameIndex
from datasets.cache.store import FrameCache
from datasets.cache.writer import CacheWriter, VideoToCache, encode_video
from datasets.decoding import open_video
from runs.evaluation.features import store_facts
from tests.datasets.cache.caches import fill, flip, split_of
from utils.config import load_config
from utils.errors import FrameCacheError, VideoDecodeError
from utils.seed import numpy_generator

LOSSLESS = Codec("lossless", None)


def rounded(monkeypatch) -> None:
    """From now on the pipelines round the resized frame to whole grey levels, and do nothing else differently."""
    resize = transforms._resize

    def rounding(size):
        return v2.Compose([resize(size), v2.Lambda(lambda x: x.mul(255).round().to(torch.uint8).float().div(255))])

    monkeypatch.setattr(transforms, "_resize", rounding)


def test_nobody_looks_for_garbage_while_the_index_is_read(project, lossless, monkeypatch):
    """Else a million videos cost more than a million times what one costs."""
    looked, entries = [], FrameIndex.entries

    def reading(index, size=None):
        looked.append(gc.isenabled())
        return entries(index, size)

    monkeypatch.setattr(FrameIndex, "entries", reading)
    split_of(project, lossless, "test")
    assert looked == [False] and gc.isenabled()


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [[], ["DATA.SAMPLING_RATE", "4"], ["PROTOCOL", "clean"],
                                   ["DATA.NUM_INPUT_FRAMES", "1"]], ids=lambda pairs: " ".join(pairs))
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_lossless_equals_decoding_after_the_resizes_rounding(project, lossless, monkeypatch, split, pairs):
    cached = [split_of(project, lossless, split, *pairs).dataset[i] for i in range(2)]
    exact = [split_of(project, None, split, *pairs).dataset[i] for i in range(2)]
    rounded(monkeypatch)
    plain = [split_of(project, None, split, *pairs).dataset[i] for i in range(2)]
    for one, other, unrounded in zip(cached, plain, exact, strict=True):
        assert one.spec == other.spec
        assert torch.equal(one.support_NTCHW, other.support_NTCHW)
        assert torch.equal(one.query_MTCHW, other.query_MTCHW)
        assert not torch.equal(one.query_MTCHW, unrounded.query_MTCHW)  # else the test says nothing of rounding


def test_stored_frames_are_at_most_half_a_grey_level_from_the_resized_ones():
    frames = np.random.default_rng(0).integers(0, 256, (3, 25, 31, 3), dtype=np.uint8)
    exact = transforms._resize((40, 44))(torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255)) * 255
    found = torch.from_numpy(transforms.resize_frames(frames, (40, 44))).permute(0, 3, 1, 2)
    assert found.shape == (3, 3, 40, 44)
    assert 0.45 < float((found - exact).abs().max()) <= 0.5 + 1e-4


def test_resized_frames_are_cropped_as_bytes_to_the_same_floats():
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 44, 3), dtype=np.uint8)
    pipeline, _ = transforms.train_transforms(
        transforms.PixelSettings([40, 44], 32, [0.45] * 3, [0.225] * 3),
        transforms.Augmentation(transforms.Jitter(0.5, 0.5, 0.5, 0.25, 0.3), erasing=None, random_flip=True,
                                color_aug=True, support_query_diff=False, support_query_diff_support=False))
    fast = [pipeline(frames, seed=seed) for seed in range(6)]
    pipeline.size = (1, 1)  # the long way: converted, resized to what they are, moved as floats
    assert all(torch.equal(pipeline(frames, seed=seed), one) for seed, one in enumerate(fast))
    assert not torch.equal(fast[0], fast[1])


def test_the_files_are_not_needed_any_more(project, lossless, tmp_path):
    pairs = ["DATA.SAMPLING_RATE", "4"]  # needs fps
    before = split_of(project, lossless, "val", *pairs)
    wanted, hashes = before.dataset[0], [before.dataset.videos.stamp(video) for video in range(len(before.records))]
    for path in (tmp_path / "videos").rglob("*.mp4"):
        path.unlink()
    after = split_of(project, lossless, "val", *pairs)
    assert torch.equal(after.dataset[0].query_MTCHW, wanted.query_MTCHW)
    assert [after.dataset.videos.stamp(video) for video in range(len(after.records))] == hashes


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_loader_workers_and_sent_copies_read_the_same(project, lossless, workers):
    cfg = load_config(project, ["DATA.FRAME_CACHE", str(lossless), "DATA_LOADER.NUM_WORKERS", str(workers)])
    split = builder.build_split(cfg, "test")
    direct = [split.dataset[i] for i in range(3)]  # opened before the fork
    loaded = [episode for episode, _ in zip(builder.build_loader(cfg, split), range(3), strict=False)]
    sent = pickle.loads(pickle.dumps(split.dataset.videos.cache))  # noqa: S301 (our own bytes)
    path = split.records[0].path
    assert np.array_equal(sent.clip(path).frames([0, 3]), split.dataset.videos.cache.clip(path).frames([0, 3]))
    assert all(torch.equal(a.query_MTCHW, b.query_MTCHW) for a, b in zip(direct, loaded, strict=True))


def test_indices_may_repeat_and_run_backwards(project, lossless):
    split = split_of(project, lossless, "test")
    cache, path = split.dataset.videos.cache, split.records[0].path
    clip = cache.clip(path)
    order = [5, 0, 5, 3]
    assert np.array_equal(clip.frames(order), np.stack([clip.frames([i])[0] for i in order]))
    assert not np.array_equal(clip.frames([0]), clip.frames([clip.num_frames - 1]))
    plain = open_video(split.dataset.videos.path(0))
    assert (clip.num_frames, clip.fps) == (plain.num_frames, plain.fps)


@pytest.mark.slow
def test_jpeg_is_near_and_its_quality_counts(project, made):
    distances = []
    exact = split_of(project, None, "test").dataset.decode(0, [numpy_generator(0, "x")])[0]
    exact = transforms.resize_frames(exact, (36, 36)).astype(int)
    for quality in ("50", "95"):
        found = split_of(project, made("--quality", quality), "test").dataset.decode(0, [numpy_generator(0, "x")])[0]
        distances.append(np.abs(found.astype(int) - exact).mean())
    assert 0 < distances[1] < distances[0] < 12


def test_pillow_and_simplejpeg_decode_to_the_same_pixels(monkeypatch):
    codec, picture = Codec("jpeg", 90), np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    file = bytearray(codec.encode(picture))
    found = codec.decode([file, file], (33, 47))
    assert found.shape == (2, 33, 47, 3) and frame_codec.decode_jpeg is not None
    monkeypatch.setattr(frame_codec, "decode_jpeg", None)
    assert np.array_equal(codec.decode([file, file], (33, 47)), found)


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("codec", [Codec("jpeg", 90), LOSSLESS], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (33, 48), (64, 64), (1, 47)])
def test_a_picture_of_another_size_is_an_error(monkeypatch, codec, size, installed):
    if not installed:
        monkeypatch.setattr(frame_codec, "decode_jpeg", None)
    file = bytearray(codec.encode(np.full((33, 47, 3), 7, np.uint8)))
    with pytest.raises(ValueError):
        codec.decode([file], size)


@pytest.mark.slow
def test_features_of_cached_frames_are_never_taken_for_others(project, made):
    tower = torch.nn.Linear(1, 1)
    head = SimpleNamespace(feature_modules=lambda: [tower], feature_facts=dict)
    splits = [split_of(project, cache, "test") for cache in (
        None, made("--mode", "lossless"), made("--quality", "90"), made("--quality", "95"))]
    facts = [store_facts(head, split) for split in splits]
    assert len({str(one) for one in facts}) == 4
    assert "frame_cache" not in facts[0]["pixels"]  # what was stored before there were caches stays valid
    assert facts[1]["pixels"]["frame_cache"] == {"format": 1, "mode": "lossless"}
    assert facts[2]["pixels"]["frame_cache"] == {"format": 1, "mode": "jpeg", "quality": 90, "subsampling": "4:4:4"}


def refusal(project: Path, cache: Path, *pairs: str, split: str = "test") -> str:
    with pytest.raises(FrameCacheError) as caught:
        split_of(project, cache, split, *pairs)
    return str(caught.value)


def test_a_stale_cache_says_what_differs(project, lossless, tmp_path):
    text = refusal(project, lossless, "DATA.DECODER", "decord", "DATA.TEST_SCALE", "34")
    assert text.startswith(f"{lossless}: stale frame cache (DATA.FRAME_CACHE), not used. decoder: pyav there, "
                           "decord here; test frame size: 36 x 36 there, 34 x 34 here. Make it anew")
    index = FrameIndex(lossless, write=True)
    index.set_meta(format=0)
    assert "format: 0 there, 1 here" in refusal(project, lossless)
    index.set_meta(format=1)
    lists = index.meta()["lists"]
    index.set_meta(lists={**lists, "test": {**lists["test"], "complete": False}})
    assert "test list: not finished there" in refusal(project, lossless)
    index.set_meta(lists={name: lists[name] for name in ("train", "val")})
    assert "test list: not in it (it holds train, val)" in refusal(project, lossless)
    index.set_meta(lists=lists)
    path = tmp_path / "videos" / "test_few_shot.txt"
    lines = path.read_text().splitlines()
    path.unlink()  # a link to the list of all tests
    path.write_text("\n".join(lines[:-1]))
    assert f"test list: sha256 {lists['test']['sha256'][:12]} there, " in refusal(project, lossless)
    assert refusal(project, tmp_path / "none").startswith(f"{tmp_path / 'none'}: expected a frame cache (index.sqlite")


def test_another_file_of_the_same_name_is_refused(project, lossless, tmp_path):
    split = split_of(project, lossless, "test")
    victim = split.dataset.videos.path(2)
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(content + b"\0" * 8)
    name = split.records[2].path
    assert f"1 video files are not the ones cached: {name} ({len(content)} bytes, changed at" in refusal(
        project, lossless)
    assert fill(project, lossless, "--mode", "lossless") == 0  # brought up to date
    assert split_of(project, lossless, "test").dataset.videos.stamp(2)[0] == len(content) + 8


def test_damage_is_found_named_and_repaired(project, lossless, capsys):
    split = split_of(project, lossless, "test")
    entry = split.dataset.videos.cache.entries[split.records[1].path]
    good = split.dataset.videos.cache.clip(entry.path).frames(range(entry.frames))
    flip(lossless / DATA, entry.start + entry.length - 1)  # in the last frame
    clip = split.dataset.videos.cache.clip(entry.path)
    assert np.array_equal(clip.frames([0]), good[:1])
    with pytest.raises(FrameCacheError, match=f"damaged .*: video {entry.path}: frame {entry.frames - 1} does not"):
        clip.frames([0, entry.frames - 1])
    flip(lossless / DATA, entry.start + 30)  # in the table
    with pytest.raises(FrameCacheError, match=f"video {entry.path}: its table does not have the checksum"):
        split.dataset.videos.cache.clip(entry.path)
    capsys.readouterr()
    assert fill(project, lossless, "--mode", "lossless", "--verify") == 0
    told = capsys.readouterr()
    assert told.err.count("damaged frame cache") == 1 and entry.path in told.err
    assert "verified: 1 damaged videos" in told.out
    found = split_of(project, lossless, "test").dataset.videos.cache
    assert np.array_equal(found.clip(entry.path).frames(range(entry.frames)), good)


def test_an_index_that_mixes_up_two_videos_is_found(project, lossless):
    cache = split_of(project, lossless, "test").dataset.videos.cache
    one, other = list(cache.entries.values())[:2]
    mixed = replace(other, path=one.path)
    with pytest.raises(FrameCacheError, match=f"video {one.path}: its table does not have the checksum"):
        FrameCache(lossless, cache.codec, {one.path: mixed}).clip(one.path)


def test_a_shortened_or_unreadable_cache_is_refused_not_a_crash(project, lossless):
    size = (lossless / DATA).stat().st_size
    split = split_of(project, lossless, "test")
    with (lossless / DATA).open("r+b") as file:
        file.truncate(size // 2)
    last = max(split.dataset.videos.cache.entries.values(), key=lambda entry: entry.start)
    with pytest.raises(FrameCacheError, match="damaged frame cache"):
        FrameCache(lossless, LOSSLESS, {last.path: last}).clip(last.path).frames([last.frames - 1])
    assert f"damaged frame cache: expected at least {size} bytes, found {size // 2}" in refusal(project, lossless)
    (lossless / INDEX).write_bytes(b"x" * 4096)
    assert "expected the index of a frame cache, found one that cannot be read" in refusal(project, lossless)


def test_a_video_without_a_frame_rate_keeps_that(tmp_path):
    with CacheWriter(tmp_path, LOSSLESS, "decord") as writer:
        writer.index.put([Entry("a", 4, 4, 1, 1, frames=3, length=100)])
        (entry,) = writer.index.entries((4, 4))
    assert math.isnan(entry.fps) and entry.frames == 3


def test_a_video_that_cannot_be_decoded_is_an_entry_with_its_reason(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"")
    sizes = ((8, 8), (9, 9))
    found = encode_video(VideoToCache("bad.mp4", tmp_path / "bad.mp4", sizes), "decord", LOSSLESS, tmp_path / "spool")
    assert [(one.entry.size, one.entry.error, one.spool) for one in found] == [
        (size, "empty file (0 bytes)", None) for size in sizes]
    cache = FrameCache(tmp_path, LOSSLESS, {"bad.mp4": found[0].entry})
    with pytest.raises(VideoDecodeError, match=r"^bad.mp4: empty file \(0 bytes\) \(when .* was made\)$"):
        cache.clip("bad.mp4")


@pytest.mark.parametrize(("mode", "quality"), [("png", None), ("jpeg", None), ("jpeg", 0), ("lossless", 90)])
def test_a_codec_that_cannot_be(mode, quality):
    with pytest.raises(ValueError, match="expected a (mode|quality) of"):
        Codec(mode, quality)
