"""prepare.py cache: goes on after being killed, tells what it does, refuses what it must not mix."""

import faulthandler
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets.builder import build_split
from datasets.cache.codec import Codec
from datasets.cache.index import DATA, FrameIndex
from datasets.cache.writer import CacheWriter
from datasets.decoding import DECODERS, Clip, choose_decoder
from runs.preparing import cache as command
from runs.session.preflight import read_splits
from tests.conftest import REPOSITORY, called, run_command
from utils.config import load_config
from utils.errors import FrameCacheError, VideoDecodeError
from utils.json_files import read_json

pytestmark = pytest.mark.slow

main = called("prepare")


def arguments(project: Path, out: Path, *options: str) -> list[str]:
    return ["cache", "--cfg", str(project), "--out", str(out), *options]


def start(project: Path, out: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "runs/prepare.py", *arguments(project, out, *options)], cwd=REPOSITORY,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(out: Path) -> int:
    try:
        return len(list(FrameIndex(out).entries()))
    except FrameCacheError:  # not made yet
        return 0


def content(out: Path) -> dict:
    """(path, size) -> the bytes stored."""
    data = (out / DATA).read_bytes()
    return {(entry.path, entry.size): data[entry.start:entry.start + entry.length]
            for entry in FrameIndex(out).entries()}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_at_any_moment_it_goes_on(tiny_project, tmp_path, workers):
    project, out, whole = tiny_project(), tmp_path / "cache", tmp_path / "whole"
    assert main(arguments(project, whole, "--workers", "1")) == 0
    total, kills = stored(whole), 0
    for wanted in (1, total // 3, 2 * total // 3):  # killed when that many are stored, while the next is written
        process = start(project, out, "--workers", workers)
        while process.poll() is None and stored(out) < wanted:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        assert wanted <= stored(out)
    assert kills
    before = content(out)
    done = subprocess.run([sys.executable, "runs/prepare.py", *arguments(project, out, "--workers", workers)],
                          cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} already stored" in done.stdout
    after = content(out)
    assert after == content(whole) and all(after[key] == value for key, value in before.items())
    assert (out / DATA).stat().st_size == sum(map(len, after.values()))  # nothing of the killed ones is left
    assert sorted(path.name for path in out.iterdir()) == ["frames.bin", "index.sqlite", "writer.lock"]


def test_what_was_half_written_is_cut_off(tiny_project, tmp_path):
    project, out = tiny_project(), tmp_path / "cache"
    assert main(arguments(project, out, "--workers", "1")) == 0
    whole = (out / DATA).read_bytes()
    with (out / DATA).open("ab") as file:
        file.write(b"half a video")
    assert main(arguments(project, out, "--workers", "1")) == 0
    assert (out / DATA).read_bytes() == whole


def test_it_tells_space_difference_and_use(tiny_project, tmp_path, capsys):
    project, out = tiny_project(), tmp_path / "cache"
    assert main(arguments(project, out, "--workers", "1")) == 0
    told = capsys.readouterr()
    assert re.search(r"about 0\.\d\d GB for 60 videos \(0\.\d\d MB a video, from the first 8\); [\d.]+ GB free",
                     told.err)
    assert "train, val, test list: 60 videos, 0 already stored" in told.out
    assert "mode jpeg, quality 90, subsampling 4:4:4" in told.out
    found = re.search(r"over 128 frames: largest pixel difference (\d+), mean ([\d.]+) of 255", told.out)
    assert 0 < float(found[2]) < int(found[1]) < 128
    assert f"use it with DATA.FRAME_CACHE {out}" in told.out
    assert main(arguments(project, tmp_path / "exact", "--workers", "1", "--mode", "lossless")) == 0
    assert "largest pixel difference 0, mean 0.000" in capsys.readouterr().out


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    assert "about 0.10 GB for 100 videos (1.00 MB a video, from the first 8)" in command.space_needed(
        8, 8_000_000, 100, tmp_path)
    with pytest.raises(FrameCacheError, match=f"^{tmp_path}: not enough space: about [0-9.]+ GB for 100 videos"):
        command.space_needed(8, 8 * 10**14, 100, tmp_path)


def test_other_settings_in_the_same_directory_are_refused(tiny_project, tmp_path, capsys):
    project, out = tiny_project(), tmp_path / "cache"
    assert main(arguments(project, out, "--workers", "1")) == 0
    for options in (["--quality", "80"], ["--mode", "lossless"], ["DATA.DECODER", "decord"]):
        assert main(arguments(project, out, "--workers", "1", *options)) == 1
        assert f"FrameCacheError: {out} holds another frame cache." in capsys.readouterr().err
    assert main(arguments(project, out, "--mode", "lossless", "--quality", "90")) == 1
    assert "--quality: expected a quality of 1 to 100 with jpeg and none with lossless" in capsys.readouterr().err


def test_two_writers_at_once_are_refused(tiny_project, tmp_path, capsys):
    out = tmp_path / "cache"
    with CacheWriter(out, Codec("jpeg", 90), "decord"):
        assert main(arguments(tiny_project(), out, "--workers", "1")) == 1
    assert f"FrameCacheError: {out}: another command is writing this frame cache" in capsys.readouterr().err


def test_bad_videos_are_named_and_replaced_as_configured(tiny_project, tmp_path, tiny_videos, capsys):
    videos = tmp_path / "videos"
    subprocess.run(["cp", "-a", str(tiny_videos), str(videos)], check=True)
    project = tiny_project()
    project.write_text(project.read_text().replace(str(tiny_videos), str(videos)))
    split = build_split(load_config(project, []), "test")
    spec = split.sampler.spec(0)
    victim, gone = split.records[spec.query_M[0]].path, split.records[spec.query_M[1]].path
    (videos / victim).write_bytes(b"text, no video")
    (videos / gone).unlink()
    out = tmp_path / "cache"
    assert main(arguments(project, out, "--workers", "1")) == 1
    told = capsys.readouterr().err
    assert f"cannot be decoded: {victim}: " in told and f"cannot be decoded: {gone}: no such video" in told
    assert "2 videos cannot be decoded" in told
    assert main(arguments(project, out, "--workers", "1", "DATA.ON_BAD_VIDEO", "replace")) == 0
    pairs = ["DATA.FRAME_CACHE", str(out), "DATA.DATA_ROOT_DIR", str(tmp_path / "nowhere")]
    with pytest.raises(VideoDecodeError, match=r" \(line \d+ of the list\); 2 of 20 videos of .* could not be decoded "
                                               r"for .*cache\. DATA\.ON_BAD_VIDEO: replace goes on without them"):
        read_splits(load_config(project, pairs))
    read_splits(load_config(project, [*pairs, "DATA.ON_BAD_VIDEO", "replace"]))
    cfg = load_config(project, ["DATA.FRAME_CACHE", str(out), "DATA.ON_BAD_VIDEO", "replace"])
    assert [bad.path for bad in build_split(cfg, "test").dataset[0].bad_videos] == [victim, gone]


def test_a_video_that_hangs_or_crashes_its_decoder_is_named_and_the_rest_stored(tiny_project, tmp_path, capsys):
    project, out = tiny_project(), tmp_path / "cache"
    split = build_split(load_config(project, []), "test")
    hangs, crashes = (split.dataset.videos.path(video) for video in (0, 1))

    def open_badly(path: Path) -> Clip:
        if path == hangs:
            time.sleep(60)
        if path == crashes:
            faulthandler.disable()
            os.kill(os.getpid(), signal.SIGSEGV)
        return DECODERS["pyav"](path)

    DECODERS.register("bad")(open_badly)
    try:
        assert main(arguments(project, out, "--workers", "2", "--limit", "3", "DATA.DECODER", "bad")) == 1
    finally:
        DECODERS._entries.pop("bad")
    told = capsys.readouterr().err
    assert f"{split.records[0].path}: no end of decoding within 3 s" in told
    assert f"{split.records[1].path}: the decoder crashed (signal 11)" in told
    assert {entry.path for entry in FrameIndex(out).entries() if entry.error is not None} == {
        split.records[0].path, split.records[1].path}
    assert sorted(path.name for path in out.iterdir()) == ["frames.bin", "index.sqlite", "writer.lock"]


def test_a_run_on_a_cache_says_so(tiny_project, tmp_path):
    project, out = tiny_project(NUM_TRAIN_TASKS=2, VAL_FRE_ITER=2), tmp_path / "cache"
    assert main(arguments(project, out, "--workers", "1", "--quality", "91")) == 0
    done = run_command("--cfg", project, "DATA.FRAME_CACHE", out)
    assert done.returncode == 0, done.stderr
    expected = {"format": 1, "mode": "jpeg", "quality": 91, "subsampling": "4:4:4"}
    results, facts = (read_json(tmp_path / "run" / f"{name}.json") for name in ("results", "run"))
    assert results["frame_cache"] == expected and results["decoder"] == choose_decoder("auto")
    assert [one["frame_cache"] for one in facts["lists"].values()] == [expected] * 3
