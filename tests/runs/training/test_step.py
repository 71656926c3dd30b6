"""The options of a training step: precision, scaling, fused updates, several episodes a pass."""

import copy
import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from runs.session.session import run
from runs.training import state as resume
from runs.training.loop import Progress
from runs.training.step import Learner, LoopOptions, PassPosition
from tests.conftest import TINY_TOWER
from tests.models.episodes import random_episode
from tests.models.heads.small import whole
from tests.models.tiny_model import model_of
from utils import checkpoint
from utils.config import resolve_config
from utils.distributed import Ranks
from utils.episode import Episode
from utils.errors import ConfigError
from utils.optim import OptimizerSettings, build_optimizer
from utils.precision import set_tf32

CPU = torch.device("cpu")


def learner_of(precision: str = "fp32", fused: bool = False, lr: float = 1e-3, model=None, **options) -> Learner:
    """A learner of a tiny model."""
    model = model or model_of(TINY_TOWER)
    optimizer = build_optimizer(model, OptimizerSettings("adam", lr, 1e-3, 0.0, fused=fused))
    numbers = LoopOptions(iterations=8, validate_every=8, iterations_a_step=2, log_every=1, precision=precision,
                          **options)
    return Learner(model, optimizer, numbers, lambda episode: "  clips", CPU)


def gradients(learner: Learner) -> dict[str, torch.Tensor]:
    """What has added up, unscaled."""
    scale = learner.scaler.get_scale()
    return {name: p.grad / scale for name, p in learner.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision, tolerance", [("bf16", 0.05), ("fp16", 0.01), ("tf32", 0.0)])
def test_gradients_of_lower_precision_are_those_of_fp32_within_a_tolerance(precision, tolerance):
    """Relative to the largest gradient of each parameter tensor; on a CPU tf32 is fp32."""
    exact, low = learner_of(), learner_of(precision)
    outcomes = [one.learn([random_episode(0)], PassPosition(0, 0, 1e-3)) for one in (exact, low)]
    assert outcomes[1].loss == pytest.approx(outcomes[0].loss, rel=0.02 if tolerance else 0)
    reference, found = gradients(exact), gradients(low)
    assert all(p.dtype == torch.float32 for p in found.values())
    largest = max(g.abs().max() for g in reference.values())
    for name, gradient in reference.items():
        assert (gradient - found[name]).abs().max() <= tolerance * largest, name
    if tolerance:
        assert any(not torch.equal(reference[name], found[name]) for name in reference)


def test_fp16_scales_its_gradients_and_leaves_out_a_step_that_overflows(caplog):
    learner = learner_of("fp16")
    learner.learn([random_episode(0)], PassPosition(0, 0, 1e-3))
    assert learner.scaler.get_scale() == 65536.0
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    next(p for p in learner.model.parameters() if p.grad is not None).grad.fill_(float("inf"))
    with caplog.at_level(logging.WARNING):
        learner.step()
    assert all(torch.equal(p, before[name]) for name, p in learner.model.named_parameters())
    assert "TRAIN.PRECISION fp16: the gradients overflowed; a step is left out" in caplog.text
    assert learner.scaler.get_scale() == 32768.0
    learner.learn([random_episode(0)], PassPosition(0, 0, 1e-3))
    learner.step()
    assert any(not torch.equal(p, before[name]) for name, p in learner.model.named_parameters())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_are_clipped_to_their_norm_and_no_further(precision):
    """TRAIN.CLIP_GRAD_NORM holds for the gradients of all parameters together, without the scale of fp16."""
    taken = []
    for limit in (None, 1e-3, 1e3):
        learner = learner_of(precision, clip_grad_norm=limit)
        learner.optimizer.register_step_pre_hook(lambda optimizer, *_: taken.append(torch.cat(
            [p.grad.flatten() for group in optimizer.param_groups for p in group["params"] if p.grad is not None])))
        learner.learn([random_episode(0)], PassPosition(0, 0, 1e-3))
        learner.step()
    free, clipped, far = taken
    assert 1e-2 < free.norm() < 1e3 and torch.equal(far, free)
    assert clipped.norm() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-4, atol=1e-6)


