"""CLIP-FSAR's scorings, by the formulas of its paper and of the published code, worked out here with plain numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.encoders.base import Encoder
from models.encoders.clip import build_towers
from models.heads.base import Setting
from models.heads.clip_fsar import ClipFsar, ClipFsarOptions
from tests.conftest import TINY_TOWER
from tests.models.episodes import random_episode
from utils.config import load_config

FRAMES = 4  # of random_episode


def head_of(logit_scale: float | None = None, **options) -> ClipFsar:
    torch.manual_seed(0)
    encoder = Encoder(build_towers(TINY_TOWER).visual, 32, 32, None, "random", "random", logit_scale)
    return ClipFsar(encoder, Setting(FRAMES, 5), ClipFsarOptions(**options)).eval()


def scores_of(**options) -> dict[str, list[list[float]]]:
    """Every scoring of an episode of three classes and two queries."""
    head = head_of(**options)
    with torch.no_grad():
        scores = head(random_episode(0), torch.randn(5, 32)).scores
    return {name: values.tolist() for name, values in scores.items()}


def fused(text: list[float], distances: list[float], frames: int, weight: float) -> list[float]:
    """p_text^a * p_vis^(1 - a), p_vis = softmax((T - distance) / T)."""
    exponents = [math.exp((frames - distance) / frames) for distance in distances]
    return [p ** weight * (e / sum(exponents)) ** (1 - weight) for p, e in zip(text, exponents, strict=True)]


@pytest.mark.parametrize("combine_frames, frames", [(None, FRAMES), (8, 8), (FRAMES, FRAMES)])
@pytest.mark.parametrize("text_weight, weight", [(None, 0.9), (0.0, 0.9), (0.5, 0.5)])
def test_the_fused_score_is_the_weighted_product_of_both_probabilities(combine_frames, frames, text_weight, weight):
    """T of the visual probability: the clip's frames, or what COMBINE_FRAMES says; it makes a difference."""
    scores = scores_of(COMBINE=True, COMBINE_FRAMES=combine_frames, TEXT_COFF=text_weight)
    for found, text, negative in zip(scores["fused"], scores["text"], scores["prototypes"], strict=True):
        distances = [-value for value in negative]
        assert sum(text) == pytest.approx(1)
        assert found == pytest.approx(fused(text, distances, frames, weight), rel=1e-5)
        other = fused(text, distances, 12 - frames, weight)
        assert max(abs(a / b - 1) for a, b in zip(found, other, strict=True)) > 1e-4


def test_clean_fuses_by_the_clips_own_frames_and_upstream_by_eight(tmp_path):
    path = tmp_path / "x.yaml"
    found = []
    for protocol in ("clean", "upstream"):
        path.write_text(f"PROTOCOL: {protocol}\nDATA: {{NUM_INPUT_FRAMES: 4}}\n")
        found.append(load_config(path).VIDEO.HEAD.OPTIONS["COMBINE_FRAMES"])
    assert found == [None, 8]


@torch.no_grad()
def test_without_training_frames_stay_as_they_are_and_text_has_clips_own_scale():
    head, episode, text = head_of(40.0, MODULATOR="identity"), random_episode(0), torch.randn(5, 32)
    batch = head.batch(episode, text)
    frames = head.encode(episode.query_MTCHW)["frames"]
    assert torch.equal(batch.query["frames"][0], frames) and not head.trains
    cosines = F.cosine_similarity(frames.mean(dim=1).unsqueeze(1), text[episode.classes_K].unsqueeze(0), dim=-1)
    torch.testing.assert_close(head(episode, text).scores["text"], (40.0 * cosines).softmax(dim=-1))
    assert (head_of(40.0).scale, head_of(40.0).trains, head_of(MODULATOR="identity").scale) == (1, True, 1)
