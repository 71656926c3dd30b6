"""Items on their device: order, errors and memory of the one fetched ahead; pixels made there."""

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets import builder
from datasets.clips import Clips
from datasets.device_loader import SideStream, on_device, one_ahead
from datasets.raw_episode import RawEpisode
from datasets.transforms import Erasing
from tests.datasets.pictures import PLAIN, picture, query, unaugmented
from tests.datasets.tiny_clips import config, make_dataset, same, write_clip
from utils.errors import VideoDecodeError

CPU = torch.device("cpu")
ALL = {"AUGMENTATION__USE_GPU": True, "AUGMENTATION__SUPPORT_QUERY_DIFF": True,
       "AUGMENTATION__SUPPORT_QUERY_DIFF_SUPPORT": True, "AUGMENTATION__RANDOM_ERASING__ENABLE": True,
       "AUGMENTATION__RANDOM_ERASING__PROB": 1.0, "AUGMENTATION__RANDOM_ERASING__MODE": "pixel"}


class FakeStream:
    """Notes what is started and handed over."""

    def __init__(self):
        self.events: list[str] = []

    def start(self, source):
        item = next(source, None)
        self.events.append(f"start {item}")
        return item

    def hand_over(self, item):
        self.events.append(f"give {item}")
        return item


def episodes_of(cfg, split="train", device=CPU):
    made = builder.build_split(cfg, split)
    return list(on_device(builder.build_loader(cfg, made), device))


def test_each_item_is_handed_out_when_the_next_is_started():
    side = FakeStream()
    used = [side.events.append(f"use {item}") or item for item in one_ahead(iter("abc"), side)]
    assert used == ["a", "b", "c"] and side.events == [
        "start a", "start b", "give a", "use a", "start c", "give b", "use b", "start None", "give c", "use c"]
    assert list(one_ahead(iter(()), FakeStream())) == []
    assert list(one_ahead(iter("a"), FakeStream())) == ["a"]


@pytest.mark.parametrize("good", [0, 1, 3])
def test_an_error_comes_when_its_item_is_asked_for(good):
    def items():
        yield from range(1, good + 1)
        raise VideoDecodeError("x.mp4", "empty file")

    source, found = one_ahead(items(), FakeStream()), []
    with pytest.raises(VideoDecodeError, match=r"x.mp4: empty file"):
        for item in source:
            found.append(item)
    assert found == list(range(1, good + 1))
    with pytest.raises(StopIteration):
        next(source)


def test_a_signal_is_not_held_back():
    def items():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(one_ahead(items(), FakeStream()))


def test_no_more_than_one_item_waits():
    class Part:
        pass

    alive = weakref.WeakSet()

    def items():
        for _ in range(5):
            part = Part()
            alive.add(part)
            yield part
            del part

    for item in one_ahead(items(), FakeStream()):
        gc.collect()
        assert item in alive and len(alive) <= 2


def test_the_current_stream_waits_and_memory_is_not_reused_early(monkeypatch):
    """The calls that a GPU gets, on stand-ins for its streams."""
    notes: list[tuple] = []
    side = SimpleNamespace(record_event=lambda: "ready")
    current = SimpleNamespace(wait_event=lambda event: notes.append(("wait", event)))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(notes.append(("on side", stream is side))))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda one, stream: notes.append((int(one), stream is current)))
    items = [Clips(n, (0,), torch.tensor(10 * n)) for n in (1, 2)]
    found = one_ahead(iter(items), SideStream(torch.device("cuda")))
    assert next(found) is items[0]
    assert notes == [("on side", True), ("on side", True), ("wait", "ready"), (10, True)]
    assert list(found) == items[1:] and notes[4:] == [("on side", True), ("wait", "ready"), (20, True)]