def test_the_scale_of_fp16_outlives_a_restart(tiny_project, tmp_path):
    first, second = learner_of("fp16"), learner_of("fp16")
    first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 512.0, "_growth_tracker": 7})
    cfg = resolve_config(tiny_project(), ["TRAIN.PRECISION", "fp16"]).config
    split = SimpleNamespace(name="val", list_hash="0" * 64)
    of_first, of_second = (resume.TrainingParts(cfg, one.model, one.optimizer, one.scaler, split, split)
                           for one in (first, second))
    state = resume.pack(of_first, Progress())
    checkpoint.atomic_save(state, tmp_path / "a.pyth")
    resume.unpack(checkpoint.read(tmp_path / "a.pyth"), Path("a.pyth"), of_second)
    assert second.scaler.state_dict() == first.scaler.state_dict()
    del state["resume"]["scaler"]  # a file of a version without it
    resume.unpack(state, Path("a.pyth"), of_second)


def test_tf32_holds_in_a_training_step_only(monkeypatch):
    """The flags that a GPU's products follow; outside, float32 is float32."""
    set_tf32(False)
    for precision in ("tf32", "fp32"):
        learner, seen = learner_of(precision), []
        learner.model.head.backbone.register_forward_pre_hook(lambda *_, seen=seen: seen.append(
            (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)))
        learner.learn([random_episode(0)], PassPosition(0, 0, 1e-3))
        assert seen == [(precision == "tf32",) * 2]
        assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


def test_fused_updates_are_plain_ones_but_for_rounding():
    plain, fused = learner_of(), learner_of(fused=True)
    for i in range(4):
        for one in (plain, fused):
            one.learn([random_episode(i)], PassPosition(i, i, 1e-3))
            one.step()
    for (name, a), b in zip(plain.model.named_parameters(), fused.model.parameters(), strict=True):
        if not name.endswith("attn.in_proj_bias"):  # its key part has no gradient but rounding
            torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


def test_an_optimizer_state_fits_another_way_of_updating():
    """Plain and contiguous there; here fused and channels-last: the flags stay this run's, moments follow weights."""
    there, here = learner_of(), learner_of(fused=True)
    here.model.head.backbone.to(memory_format=torch.channels_last)
    there.learn([random_episode(0)], PassPosition(0, 0, 1e-3))
    there.step()
    checkpoint.load_optimizer_state(here.optimizer, copy.deepcopy(there.optimizer.state_dict()), "a file")
    assert all(group["fused"] for group in here.optimizer.param_groups)
    kernel = here.model.head.backbone.conv1.weight
    moments = here.optimizer.state[kernel]
    assert kernel.stride() != kernel.contiguous().stride() == there.model.head.backbone.conv1.weight.stride()
    assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == kernel.stride()
    checkpoint.load_model_state(here.model, there.model.state_dict(), "a file")
    for one in (there, here):
        one.learn([random_episode(1)], PassPosition(1, 1, 1e-3))
        one.step()
    torch.testing.assert_close(kernel, there.model.head.backbone.conv1.weight, rtol=0, atol=2e-5)


def test_passes_end_at_steps_validations_and_the_end():
    options = LoopOptions(iterations=15, validate_every=6, iterations_a_step=8, log_every=1, together=4)
    starts, at = [], 0
    while at < options.iterations:
        starts.append(at)
        at += options.together_from(at)
    assert starts == [0, 4, 6, 8, 12] and at == 15
    assert options.together_from(5) == 1  # a run that was stopped and had other passes before


def test_a_pass_of_several_episodes_skips_the_bad_ones_alone(caplog):
    """ON_NONFINITE skip: the gradients are those of the others."""
    episodes = [random_episode(i) for i in range(3)]
    both, others = learner_of(skip_nonfinite=True, together=4), learner_of()
    with caplog.at_level(logging.WARNING):
        outcome = both.learn([episodes[0], spoilt(episodes[1]), episodes[2]], PassPosition(0, 4, 1e-3, skipped=2))
    for i in (0, 2):
        others.learn([episodes[i]], PassPosition(i, i, 1e-3))
    assert outcome.skipped == 1 and len(outcome.loss) == 2 and len(outcome.accuracy) == 3
    assert "iteration 5: the loss is not finite" in caplog.text and "Skipped (3 so far)" in caplog.text
    found = gradients(both)
    for name, gradient in gradients(others).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-5)


