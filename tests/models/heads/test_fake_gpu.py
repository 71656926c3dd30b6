"""Forward passes on a GPU that is not there: devices, types and waits (tests/models/fake_gpu.py)."""

from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch

from models.heads import HEADS
from models.layers.alignment import ALIGNMENTS, otam
from runs.evaluation.evaluate import StoredEpisodes
from tests.conftest import TINY_TOWER
from tests.models.episodes import random_episode
from tests.models.fake_gpu import CUDA, fake_gpu, moved, to_gpu
from tests.models.heads.small import episode_of, whole
from tests.models.tiny_model import model_of
from tests.runs.training.learners import START, learner_of

PRECISIONS = ["fp32", "bf16", "fp16"]


def learn(model, given, precision: str) -> None:
    """A pass of two episodes: what is read is read after the backward pass."""
    with fake_gpu() as notes:
        to_gpu(model)
        learner = learner_of(model, "cuda", precision=precision)
        learner.learn([moved(episode) for episode in given], START)
    assert notes == ["event", "backward", "read"]


def episodes(*shots):
    return [episode_of(of_ways, (2, 1, 1), kind=torch.float32) for of_ways in shots]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_trains(name, precision):
    learn(whole(name), episodes((2, 2, 2), (2, 1, 3)), precision)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_scores(name):
    model, given = whole(name).eval(), episodes((5, 5, 5), (2, 1, 3))
    with fake_gpu():
        to_gpu(model)
        for episode in given:
            scores = model(moved(episode), model.text("train")).scores
            assert {(one.dtype, one.device) for one in scores.values()} == {(torch.float32, CUDA)}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("alignment", sorted(ALIGNMENTS))
@pytest.mark.parametrize("name", ["CNN_OTAM", "CNN_OTAM_CLIPFSAR"])
def test_every_alignment(name, alignment, precision, monkeypatch):
    if alignment == "otam_triton":
        kernels = pytest.importorskip("models.layers.alignment.otam_triton")
        launched: list[str] = []
        monkeypatch.setattr(kernels, "_launch", lambda kernel, costs, *_, **__: launched.append(costs.device.type))
    learn(whole(name, ALIGNMENT=alignment), episodes((2, 2, 2), (2, 2, 2)), precision)
    assert alignment != "otam_triton" or launched == ["cuda", "cuda"]


@pytest.mark.parametrize("largest", [2.0, float("inf")])
def test_gradients_of_otam(largest):
    """Its own backward pass, in both number spaces."""
    kept = SimpleNamespace(save_for_backward=lambda *tensors: setattr(kept, "saved_tensors", tensors))
    with fake_gpu():
        distances = otam._Otam.forward(kept, torch.empty(6, 4, 5, device="cuda"), 0.5, largest)
        gradient = otam._Otam.backward(kept, distances)[0]
    assert (gradient.shape, gradient.dtype, gradient.device) == ((6, 4, 5), torch.float32, CUDA)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("vision", [TINY_TOWER["vision_cfg"], {
    "image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}])
def test_towers_of_clip(vision, precision):
    learn(model_of({**TINY_TOWER, "vision_cfg": vision}), [random_episode(0), random_episode(1)], precision)


def test_what_goes_to_a_gpu_is_not_waited_for(monkeypatch):
    """Training episodes, from workers that may have pinned them, and the features of a pass of an evaluation."""
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    rows = torch.arange(3).repeat(4, 1)
    episode = episode_of((2, 2, 2), (1, 1, 1))
    with fake_gpu():
        here = episode._with(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
        episode = here.pin_memory().to(CUDA)
        tensors = [value for one in fields(episode) if isinstance(value := getattr(episode, one.name), torch.Tensor)]
        assert len(tensors) == len(pinned) == 7 and {one.device for one in tensors} == {CUDA}
        clips, places = {"frames": torch.empty(6, 4, 32)}, torch.empty(rows.shape, dtype=torch.int64)
        stored = StoredEpisodes(clips, clips, places.unsqueeze(2), places, places, [], torch.empty(5, 8, device="cuda"),
                                CUDA)
        batch = stored.batch(slice(0, 2))
    assert len(pinned) == 7 + 3 and {batch.support["frames"].device, batch.query["frames"].device} == {CUDA}
    assert (batch.text_BKD.shape, batch.text_BKD.device) == ((2, 3, 8), CUDA)


def half(head, batch):
    with torch.autocast("cuda", enabled=False):
        return batch.query["clip"].half() * 2


@pytest.mark.parametrize(("mistake", "told"), [
    (lambda head, batch: batch.query["clip"] + torch.zeros(4, 32), "at least two devices"),
    (lambda head, batch: batch.query["clip"].sum().item(), "_local_scalar_dense"),
    (lambda head, batch: batch.query["clip"].new_tensor([1.0, 2.0]), "a copy that is waited for"),
    (lambda head, batch: torch.arange(3).to(batch.query["clip"].device), "a copy that is waited for"),
    (lambda head, batch: batch.query["clip"].cpu(), "a copy that is waited for"),
    (lambda head, batch: batch.query["clip"][torch.tensor([0, 1])], "tensors on cpu and cuda"),
    (lambda head, batch: batch.query["clip"][batch.query["clip"] > 0], "nonzero"),
    (half, "computes in torch.float16 where autocast is off"),
    (lambda head, batch: batch.query["clip"][0].double() @ batch.query["clip"][0].mT, "factors of several types")])
def test_mistakes_are_found(mistake, told, monkeypatch):
    kind = HEADS["MEAN_POOL"]
    original = kind.match
    monkeypatch.setattr(kind, "match", lambda head, batch: (mistake(head, batch), original(head, batch))[1])
    with pytest.raises(Exception, match=told):
        learn(whole("MEAN_POOL"), episodes((2, 2, 2)), "fp32")