def test_on_the_cpu_nothing_is_fetched_ahead(root, monkeypatch):
    cfg, asked = config(root), []
    loader = builder.build_loader(cfg, builder.build_split(cfg, "train"))
    assert on_device(loader, CPU) is loader and loader.finish is None
    cfg = config(root, AUGMENTATION__USE_GPU=True)
    made = builder.build_split(cfg, "train")
    original = type(made.dataset).raw
    monkeypatch.setattr(type(made.dataset), "raw", lambda self, index: asked.append(index) or original(self, index))
    for number, _ in enumerate(on_device(builder.build_loader(cfg, made), CPU)):
        assert asked == list(range(number + 1))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_on_the_cpu_episodes_are_the_same_bit_by_bit(root, workers, split):
    for path in [*root.glob(f"{split}_0_*.mp4"), *root.glob(f"{split}_1_*.mp4")]:  # frames that need no resizing
        path.unlink()
        write_clip(path, 100, side=20)
    state = torch.get_rng_state()
    plain, raw = ([*episodes_of(config(root, **{**ALL, "AUGMENTATION__USE_GPU": on}, DATA_LOADER__NUM_WORKERS=workers),
                                split)] for on in (False, True))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(plain) == len(raw) > 2 and all(same(a, b) for a, b in zip(plain, raw, strict=True))
    for one, other in zip(plain, raw, strict=True):
        assert torch.equal(one.support_classes_N, other.support_classes_N) and torch.equal(
            one.query_labels_M, other.query_labels_M) and torch.equal(one.classes_K, other.classes_K)
        assert other.support_NTCHW.is_contiguous() and other.query_MTCHW.is_contiguous()


def test_clips_of_several_sizes_travel_in_one_tensor(root):
    write_clip(root / "new.mp4", 50, side=48)
    (root / "new.mp4").replace(root / "test_1_0.mp4")
    dataset = make_dataset(root)
    raws = [dataset.raw(index) for index in range(6)]
    assert {shape[1] for raw in raws for shape in raw.shapes} == {32, 48}
    for index, raw in enumerate(raws):
        assert isinstance(raw, RawEpisode) and raw.pixels.dtype == torch.uint8 and raw.pixels.ndim == 1
        assert raw.pixels.numel() == sum(np.prod(shape) for shape in raw.shapes)
        assert same(dataset.finish(raw), dataset[index])


def test_replaced_clips_and_errors_are_those_of_the_plain_path(copied):
    dataset = make_dataset(copied, on_bad_video="replace")
    bad = copied / dataset.videos.records[dataset.sampler.spec(0).query_M[0]].path
    bad.write_bytes(b"")
    raw = dataset.raw(0)
    assert raw.bad_videos == dataset[0].bad_videos == dataset.finish(raw).bad_videos and len(raw.bad_videos) == 1
    for workers in (0, 2):
        for path in copied.glob("train*.mp4"):
            path.write_bytes(b"")
        cfg = config(copied, AUGMENTATION__USE_GPU=True, DATA_LOADER__NUM_WORKERS=workers)
        with pytest.raises(VideoDecodeError, match=r"empty file \(0 bytes\)"):
            episodes_of(cfg)


def test_clips_of_a_feature_store_are_the_same(copied):
    def clips(use_gpu):
        cfg = config(copied, AUGMENTATION__USE_GPU=use_gpu, DATA__ON_BAD_VIDEO="replace")
        made = builder.build_split(cfg, "test")
        return list(on_device(builder.build_clip_loader(cfg, made, {0: (0, 2), 1: (1,), 2: (0,)}), CPU))

    (copied / builder.build_split(config(copied), "test").records[1].path).write_bytes(b"")
    plain, raw = clips(False), clips(True)
    assert [one.video for one in raw] == [0, 1, 2] and raw[0].pixels.shape == (2, 4, 3, 16, 16)
    assert all(a.draws == b.draws and torch.equal(a.pixels, b.pixels) for a, b in zip(plain, raw, strict=True))
    assert [str(one.error) for one in plain] == [str(one.error) for one in raw]
    assert raw[1].error.reason == "empty file (0 bytes)"


def test_pixels_made_on_cuda_have_another_identity(root):
    def facts(**changes):
        return builder.build_split(config(root, **changes), "test").pixels

    plain = facts()
    assert facts(AUGMENTATION__USE_GPU=True) == facts(NUM_GPUS=1) == plain
    assert facts(AUGMENTATION__USE_GPU=True, NUM_GPUS=1) == {**plain, "transformed_on": "cuda"}