def spoilt(episode: Episode) -> Episode:
    return dataclasses.replace(episode, query_MTCHW=episode.query_MTCHW * float("nan"))


def test_what_had_added_up_before_a_bad_pass_is_there_bit_by_bit_after_it():
    """Without anything before, no parameter has a gradient: the optimizer then leaves it alone, momentum and all."""
    first, second = random_episode(0), random_episode(1)
    learner, plain = learner_of(skip_nonfinite=True), learner_of()
    learner.learn([spoilt(first)], PassPosition(0, 0, 1e-3))
    assert not gradients(learner)
    for one, episodes in ((learner, [first, spoilt(second), second]), (plain, [first, second])):
        for number, episode in enumerate(episodes):
            one.learn([episode], PassPosition(number, number, 1e-3))
    found, expected = gradients(learner), gradients(plain)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_gradients_of_passes_add_up_as_autograd_adds_them_up():
    learner, model = learner_of(), learner_of().model
    for number, episode in enumerate(map(random_episode, range(3))):
        learner.learn([episode], PassPosition(number, number, 1e-3))
        losses = model.head.losses(model(episode, model.text("train")), episode)
        sum(losses.values()).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found = gradients(learner)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_a_pass_with_batch_statistics_goes_again_without_counting_twice():
    """The running statistics have seen every episode once, the gradients are those of the good ones."""
    episodes, models = [random_episode(i) for i in range(3)], [whole("MEAN_POOL").train() for _ in range(2)]
    for model in models:
        model.head.backbone.insert(1, torch.nn.BatchNorm2d(32))
    both, others = (learner_of(model=model, skip_nonfinite=True, together=4) for model in models)
    outcome = both.learn([episodes[0], spoilt(episodes[1]), episodes[2]], PassPosition(0, 0, 1e-3))
    for i in (0, 2):
        others.learn([episodes[i]], PassPosition(i, i, 1e-3))
    found = gradients(both)
    assert outcome.skipped == 1 and both.model.head.backbone[1].num_batches_tracked == 6
    for name, gradient in gradients(others).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-5)


def test_passes_must_divide_steps(tiny_project):
    with pytest.raises(ConfigError, match="TRAIN.EPISODES_PER_STEP.*expected a divisor of the 2 iterations whose "
                                          "gradients add up to a step, found 3"):
        resolve_config(tiny_project(), ["TRAIN.EPISODES_PER_STEP", "3"])


@pytest.mark.slow
def test_a_run_learns_the_same_whatever_shares_a_pass(tiny_project, tmp_path, monkeypatch):
    """TRAIN.EPISODES_PER_STEP: the same curve and weights for 1, 2 and 4 episodes a pass, validations between; ranks
    exchange gradients in the iterations that step (4, 8 and the last one, 10), and in no other."""
    exchanges: list[bool] = []
    monkeypatch.setattr(Ranks, "reduce_gradients", lambda self, parameters, mean: exchanges.append(mean))
    project = tiny_project(NUM_TRAIN_TASKS=10, VAL_FRE_ITER=5, BATCH_SIZE_PER_TASK=4)
    found = []
    for count in (1, 2, 4):
        directory = tmp_path / str(count)
        run(resolve_config(project, ["TRAIN.EPISODES_PER_STEP", str(count), "OUTPUT_DIR", str(directory)]))
        state = checkpoint.read(directory / "checkpoints" / "checkpoint_epoch_00002.pyth")
        found.append(state)
    assert len(exchanges) == 3 * 3
    for other in found[1:]:
        assert other["resume"]["window"]["loss"] == pytest.approx(found[0]["resume"]["window"]["loss"], abs=1e-5)
        assert len(other["resume"]["window"]["accuracy"]) == other["resume"]["episodes"] == 10
        for name, value in found[0]["model_state"].items():
            if not name.endswith("attn.in_proj_bias"):
                torch.testing.assert_close(other["model_state"][name], value, rtol=0, atol=2e-5)
