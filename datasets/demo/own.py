"""Render someone's own clips of the demo's kind: five actions to learn from five clips each, and videos to ask about.

Their objects occur in no split, so nothing that was trained on has seen them. Under the root:
`support/<action>/*.mp4`; `query/`: six clips of the actions, four of others, and `long.mp4`, 60 seconds in which the
actions occur six times between other things; `truth.json`: what each query shows, and when in the long one.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.demo.render import ClassSpec, encode_clip, write_text
from datasets.demo.scenes import render_frames

VERSION = 1  # raise it when the same seed renders other pictures
ACTIONS: tuple[ClassSpec, ...] = (
    ("red", "moon", "bouncing"), ("blue", "star", "sliding left"), ("yellow", "heart", "spinning"),
    ("yellow", "heart", "growing"), ("green", "star", "circling"))
OTHERS: tuple[ClassSpec, ...] = (
    ("purple", "square", "falling"), ("white", "triangle", "swinging"), ("orange", "ball", "blinking"),
    ("black", "heart", "sliding right"))
CLIPS, RATE, SIZE = 5, 20, (120, 160)  # of an action; frames a second and height and width of the long video
EVENTS, OTHER_SECONDS, EVENT_SECONDS = 6, (4.5, 7.0), (2.5, 4.0)
SECONDS = 60.0


def _rng(seed: int, *what: object) -> np.random.Generator:
    return np.random.default_rng([seed, VERSION, zlib.crc32(repr(what).encode())])


def _clip(path: Path, spec: ClassSpec, seed: int, number: int) -> None:
    """Render a clip of two to four seconds as people take them: sizes, lights and speeds differ."""
    rng = _rng(seed, spec, number)
    height, width = (2 * int(rng.integers(56, 81)) for _ in range(2))
    rate = int(rng.choice((12, 15, 20, 25)))
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_clip(path, render_frames(*spec, int(rng.uniform(2.0, 4.0) * rate), height, width, rng), rate)


def _long(path: Path, seed: int) -> list[dict[str, object]]:
    """Render the long video; return its events, each with start, end (seconds) and action."""
    rng, parts, events, at = _rng(seed, "long"), [], [], 0

    def show(spec: ClassSpec, frames: int) -> None:
        parts.append(render_frames(*spec, frames, *SIZE, rng))

    for number in range(EVENTS):
        other, own = (int(RATE * rng.uniform(*span)) for span in (OTHER_SECONDS, EVENT_SECONDS))
        show(OTHERS[number % len(OTHERS)], other)
        action = ACTIONS[(2 * number) % len(ACTIONS)]
        show(action, own)
        at += other
        events.append({"start": at / RATE, "end": (at + own) / RATE, "action": folder(action)})
        at += own
    if (rest := int(SECONDS * RATE) - at) > 0:
        show(OTHERS[EVENTS % len(OTHERS)], rest)
    encode_clip(path, np.concatenate(parts)[:int(SECONDS * RATE)], RATE)
    return events


def folder(spec: ClassSpec) -> str:
    """Return the name of an action's folder."""
    return "_".join(spec).replace(" ", "_")


def render_own(root: Path | str, seed: int = 0) -> Path:
    """Render the clips under `root` and return `root`; a finished set with the same settings is left as it is."""
    root = Path(root)
    done, key = root / "truth.json", {"version": VERSION, "seed": seed}
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")).get("made_by") == key:
        return root
    supports = [(root / "support" / folder(spec) / f"{n:03d}.mp4", spec, n) for spec in ACTIONS for n in range(CLIPS)]
    asked = [*((spec, CLIPS) for spec in ACTIONS), (ACTIONS[0], CLIPS + 1), *((spec, 0) for spec in OTHERS)]
    queries = [(root / "query" / f"clip_{n:02d}.mp4", spec, number) for n, (spec, number) in enumerate(asked)]
    with tqdm(total=len(supports) + len(queries) + 1, desc="rendering own clips", unit="video", disable=None) as bar:
        for path, spec, number in [*supports, *queries]:
            _clip(path, spec, seed, number)
            bar.update()
        events = _long(root / "query" / "long.mp4", seed)
    truth = {path.name: folder(spec) if spec in ACTIONS else None for path, spec, _ in queries}
    write_text(done, json.dumps({"made_by": key, "queries": truth, "events": events}, indent=1) + "\n")
    return root
