"""What heads export gives their own scores, and the runner's way from a file to pixels is this project's."""

import struct

import numpy as np
import pytest
import torch

from datasets import transforms
from datasets.transforms import PixelSettings
from models.encoders.base import Encoder
from models.heads import HEADS
from models.heads.base import Head
from runs.own.clips import Reading, read_clip
from runs.own.export.bundle import examples_of
from runs.own.export.proof import torch_runtime
from runs.own.matching import Matcher
from tests.datasets.readers.decoder_files import FILES, write_video
from tests.models.heads.small import FRAMES, WIDTH, head_of, texts

recognise = pytest.importorskip("runs.own.export.recognise")
MATRICES = {"turned": (0, 1, -1, 0), "upside down": (-1, 0, 0, -1), "mirrored": (-1, 0, 0, 1),
            "askew": (0.8, 0.6, -0.6, 0.8)}
EXPORTABLE = [(name, scoring.name) for name in HEADS for scoring in head_of(name).scorings
              if head_of(name).exportable(scoring.name) is not None]


def test_which_heads_can_be_exported():
    assert {name for name, _ in EXPORTABLE} == {"CNN_OTAM_CLIPFSAR", "CNN_OTAM", "CNN_TSN", "FROZEN",
                                                "FROZEN_TEXT"}
    assert {name for name in HEADS if HEADS[name].exportable is not Head.exportable} == {name for name, _ in EXPORTABLE}


@pytest.mark.parametrize(("name", "scoring", "options"), [
    *((name, scoring, {}) for name, scoring in EXPORTABLE),
    ("CNN_OTAM_CLIPFSAR", "prototypes", {"MERGE_BEFORE": True, "SINGLE_DIRECT": True}),
    ("CNN_OTAM_CLIPFSAR", "prototypes", {"ALIGNMENT": "bimhm", "SINGLE_DIRECT": True}),
    ("CNN_OTAM_CLIPFSAR", "prototypes", {"MODULATOR": "identity"}), ("CNN_OTAM", "aligned", {"ALIGNMENT": "bimhm"}),
    ("CNN_TSN", "cosine", {"COSINE_SCALE": 3.0})])
def test_exported_modules_score_as_the_head(name, scoring, options):
    """Distances and held-out distances, of unequal numbers of clips."""
    head = head_of(name).float().eval()
    encoder = Encoder(head.backbone, WIDTH, None, None, "random", "random")
    head = type(head)(encoder, head.setting, type(head.options)(**options)).eval()
    draw = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    features = {"frames": torch.randn(6, FRAMES, WIDTH, generator=draw)}
    text = texts(head)
    matcher = Matcher(head, features, labels, None if text is None else text[:3].float(), scoring)
    made = head.exportable(scoring)
    examples, runtime = examples_of(matcher, made), torch_runtime(made)
    held = matcher.held_out()
    np.testing.assert_allclose(examples.held_out(held.clips_n, runtime), held.distances_nK, atol=2e-5)
    distances_MR = runtime.compare(runtime.modulate(features["frames"].numpy()), examples.references(runtime))
    found = np.stack([distances_MR[:, examples.reference_labels == k].mean(axis=1) for k in range(3)], axis=1)
    np.testing.assert_allclose(found, matcher.distances(features), atol=2e-5)


@pytest.mark.parametrize("shape", [(240, 320), (48, 64), (480, 854), (1080, 1920), (1920, 1080), (17, 900), (224, 224)])
@pytest.mark.parametrize(("scale", "crop"), [(224, 224), (256, 224), ((128, 171), 112), (33, 32)])
def test_pixels_are_those_of_the_transform(shape, scale, crop):
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pixels = PixelSettings(scale, crop, [0.48, 0.46, 0.41], [0.27, 0.26, 0.28])
    found = recognise.resized(frame, pixels.frame_size, crop, pixels.mean, pixels.std)
    assert found.dtype == np.float32 and found.shape == (3, crop, crop)
    assert np.abs(found - transforms.test_transform(pixels)(frame[None])[0].numpy()).max() < 1e-5


@pytest.mark.parametrize("name", [*FILES, "turned.mp4", "upside down.mp4", "mirrored.mp4", "askew.mp4", "short.mp4"])
def test_a_file_is_read_as_by_this_project(tmp_path, name):
    """Frames, their times, the length and the shape; noise, so that each frame is another."""
    path = write_video(tmp_path / name, FILES.get(name, "libx264"), frames=3 if name == "short.mp4" else 30, noise=True)
    if name.split(".")[0] in MATRICES:
        content = bytearray(path.read_bytes())
        place = content.index(b"tkhd") + 44  # behind name, version and ten numbers
        a, b, c, d = (round(value * 65536) for value in MATRICES[name.split(".")[0]])
        content[place:place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(content)
    expected = read_clip(path, Reading(4, PixelSettings(40, 32, [0.5] * 3, [0.25] * 3), "pyav"))
    bundle = object.__new__(recognise.Bundle)
    bundle.facts = {"frames": 4, "pixels": {"size": [40, 40], "crop": 32, "mean": [0.5] * 3, "std": [0.25] * 3}}
    pixels, facts = bundle.read(path)
    assert np.abs(pixels - expected.pixels.numpy()).max() < 1e-5
    assert facts["times"] == pytest.approx(expected.times) and facts["seconds"] == pytest.approx(expected.seconds)
    assert facts["size"] == expected.size and facts["distinct"] == expected.distinct
