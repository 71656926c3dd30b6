"""What a killed start leaves behind is gone or told once after the next one."""

import os
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from runs.session.session import _drop_superseded
from runs.training.records import Records
from utils import checkpoint
from utils.distributed import ALONE
from utils.logging import RecordLog


def _save(path: Path, epoch: int) -> None:
    model = torch.nn.Linear(2, 1)
    checkpoint.atomic_save({"epoch": epoch, "model_state": model.state_dict(), "cfg": "{}",
                            "optimizer_state": torch.optim.Adam(model.parameters()).state_dict()}, path)


def _left(store: checkpoint.CheckpointStore) -> list[str]:
    return sorted(path.name[11:-5] for path in store.directory.iterdir())


def test_superseded_checkpoints_go_and_nothing_that_may_be_needed(tmp_path):
    store = checkpoint.CheckpointStore(tmp_path / "c", keep=1)
    for epoch in (1, 2, 3):
        _save(store.path(epoch), epoch)
    _save(store.last, 1)
    store.path(3).write_bytes(b"damaged")
    _drop_superseded(store, store.path(2))  # the state that can be read: the damaged one is newer
    assert _left(store) == ["epoch_00002", "epoch_00003"]
    _save(store.last, 2)
    _drop_superseded(store, store.last)
    assert _left(store) == ["epoch_00003", "last"]
    store.last.write_bytes(b"damaged")  # it may have been the furthest along
    _save(store.path(3), 3)
    store.path(1).mkdir()
    _drop_superseded(store, store.path(3))
    assert _left(store) == ["epoch_00001", "epoch_00003", "last"]


def test_lost_records_are_told(tmp_path, caplog):
    """Lines that are whole and too few: a validation that a state knows of is not among them."""
    log = RecordLog(tmp_path / "log.jsonl")
    log.write({"kind": "validation", "accuracy": 0.5, "interval95": 0.1, "iteration": 4})
    log.close()
    for iteration, told in ((0, 0), (4, 0), (8, 1)):
        with Records(tmp_path, ALONE, lambda record: True) as records:
            records.look_for(iteration)
        assert caplog.text.count("expected records up to iteration 8, found those up to 4: the others are lost") == told


def test_tensorboard_shows_each_step_once_whatever_the_clock_did(tmp_path):
    """Of steps 1 to 4, 4 is made again; earlier files are cut short, from the future, and there twice."""
    log = RecordLog(tmp_path / "log.jsonl")
    for step in (1, 2, 3, 4):
        log.write({"kind": "train", "loss": step / 10, "accuracy": 0.5, "lr": 0.1, "iteration": step})
    log.write({"kind": "validation", "accuracy": 0.5, "interval95": 0.1, "iteration": 4})
    log.close()
    for _ in range(2):
        board = SummaryWriter(tmp_path / "tensorboard")
        for step in (1, 2, 3, 4):
            board.add_scalar("train/loss", step / 10, step, walltime=5.0)
        board.add_scalar("validation/accuracy", 0.5, 4)
        board.close()
    for number, path in enumerate(sorted((tmp_path / "tensorboard").iterdir())):
        os.rename(path, path.with_name(f"events.out.tfevents.999999999{number}.host.1.0"))
    with path.with_name("events.out.tfevents.9999999990.host.1.0").open("r+b") as file:
        file.truncate(os.path.getsize(file.name) - 3)  # the last record, by a kill
    with Records(tmp_path, ALONE, lambda record: record["iteration"] < 4 + (record["kind"] == "train")) as records:
        records.write({"kind": "validation", "accuracy": 0.75, "iteration": 4})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    loss, accuracy = events.Scalars("train/loss"), events.Scalars("validation/accuracy")
    assert [one.step for one in loss] == [1, 2, 3, 4] and {one.wall_time for one in loss} == {5.0}
    assert [(one.step, one.value) for one in accuracy] == [(4, 0.75)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
