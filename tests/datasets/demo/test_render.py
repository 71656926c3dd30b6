"""The rendered demo data set: names, lists, determinism, decodability and resuming."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import decord
import numpy as np
import pytest

from datasets.demo.render import SPLITS, class_names, render_demo
from tests.conftest import REPOSITORY, called

main = called("prepare")

SMALL = {"clips_per_class": 3, "max_classes": {"train": 2, "val": 1, "test": 1}, "workers": 1}
LINE = re.compile(r"(train|val|test)(\d+)//(videos/[a-z_]+/\d{3}\.(?:mp4|avi))")


def contents(root: Path) -> dict[str, bytes]:
    """All clips and lists under a root by relative path."""
    files = [path for path in root.rglob("*") if path.suffix in {".mp4", ".avi", ".txt"}]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def read_lists(lists: dict[str, Path]) -> list[tuple[str, int, Path]]:
    """(split, class index, clip path) of every line of the three lists."""
    rows = []
    for split, path in lists.items():
        for line in path.read_text().splitlines():
            found = LINE.fullmatch(line)
            assert found and found[1] == split, line
            rows.append((split, int(found[2]), path.parent / found[3]))
    return rows


def decode_with_av(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    root = tmp_path_factory.mktemp("demo")
    return root, render_demo(root, **SMALL)


def test_class_names_are_disjoint_and_enough() -> None:
    names = {split: class_names(split) for split in SPLITS}
    assert [len(names[split]) for split in SPLITS] == [48, 8, 12]
    assert len({name for split in SPLITS for name in names[split]}) == 68
    assert all(re.fullmatch(r"an? [a-z]+ [a-z]+ [a-z]+( [a-z]+)?", name) for split in SPLITS for name in names[split])


def test_words_recur_and_objects_do_not() -> None:
    words = {split: [name.split(" ", 3)[1:] for name in class_names(split)] for split in SPLITS}
    objects = {split: {(colour, shape) for colour, shape, _ in words[split]} for split in SPLITS}
    assert not objects["train"] & objects["test"]
    assert not objects["val"] & (objects["train"] | objects["test"])
    for position in range(3):
        seen = {row[position] for row in words["train"]}
        assert {row[position] for split in ("val", "test") for row in words[split]} <= seen
    assert len(objects["test"]) == 8  # four objects do two motions each


def test_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="train, val, test.*'trian'"):
        class_names("trian")


def test_lists(demo: tuple[Path, dict[str, Path]]) -> None:
    root, lists = demo
    assert lists == {split: root / f"{split}_few_shot.txt" for split in SPLITS}
    rows = read_lists(lists)
    assert [(split, index) for split, index, _ in rows] == [
        *[("train", 0)] * 3, *[("train", 1)] * 3, *[("val", 0)] * 3, *[("test", 0)] * 3
    ]  # fmt: skip
    for split, index, path in rows:
        assert path.is_file()
        assert path.parent.name.replace("_", " ") == class_names(split)[index]
    assert not list(root.rglob("*.tmp"))


def test_clips_decode_and_vary(demo: tuple[Path, dict[str, Path]]) -> None:
    sizes, rates, lengths, codecs = set(), set(), set(), set()
    for _, _, path in read_lists(demo[1]):
        frames = decode_with_av(path)
        reader = decord.VideoReader(str(path))
        assert len(reader) == len(frames)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert float(stream.average_rate) == pytest.approx(reader.get_avg_fps(), rel=1e-3)
            codecs.add((path.suffix, stream.codec_context.name))
        chosen = [len(frames) - 1, 0, len(frames) // 2]  # seeking back and forth
        difference = np.abs(reader.get_batch(chosen).asnumpy().astype(int) - frames[chosen])
        assert difference.mean() < 2.0
        _, height, width, _ = frames.shape
        assert height % 2 == 0 and width % 2 == 0 and min(height, width) >= 96 and max(height, width) <= 160
        assert 16 <= len(frames) <= 60
        sizes.add((height, width))
        rates.add(round(reader.get_avg_fps()))
        lengths.add(len(frames))
    assert len(sizes) > 5 and len(rates) > 2 and len(lengths) > 5
    assert codecs == {(".mp4", "h264"), (".avi", "mpeg4")}


def test_rendering_is_deterministic_over_processes(demo: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    render_demo(tmp_path, **{**SMALL, "workers": 2})
    assert contents(tmp_path) == contents(demo[0])


def test_another_seed_renders_other_pictures(demo: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    render_demo(tmp_path, seed=1, **SMALL)
    before, after = contents(demo[0]), contents(tmp_path)
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]) == name.endswith(".txt") for name in before)


def test_complete_set_is_left_alone_and_interrupted_one_is_completed(tmp_path: Path) -> None:
    small = {"clips_per_class": {"train": 2, "val": 1, "test": 1}, "max_classes": SMALL["max_classes"], "workers": 1}
    lists = render_demo(tmp_path, **small)
    whole = contents(tmp_path)
    clips = sorted(name for name in whole if name.startswith("videos"))
    assert len(clips) == 6

    (tmp_path / clips[0]).write_bytes(b"untouched")
    assert render_demo(tmp_path, **small) == lists
    assert (tmp_path / clips[0]).read_bytes() == b"untouched"

    # as after an interruption: no stamp, one clip missing, half a clip under a temporary name
    (tmp_path / ".demo_complete.json").unlink()
    (tmp_path / clips[0]).unlink()
    (tmp_path / f"{clips[0]}.part").write_bytes(b"half")
    age = {name: os.stat(tmp_path / name).st_mtime_ns for name in clips[1:]}
    render_demo(tmp_path, **small)
    assert contents(tmp_path) == whole
    assert age == {name: os.stat(tmp_path / name).st_mtime_ns for name in clips[1:]}

    # other settings in the same place replace every clip
    render_demo(tmp_path, seed=5, **small)
    assert all(contents(tmp_path)[name] != whole[name] for name in clips)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed: expected .* found -1"),
        ({"workers": 0}, "workers: expected .* found 0"),
        ({"clips_per_class": 0}, "clips_per_class: expected whole numbers over 0 for train, val, test, found 0"),
        ({"clips_per_class": {"tset": 3}}, "clips_per_class: expected .* for train, val, test, found 3 for tset"),
        ({"max_classes": {"val": 1.5}}, "max_classes: expected whole numbers .* found 1.5 for val"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_demo(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = {}

    def render(root: Path, *, seed: int, workers: int | None) -> dict[str, Path]:
        given.update(seed=seed, workers=workers)
        return render_demo(root, seed=seed, **SMALL)

    monkeypatch.setattr("runs.preparing.demo.render_demo", render)
    assert main(["demo", "--out", str(tmp_path / "demo"), "--seed", "2", "--workers", "1"]) == 0
    assert given == {"seed": 2, "workers": 1}
    (line,) = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "demo") in line and "12 clips" in line and "train 6" in line


@pytest.mark.parametrize("arguments, text", [
    (["--out", "/proc/zz"], "/proc/zz: cannot be read or written: No such file"),
    (["--out", "x", "--seed", "-1"], "seed: expected a whole number of at least")])
def test_what_cannot_be_is_told_in_a_line(arguments, text, capsys):
    assert main(["demo", *arguments]) == 1 and text in capsys.readouterr().err


def test_a_stop_ends_the_rendering_soon(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "runs/prepare.py", "demo", "--out", str(tmp_path), "--workers", "2"],
                               cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)

    def count() -> int:
        return len(list(tmp_path.rglob("*.mp4")))

    deadline = time.monotonic() + 60
    while count() < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and 8 <= count() < 300 and "stopped by SIGTERM" in said and "Traceback" not in said