def test_large_frames_are_told_once(root, caplog):
    episodes_of(config(root, AUGMENTATION__USE_GPU=True))
    assert not caplog.records  # 32 x 32 x 3 bytes to 16 x 16 x 3 floats
    for path in root.glob("train*.mp4"):
        path.unlink()
        write_clip(path, 100, side=64)
    episodes_of(config(root, AUGMENTATION__USE_GPU=True))
    (record,) = caplog.records
    assert "AUGMENTATION.USE_GPU: 0.4 MB of frames are handed over where 0.1 MB of transformed clips" in record.message


@pytest.mark.parametrize("mode", ["const", "pixel"])
def test_choices_are_drawn_on_the_cpu_wherever_the_clip_is(mode):
    """The generator stands at the same place afterwards: what was drawn does not depend on the device."""
    class Probe(torch.nn.Module):
        def forward(self, frames):
            seen.append((torch.random.get_rng_state(), frames.shape))
            return frames

    transform = query(support_query_diff=True, erasing=Erasing(0.5, mode, (0.02, 0.33), 0.3))
    transform.steps.transforms.append(Probe())
    for seed in range(10):
        seen: list = []
        for device in ("cpu", "meta"):
            transform(torch.from_numpy(picture()).to(device), seed)
        assert torch.equal(seen[0][0], seen[1][0]) and seen[0][1] == seen[1][1]


def tolerance(clip, size) -> float:
    """As stated in datasets/transforms.py."""
    exact = all(side & (side - 1) == 0 for side in size)
    return 2e-5 if exact else 2e-5 + 1e-6 * max(clip.shape[1:3])


@pytest.mark.gpu
@pytest.mark.parametrize("size, source", [((256, 256), (256, 340)), ((256, 256), (1080, 1920)),
                                          ((250, 230), (480, 854)), ((256, 256), (256, 256))])
@pytest.mark.parametrize("mode", ["const", "pixel"])
def test_on_a_gpu_the_pixels_are_the_same_but_for_rounding(size, source, mode):
    clip = picture(*source, frames=2)
    settings = {"support_query_diff": True, "erasing": Erasing(0.5, mode, (0.02, 0.33), 0.3)}
    made = [query(size, 224, **settings), unaugmented(scale=size, crop=224, **PLAIN)]
    before = torch.cuda.get_rng_state()
    for seed in range(12):
        for transform in made:
            found = transform(torch.from_numpy(clip).cuda(), seed)
            assert found.is_cuda and float((found.cpu() - transform(clip, seed)).abs().max()) <= tolerance(clip, size)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.parametrize("use_gpu", [False, True])
@pytest.mark.parametrize("workers, pin", [(0, False), (2, False), (2, True)])
def test_on_a_gpu_episodes_arrive_whole_and_in_order(root, use_gpu, workers, pin):
    changes = {**ALL, "DATA_LOADER__NUM_WORKERS": workers, "DATA_LOADER__PIN_MEMORY": pin}
    expected = episodes_of(config(root, **{**changes, "AUGMENTATION__USE_GPU": False}))
    cfg = config(root, **{**changes, "AUGMENTATION__USE_GPU": use_gpu}, NUM_GPUS=1)
    made, found = builder.build_split(cfg, "train"), []
    for episode in on_device(builder.build_loader(cfg, made), torch.device("cuda")):
        torch.cuda._sleep(50_000_000)  # the current stream is behind when the next episodes are made
        found.append(replace(episode, support_NTCHW=episode.support_NTCHW * 1, query_MTCHW=episode.query_MTCHW * 1))
    assert [one.spec for one in found] == [one.spec for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert all(value.is_cuda for value in (one.query_MTCHW, one.classes_K, one.support_labels_N))
        limit = (2e-5 + 1e-6 * 32) / 0.225 if use_gpu else 0
        assert float((one.query_MTCHW.cpu() - other.query_MTCHW).abs().max()) <= limit
        assert float((one.support_NTCHW.cpu() - other.support_NTCHW).abs().max()) <= limit
