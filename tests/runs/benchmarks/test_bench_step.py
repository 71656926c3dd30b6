"""bench_step.py: both ways of a training step, its work, its memory, its rows."""

import json
import pickle
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace

import pytest
import torch

from runs.benchmarks import bench_step, hardware, steps
from runs.benchmarks.steps import StepOptions
from runs.training.complexity import module_flops
from tests.conftest import TINY_TOWER, called
from utils.errors import BenchmarkError, ConfigError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture()
def tiny(tmp_path) -> StepOptions:
    """A step of seconds: two classes, one frame each of 32 pixels."""
    path = tmp_path / "tower.json"
    path.write_text(json.dumps(TINY_TOWER))
    return StepOptions(backbone=str(path), way=2, frames=2)


def test_the_plain_step_computes_what_the_head_does(tiny, tmp_path):
    """The same losses, but for rounding, of the same weights, with another alignment and another pass of the tower."""
    ours, plain = (steps._model(steps.configuration(tiny, pairs, tmp_path)) for pairs in ([], steps.PLAIN))
    for module in (*ours.modules(), *plain.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    (episode,) = steps.random_episodes(tiny, steps.configuration(tiny, [], tmp_path))
    expected = ours.head.losses(ours(episode, ours.text("train")), episode)
    found = steps.plain_losses(plain, episode)
    assert set(found) == set(expected) and len(found) > 1
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [steps.as_it_is, steps.written_plainly])
def test_both_ways_train(tiny, tmp_path, monkeypatch, build):
    """A step changes every part of the model, and leaves no gradients."""
    cfg, models = steps.configuration(tiny, [], tmp_path), []
    made = steps._model
    monkeypatch.setattr(steps, "_model", lambda cfg: models.append(made(cfg)) or models[-1])
    step = build(cfg, steps.random_episodes(tiny, cfg))
    before = {name: value.detach().clone() for name, value in models[0].named_parameters()}
    step()
    after = dict(models[0].named_parameters())
    assert any(not torch.equal(after[name], before[name]) for name in after if "backbone" in name)
    assert any(not torch.equal(after[name], before[name]) for name in after if "context2" in name)
    assert all(value.grad is None for value in after.values())


def test_settings_of_a_step():
    pairs = steps.overrides(StepOptions())
    assert dict(zip(pairs[::2], pairs[1::2], strict=True)) == {
        "TRAIN.PRECISION": "fp32", "TRAIN.EPISODES_PER_STEP": "1", "TRAIN.CHANNELS_LAST": "true",
        "TRAIN.ONEDNN": "false", "TRAIN.KEEP_MEMORY": "true", "TRAIN.COMPILE": "false",
        "TRAIN.GRAD_CHECKPOINT": "false"}
    every = StepOptions(precision="bf16", channels_last=False, onednn=True, keep_memory=False, compile=True,
                        grad_checkpoint=True, episodes=4)
    pairs = steps.overrides(every)
    assert dict(zip(pairs[::2], pairs[1::2], strict=True)) == {
        "TRAIN.PRECISION": "bf16", "TRAIN.CHANNELS_LAST": "false", "TRAIN.ONEDNN": "true",
        "TRAIN.KEEP_MEMORY": "false", "TRAIN.COMPILE": "true",
        "TRAIN.GRAD_CHECKPOINT": "true", "TRAIN.EPISODES_PER_STEP": "4"}
    assert every.clips == 40


def test_work_of_a_step(tiny, tmp_path):
    """Two a multiply-add, three passes, every frame of every clip; a query more is a clip more of each class."""
    found = [steps.step_flops(steps.configuration(one, [], tmp_path), one)
             for one in (tiny, replace(tiny, query=2), replace(tiny, episodes=3))]
    assert found[2] == 3 * found[0] and 1.4 < found[1] / found[0] < 1.6
    cfg = steps.configuration(tiny, [], tmp_path)
    head = steps._model(cfg).head
    adds = module_flops(head.backbone, torch.zeros(1, 3, 32, 32)) * 4 * 2  # 4 clips of 2 frames
    adds += sum(module_flops(head.context2, torch.zeros(2, tokens, 32)) for tokens in (3, 2))  # a text beside 2
    assert found[0] == 2 * 3 * adds


def test_a_step_is_measured(tiny, monkeypatch):
    monkeypatch.setattr(bench_step, "step_memory", lambda options, plain: (4 if plain else 3) * 2**30)
    shares = []
    found = bench_step.measure(shares.append, repeats=1, least=0.01, peak_sizes=[64], cpu_threads=1, where=True,
                               **asdict(tiny))
    rows = {row.name: row for row in found}
    spent = {name: row.figure for name, row in rows.items() if name.startswith("of the step: ")}
    assert sum(spent.values()) == pytest.approx(100) and min(spent["of the step: products"],
                                                             spent["of the step: batch and layer norms"]) > 0
    ours, plain, work = rows["step"].values, rows["step, written plainly"].values, rows["work of a step"].figure
    assert rows["step, as it is against written plainly"].values == pytest.approx([a / b for a, b in zip(
        ours, plain, strict=True)])
    assert rows["achieved"].values == pytest.approx([work * rate / tiny.clips for rate in ours])
    assert rows["share of the measured peak"].values == pytest.approx([100 * a / b for a, b in zip(
        rows["achieved"].values, rows["peak: dense matmul"].values, strict=True)])
    assert rows["peak memory, as it is against written plainly"].figure == 0.75
    assert 0 < rows["OTAM's share of the step"].figure < 100
    assert shares[0] == 0.3 and shares[-1] == pytest.approx(1)


def test_memory_of_a_step_in_a_process_of_its_own(tiny, monkeypatch):
    assert 50 * 2**20 < steps.step_memory(tiny, plain=True) < 5 * 2**30

    class Ended:
        def __init__(self, *_, **__): pass
        def __enter__(self): return self
        def __exit__(self, *_): pass
        def submit(self, *_): raise BrokenProcessPool

    monkeypatch.setattr(steps.concurrent.futures, "ProcessPoolExecutor", Ended)
    with pytest.raises(BenchmarkError, match="a training step of 4 clips was ended by the system.*--query"):
        steps.step_memory(tiny, plain=False)


def test_wrong_options_of_a_step_are_one_message(tiny, tmp_path, capsys):
    benchmark = called("benchmark")
    assert benchmark(["step", "--device", "cpu", "--backbone", "RN51"]) == 1
    assert "found 'RN51'" in capsys.readouterr().err
    assert benchmark(["step", "--device", "cpu", "--backbone", tiny.backbone, "--way", "1"]) == 1
    assert "TRAIN.WAY" in capsys.readouterr().err
    assert benchmark(["step", "--device", "cpu", "--precision", "fp8"]) == 1
    assert "TRAIN.PRECISION" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="takes pictures of 32 pixels, found a crop of 48") as caught:
        steps._model(steps.configuration(replace(tiny, size=48), [], tmp_path))
    # It may come from the process that measures memory.
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301  (our own)


def test_the_highest_memory_is_seen():
    def hold():
        block = torch.ones(50_000_000)  # 200 MB
        time.sleep(0.1)
        return block.sum()

    low = hardware.peak_memory(lambda: time.sleep(0.05), CPU)
    assert hardware.peak_memory(hold, CPU) - low > 150e6


def test_matmul_rate_leaves_the_number_formats_alone():
    def formats() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = formats()
    assert hardware.matmul_rate("tf32", CPU, (32, 64), 0.001) > 0
    assert formats() == before
