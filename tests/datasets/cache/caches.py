"""Projects on links to the tiny videos, and frame caches of them."""

from pathlib import Path

from datasets import builder
from tests.conftest import called
from utils.config import load_config

_prepare = called("prepare")


def project_in(directory: Path, videos: Path, write_tiny_project) -> Path:
    """A project on its own links to the videos, with train frames of another size than test frames."""
    root = directory / "videos"
    root.mkdir()
    for path in videos.rglob("*"):
        if path.is_file():
            target = root / path.relative_to(videos)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
    path = write_tiny_project(directory, videos, extra="AUGMENTATION: {RANDOM_FLIP: true, COLOR_AUG: true}")
    text = path.read_text().replace(str(videos), str(root)).replace("TRAIN_JITTER_SCALES: [36, 36]",
                                                                    "TRAIN_JITTER_SCALES: [40, 44]")
    path.write_text(text)
    return path


def fill(project: Path, out: Path, *options: str) -> int:
    return _prepare(["cache", "--cfg", str(project), "--out", str(out), "--workers", "1", *options])


def split_of(project: Path, cache: Path | None, split: str, *pairs: str):
    own = [] if cache is None else ["DATA.FRAME_CACHE", str(cache)]
    return builder.build_split(load_config(project, [*own, *pairs]), split)


def flip(path: Path, place: int, bits: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bits]))
