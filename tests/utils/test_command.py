"""What a command shows: nothing from outside acts on a terminal or in a spreadsheet; values may begin with a dash."""

import csv
import io
import logging
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from runs.evaluation.summary import write_confusion
from runs.reporting.run_record import write_bad_videos
from tests.conftest import REPOSITORY, called
from utils.command import _Output, command, csv_cell, printable
from utils.episode import BadVideo
from utils.logging import setup_logging


def test_control_characters_are_written_out():
    assert printable("a\x1b]0;x\x07\x9b2J\rb\u202ec\ud83d\n\td") == "a\\x1b]0;x\\x07\\x9b2J\\rb\\u202ec\\ud83d\n\td"
    assert printable("跑步 é \u200d", "") == "跑步 é \u200d" and printable("a\nb", "") == "a\\nb"


def test_a_screen_is_moved_by_progress_bars_only():
    screen = _Output(io.BytesIO(), "utf-8", newline="")
    for text in ("\n\n", "\x1b[A\x1b[A", "\rtrain: 10%\x1b[2J", "cannot be decoded: a\r\x1b[2J\x1b[A\n"):
        screen.write(text)
    screen.seek(0)
    assert screen.read() == "\n\n\x1b[A\x1b[A\rtrain: 10%\\x1b[2Jcannot be decoded: a\\r\\x1b[2J\\x1b[A\n"


def test_a_log_line_cannot_move_the_cursor(tmp_path, capfd):
    setup_logging(tmp_path, "run.log")
    logging.getLogger("x").warning("no such video %s", "a\x1b[2J\rb\ud83d")
    logging.getLogger().handlers[-1].close()
    assert "no such video a\\x1b[2J\\rb\\ud83d" in capfd.readouterr().err
    assert (tmp_path / "run.log").read_text().endswith("no such video a\\x1b[2J\\rb\\ud83d\n")


def test_cells_compute_nothing_and_stay_in_their_row(tmp_path):
    names = ["=1+1", "e\rf", "@c", "-d", "g\0\x1b"]
    write_confusion(tmp_path / "a.csv", np.eye(5, 6, dtype=np.int64), names)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    cells = ["'=1+1", "e\\rf", "'@c", "'-d", "g\\x00\\x1b"]
    assert rows[0][1:] == cells and [row[0] for row in rows[1:]] == cells and len(rows) == 6
    assert csv_cell("plain, \"text\"") == "plain, \"text\""
    for _ in range(2):  # the second time it is there
        assert write_bad_videos(tmp_path / "b.csv", [BadVideo("=a.mp4", "x\ry", "b", "train", 3)]) == 1
    assert pd.read_csv(tmp_path / "b.csv").loc[0, ["path", "reason"]].tolist() == ["'=a.mp4", "x\\ry"]


@pytest.mark.parametrize("name", ["-dash.mp4", "-5x.mp4", "-hello.mp4"])
def test_a_name_may_begin_with_a_dash(name, capsys):
    assert called("prepare")(["probe", name]) == 1
    assert capsys.readouterr().err.startswith(f"\nVideoDecodeError: {name}: ")


def test_a_command_without_screens_has_an_end(tmp_path):
    """Descriptors 0 to 2 are closed, then full: what is the work of a command must be written, the rest need not."""
    weights = [sys.executable, "runs/prepare.py", "weights"]
    for arguments, status in ((["--list"], 1), (["none"], 1), (["--help"], 0)):
        with open("/dev/full", "w") as full:
            done = subprocess.run([*weights, *arguments], cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE,
                                  text=True)
        assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
        assert ("No space left on device" in done.stderr) == (arguments == ["--list"])
    for closed in ("<&- >&- 2>&-", ">&-", "2>&-"):
        line = f"exec {sys.executable} runs/prepare.py demo --help {closed}"
        assert subprocess.run(["bash", "-c", line], cwd=REPOSITORY).returncode == 0, closed


def test_memory_that_runs_out_is_said(capsys):
    def fails(error):
        def main():
            raise error
        return main

    for error in (MemoryError("Unable to allocate 9 GiB"), RuntimeError("CPUAllocator: can't allocate memory: 9"),
                  RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")):
        assert command(fails(error)) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"\nMemoryError: {error}\nmemory has run out") and "DATA.NUM_INPUT_FRAMES" in said
    with pytest.raises(RuntimeError, match="a defect"):
        command(fails(RuntimeError("a defect")))
