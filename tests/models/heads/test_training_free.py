"""The rows that need no training: their strengths, what fills missing supports, and a test without a checkpoint."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.encoders.base import Encoder
from models.heads import HEADS
from models.heads.base import FeatureBatch, Setting
from models.heads.training_free import ALPHAS, BETAS, DECAYS
from models.layers.probe import logistic_probe
from models.layers.set_similarity import triple_similarities
from models.layers.similarity import EPSILON
from runs.session.session import run
from utils.config import resolve_config

WIDTH, FRAMES = 16, 4


def frozen(name: str = "FROZEN_TEXT", shots: int = 5, **options):
    return HEADS[name](Encoder(nn.Identity(), WIDTH, None, None, "random", "none"),
                       Setting(FRAMES, episodes=((3, shots), (3, shots))), HEADS[name].Options(**options)
                       ).double().eval()


def batch_of(seed: int, shots: int = 5, noise: float = 1.0) -> tuple[FeatureBatch, torch.Tensor]:
    """Clips around a direction of their class, and the class's text beside it."""
    draw = torch.Generator().manual_seed(seed)
    classes = torch.randn(2, 3, WIDTH, generator=draw, dtype=torch.float64)
    labels = torch.arange(3).repeat(2, 2)
    head = frozen()

    def clips(of: torch.Tensor) -> dict:
        frames = of.unsqueeze(-2) + noise * torch.randn(*of.shape[:-1], FRAMES, WIDTH, generator=draw,
                                                        dtype=torch.float64)
        return {name: value.unflatten(0, of.shape[:-1]) for name, value in head.in_role(
            {"frames": frames.flatten(0, -3)}, None, "query").items()}

    support = clips(classes.unsqueeze(2).expand(-1, -1, shots, -1))
    query = clips(torch.gather(classes, 1, labels.unsqueeze(-1).expand(-1, -1, WIDTH)))
    return FeatureBatch(support, query, classes + noise * torch.randn(classes.shape, generator=draw)), labels


def test_a_linear_probe_is_the_best_logistic_regression():
    batch, _ = batch_of(0)
    support, query = batch.support["clip"].flatten(1, 2), batch.query["clip"]
    head = frozen()
    for decay in DECAYS[1:]:
        found = logistic_probe(support, head.labels(batch), query, decay)
        weights = torch.zeros(2, WIDTH, 3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

        def loss(decay=decay, weights=weights, optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            targets = torch.arange(3).repeat_interleave(5)
            value = sum(F.cross_entropy(s @ w, targets) + decay / 2 * w.square().sum()
                        for s, w in zip(support, weights, strict=True))
            value.backward()
            return value

        optimizer.step(loss)
        torch.testing.assert_close(found, query @ weights.detach(), rtol=0.02, atol=0.02)


def test_a_probe_needs_five_shots():
    assert "linear_probe" in {scoring.name for scoring in frozen(shots=5).scorings}
    assert "linear_probe" not in {scoring.name for scoring in frozen(shots=4).scorings}


@torch.no_grad()
def test_strengths_come_from_the_validation_episodes_once():
    head = frozen()
    batches = [batch_of(seed, noise=3.0) for seed in range(4)]
    found = head.calibrate(batches)
    assert found["tip_alpha"] in ALPHAS and found["tip_beta"] in BETAS and found["probe_decay"] in DECAYS
    assert (float(head.alpha), float(head.beta)) == pytest.approx((found["tip_alpha"], found["tip_beta"]))
    best = max(float((head.tip(batch, alpha, beta).argmax(-1) == labels).double().mean())
               for alpha in ALPHAS for beta in BETAS for batch, labels in batches[:1])
    batch, labels = batches[0]
    assert best >= float((head.match(batch)["tip_adapter"].argmax(-1) == labels).double().mean())
    other = frozen()
    other.load_state_dict(head.state_dict())
    assert float(other.alpha) == float(head.alpha)


def test_a_given_decay_is_used_and_asks_for_no_validation_episodes():
    head, batch = frozen("FROZEN"), batch_of(0)[0]
    given = frozen("FROZEN", PROBE_DECAY=0.1)
    assert (head.calibrates, given.calibrates, frozen("FROZEN", shots=1).calibrates) == (True, False, False)
    given.decay.fill_(1e-4)  # as a checkpoint may hold it
    torch.testing.assert_close(given.match(batch)["linear_probe"], head.probe(batch, 0.1))
    assert given.calibrate([]) == {} and frozen("FROZEN_TEXT", shots=1).calibrates


def test_triples_are_their_frames_end_to_end():
    batch, _ = batch_of(1)
    query, support = batch.query["frames"], batch.support["frames"].flatten(1, 2)
    triples = [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
    ends = [torch.stack([clips[:, :, list(one)].flatten(2) for one in triples], dim=2) for clips in (query, support)]
    dots = torch.einsum("bmtd,bnud->bmntu", *ends)
    norms = ends[0].norm(dim=-1)[:, :, None, :, None] * ends[1].norm(dim=-1)[:, None, :, None, :]
    torch.testing.assert_close(triple_similarities(query, support), dots / (norms + EPSILON))


@pytest.mark.slow
def test_a_test_without_training_or_checkpoint(tiny_project):
    project = tiny_project("free", ENABLE=False, SHOT=1)
    found = run(resolve_config(project, ["VIDEO.HEAD.NAME", "FROZEN_TEXT", "TEST.ENABLE", "true"]))
    assert {"mean_prototype", "chamfer", "bimhm", "otam", "zero_shot", "tip_adapter"} <= set(found["scorings"])
    assert found["calibration"]["tip_alpha"] in ALPHAS
