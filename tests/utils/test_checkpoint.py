"""Checkpoint files: written whole or told why not, read without running code, told apart when odd."""

import os
import resource

import pytest
import torch

from utils import checkpoint
from utils.errors import CheckpointError


class _Malicious:
    def __reduce__(self):
        return os.system, ("exit 1",)


def _state() -> dict:
    """A state as a run saves it, small."""
    model = torch.nn.Linear(2, 1)
    return {"epoch": 1, "model_state": model.state_dict(), "cfg": "{}",
            "optimizer_state": torch.optim.Adam(model.parameters()).state_dict(),
            "resume": {"iteration": 3, "best": 0.5, "best_iteration": 3, "skipped": 0, "selected_on": "val", "seed": 0,
                       "gradients": {}, "lists": {"val": "x"}, "validated": 3, "window": {"loss": [0.1]}}}


def test_a_malicious_file_is_refused_without_advice_to_run_it(tmp_path):
    path = tmp_path / "bad.pyth"
    torch.save({"model_state": {"a": _Malicious()}}, path)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert str(caught.value) == (f"{path}: refused: it names {os.system.__module__}.system, and reading that could run "
                                 "code; expected tensors, numbers and text only")


@pytest.mark.parametrize("content", [b"damaged", b"", b"\x80\x02.", b"PK\x03\x04 cut"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "bad.pyth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert str(caught.value).startswith(f"{path}: damaged, or no checkpoint: expected a file of torch.save")


PARTS = [
    ("epoch", "1", "epoch: expected a count, found text of 1 characters"),
    ("model_state", [], "expected a checkpoint with model_state, found epoch, model_state, cfg"),
    ("model_state", {"weight": 3}, "model_state: weight: expected a tensor, found 3"),
    ("model_state", {3: torch.zeros(1)}, "model_state: int: expected a name of a tensor, found a"),
    ("model_state", {"w": torch.zeros(1, device="meta")}, "model_state: w: expected a tensor, found a tensor "
     "(torch.float32, torch.strided, meta)"),
    ("model_state", {"w": torch.eye(2).to_sparse()}, "model_state: w: expected a tensor, found a"),
    ("model_state", {"w": torch.zeros(1, dtype=torch.complex64)}, "model_state: w: expected a tensor, found a"),
    ("model_state", {"w": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)}, "model_state: w: expected"),
    ("cfg", "not JSON", "cfg: expected a configuration as JSON text, found text of 8 characters"),
    ("cfg", "[1]", "cfg: expected a configuration as JSON text, found text of 3 characters"),
    ("cfg", '{"VIDEO": 1}', "cfg: expected a configuration as JSON text, found text of 12 characters"),
    ("cfg", '{"TRAIN": [1]}', "cfg: expected a configuration as JSON text, found text of 14 characters"),
    ("cfg", "[" * 100_000, "cfg: expected a configuration as JSON text, found text of 100000 characters"),
    ("cfg", {}, "cfg: expected a configuration as JSON text, found dict"),
    ("optimizer_state", {"state": {}}, "optimizer_state: expected state and param_groups, found dict"),
    ("optimizer_state", {"state": {}, "param_groups": [3]}, "optimizer_state: expected state and param_groups"),
    ("optimizer_state", {"state": {0: {"step": "x"}}, "param_groups": []}, "optimizer_state: expected state and param"),
    ("optimizer_state", {"state": {}, "param_groups": [{"params": [[]]}]}, "optimizer_state: expected state and param"),
    ("resume", None, "resume: expected named parts, found None"),
    ("resume.iteration", -1, "resume: iteration: expected a count, found -1"),
    ("resume.iteration", True, "resume: iteration: expected a count, found True"),
    ("resume.iteration", 10**30, "resume: iteration: expected a count, found int"),
    ("resume.best", float("nan"), "resume: best: expected -1 to 1, found nan"),
    ("resume.best", 1e300, "resume: best: expected -1 to 1, found 1e+300"),
    ("resume.seed", "7", "resume: seed: expected an integer, found text of 1 characters"),
    ("resume.selected_on", 3, "resume: selected_on: expected text, found 3"),
    ("resume.gradients", {"weight": 1}, "resume: gradients: expected tensors by name, found dict"),
    ("resume.lists", ["val"], "resume: lists: expected texts by split, found list"),
    ("resume.window", {"loss": 1}, "resume: window: expected lists of numbers by name, found dict"),
    ("resume.validated", 1.5, "resume: validated: expected a count, found 1.5"),
]


@pytest.mark.parametrize("part, value, said", PARTS, ids=[part for part, *_ in PARTS])
def test_odd_parts_are_named(tmp_path, part, value, said):
    path, state = tmp_path / "odd.pyth", _state()
    place = state["resume"] if part.startswith("resume.") else state
    place[part.removeprefix("resume.")] = value
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_parts_that_a_file_may_lack(tmp_path):
    """Of earlier versions, of the published code, of weights alone."""
    state = _state()
    del state["resume"]["validated"], state["resume"]["window"]
    for number, content in enumerate((state, {k: v for k, v in state.items() if k != "resume"},
                                      {"model_state": state["model_state"]})):
        checkpoint.atomic_save(content, tmp_path / str(number))
        assert checkpoint.read(tmp_path / str(number)).keys() == content.keys()


def test_a_file_of_earlier_versions_may_hold_random_states(tmp_path):
    state = _state()
    state["resume"]["random"] = {"torch": torch.get_rng_state(), "cuda": [], "python": [3, [0] * 625, None]}
    checkpoint.atomic_save(state, tmp_path / "a.pyth")
    assert checkpoint.read(tmp_path / "a.pyth")["resume"]["random"]["cuda"] == []


def test_gradients_come_back():
    model = torch.nn.Linear(2, 1)
    checkpoint.load_gradients(model, {"weight": torch.ones(1, 2)}, "here")
    assert model.bias.grad is None and model.weight.grad.sum() == 2
    with pytest.raises(CheckpointError, match=r"here: resume: gradients: bias: expected \[1\], found shape \[2\]"):
        checkpoint.load_gradients(model, {"bias": torch.ones(2)}, "here")
    with pytest.raises(CheckpointError, match="here: resume: gradients: x: expected no such parameter, found shape"):
        checkpoint.load_gradients(model, {"x": torch.ones(2)}, "here")


def test_a_disk_that_refuses_is_told_of_in_words(tmp_path):
    """ulimit -f stands for a full disk."""
    store = checkpoint.CheckpointStore(tmp_path / "checkpoints")
    state = {"epoch": 1, "model_state": {"a": torch.zeros(1 << 21)}, "parts": [torch.zeros(1 << 18)]}
    said = (r"checkpoint_epoch_0000{}.pyth: could not be written \(File too large\); it takes about 9.0 MiB, [\d,.]+ "
            r"MiB are free there \(limits or quotas apart\). {}$")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 22, hard))
    try:
        with pytest.raises(CheckpointError, match=said.format(1, "No checkpoint was saved before")):
            store.save(state)
        store.save({"epoch": 1, "model_state": {}})
        with pytest.raises(CheckpointError, match=said.format(
                2, "checkpoint_epoch_00001.pyth, saved before, is untouched")):
            store.save({**state, "epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in store.directory.iterdir()] == ["checkpoint_epoch_00001.pyth"]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"could not be written \(.*\); it takes about 0.0 MiB. No check"):
        checkpoint.atomic_save({"model_state": {}}, tmp_path / "file" / "a.pyth")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrapped_models_are_understood(prefix, caplog):
    model = torch.nn.Linear(2, 1)
    checkpoint.load_model_state(model, {f"{prefix}weight": torch.ones(1, 2), f"{prefix}bias": torch.zeros(1)}, "here")
    assert model.weight.sum() == 2 and not caplog.text
    checkpoint.load_model_state(torch.nn.Sequential(model), {"0._orig_mod.weight": torch.full((1, 2), 3.0).half(),
                                                             "0._orig_mod.bias": torch.zeros(1)}, "here")
    assert model.weight.sum() == 6 and "here: holds weights of torch.float16, which are taken" in caplog.text


def test_weights_of_another_kind_of_number_do_not_fit():
    state = {"weight": torch.ones(1, 2).long(), "bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="weight: expected numbers of torch.float32, found torch.int64"):
        checkpoint.load_model_state(torch.nn.Linear(2, 1), state, "x")
    with pytest.raises(CheckpointError, match=r"missing 0.weight \[1, 2\]; (.*; ){7}unexpected|\(and \d+ more\)$"):
        checkpoint.load_model_state(torch.nn.Sequential(*(torch.nn.Linear(2, 1) for _ in range(9))), {}, "x")


@pytest.mark.parametrize("change, said", [
    (lambda s: s["state"][0].pop("exp_avg"), "optimizer state 0: expected exp_avg, exp_avg_sq, step, found step"),
    (lambda s: s["state"][0].update(step=torch.zeros(2)), r"optimizer state 0: expected shape \[\], found \[2\]"),
    (lambda s: s["state"][0].update(exp_avg=torch.tensor(1.0)), r"optimizer state 0: expected shape \[1, 2\], fo"),
    (lambda s: s["param_groups"][0]["params"].pop(), r"optimizer groups: expected \[2\] parameters, found \[1\]"),
    (lambda s: s["param_groups"][0].update(betas=3), r"optimizer groups: betas: expected a value such as \(0"),
    (lambda s: s["param_groups"][0].update(betas=(0.9, "x")), "optimizer groups: betas: expected a value such as"),
    (lambda s: s["param_groups"][0].pop("betas"), None)])
def test_odd_optimizers(change, said):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    change(state)
    if said is None:
        checkpoint.load_optimizer_state(optimizer, state, "here")
        optimizer.step()
        return
    with pytest.raises(CheckpointError, match=f"here: {said}"):
        checkpoint.load_optimizer_state(optimizer, state, "here")
