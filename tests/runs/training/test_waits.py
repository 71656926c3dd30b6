"""The host reads nothing while a pass is being queued: a GPU would be waited for there, and then idle."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from models.heads import HEADS
from models.layers.batch_norm import over_ranks
from runs.evaluation import evaluate
from runs.training.step import Learner
from tests.models.heads.small import episode_of, whole
from tests.models.watch import Watch
from tests.runs.training.learners import START, learner_of
from utils.episode import Episode


def episodes() -> list[Episode]:
    """As many supports of each way, and not."""
    return [episode_of(shots, (2, 1, 1), kind=torch.float32) for shots in ((2, 2, 2), (2, 1, 3))]


def watched(learner: Learner, given: Sequence[Episode]) -> tuple[list[str], list[str]]:
    """What is read until the last operation of the backward pass, and after it."""
    with Watch() as watch:
        learner.learn(given, START)
    end = max(i for i, (_, _, backward) in enumerate(watch.seen) if backward)
    assert end > 100
    return watch.reads(last=end), watch.reads(first=end)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_nothing_is_read_between_forward_and_backward(name):
    learner = learner_of(whole(name), precision="bf16")
    assert watched(learner, episodes()) == ([], ["tolist"])
    assert all(p.dtype == torch.float32 for p in learner.model.parameters() if p.requires_grad)


def test_nothing_is_read_where_ranks_share_batch_statistics(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, group: None)
    model = whole("MEAN_POOL")
    model.head.backbone.insert(1, nn.BatchNorm2d(32))
    over_ranks(model)
    assert watched(learner_of(model, batch_over_ranks=True), episodes()) == ([], ["tolist"])
    assert model.head.backbone[1].num_batches_tracked == 4


@torch.no_grad()  # inference mode would hide what composed operations do
@pytest.mark.parametrize("name", sorted(HEADS))
def test_nothing_is_read_while_an_episode_is_scored(name):
    model = whole(name).eval()
    for shots in ((5, 5, 5), (2, 1, 3)):
        episode, text = episode_of(shots, (2, 1, 1), kind=torch.float32), model.text("train")
        with Watch() as watch:
            model(episode, text)
        assert len(watch.seen) > 30 and not watch.reads()


def test_scores_are_read_when_all_passes_are_queued(monkeypatch):
    monkeypatch.setattr(evaluate, "EPISODES_A_PASS", 1)
    model, rows = whole("CNN_OTAM").eval(), torch.arange(3)
    clips = {"frames": torch.randn(6, 4, 32)}
    stored = evaluate.StoredEpisodes(clips, clips, rows.view(1, 3, 1).repeat(4, 1, 1), rows.repeat(4, 1) + 3,
                                     rows.repeat(4, 1), [], None, torch.device("cpu"))
    with Watch() as watch:
        scores = evaluate.score_stored(model, stored, "test")
    assert scores["aligned"].shape == (4, 3, 3) and len(stored.passes()) == 4
    names = [name for name, _, _ in watch.seen]
    assert watch.reads() == ["numpy"] * 4 and names.count("index") >= 8
    assert "index" not in names[names.index("numpy"):]


@pytest.mark.parametrize("read", [
    lambda x: x.sum().item(), lambda x: bool(x.sum() > 0), lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x[x > 0],
    lambda x: x.detach().numpy(), lambda x: x.nonzero(), lambda x: float(x.sum()), lambda x: x.masked_select(x > 0)])
def test_whatever_reads_is_seen(read, monkeypatch):
    learner, kind = learner_of(whole("MEAN_POOL")), HEADS["MEAN_POOL"]
    original = kind.match
    monkeypatch.setattr(kind, "match", lambda head, batch: (read(batch.query["clip"]), original(head, batch))[1])
    assert len(watched(learner, episodes())[0]) >= 2


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_gpu_is_not_waited_for(name, precision):
    """The step of the optimizer included."""
    learner = learner_of(whole(name).to("cuda"), "cuda", precision=precision, clip_grad_norm=1.0)
    given = [episode.to("cuda") for episode in episodes()]
    for mode in ("default", "error"):  # the first pass sets libraries up
        torch.cuda.set_sync_debug_mode(mode)
        try:
            learner.learn(given, START)
            learner.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
