"""A damaged frame cache: every bit that is read is told, and the frames are made anew where the video is there."""

import os
import random
import shutil
import sqlite3

import numpy as np
import pytest

from datasets.cache.index import DATA, INDEX, FrameIndex
from tests.damage import flipped
from tests.datasets.cache.caches import flip, split_of
from utils.errors import FrameCacheError


@pytest.mark.parametrize("options", [("--mode", "lossless"), ("--quality", "90")])
@pytest.mark.parametrize("back", [1, 100], ids=["frame", "table"])
def test_damaged_frames_are_made_anew_from_the_video(project, made, tmp_path, caplog, options, back):
    out = shutil.copytree(made(*options), tmp_path / "copy")
    split = split_of(project, out, "test")
    videos, entry = split.dataset.videos, split.dataset.videos.cache.entries[split.records[1].path]
    whole = videos.open(1)[1].frames([entry.frames - 1, 0])
    flip(out / DATA, entry.start + (entry.length - 1 if back == 1 else 30))
    clip = videos.open(1)[1]
    assert np.array_equal(clip.frames([entry.frames - 1, 0]), whole) and clip.num_frames == entry.frames
    assert f"damaged frame cache: video {entry.path}: " in caplog.text and "until then it is decoded" in caplog.text
    videos.path(1).unlink()
    with pytest.raises(FrameCacheError, match=f"damaged frame cache: video {entry.path}"):
        videos.open(1)[1].frames([entry.frames - 1])


def test_every_flipped_bit_of_what_is_read_is_told(project, lossless):
    """Of the data file: of the table and the frames of a video. Of the index: told, or nothing read is another."""
    split = split_of(project, lossless, "test")
    cache = split.dataset.videos.cache
    entry, draw = cache.entries[split.records[1].path], random.Random(3)
    for _ in range(50):
        place = draw.randrange(entry.start, entry.start + entry.length)
        bit = 1 << draw.randrange(8)
        flip(lossless / DATA, place, bit)
        with pytest.raises(FrameCacheError, match=f"damaged frame cache: video {entry.path}"):
            cache.clip(entry.path).frames(range(entry.frames))
        flip(lossless / DATA, place, bit)

    def shown(videos):
        clips = [videos.open(video)[1] for video in range(len(videos.records))]
        return [(clip.num_frames, clip.fps, clip.frames([0]).tobytes()) for clip in clips]

    whole, pictures = (lossless / INDEX).read_bytes(), shown(split.dataset.videos)
    for content in flipped(whole, 150):
        (lossless / INDEX).write_bytes(content)
        try:
            found = split_of(project, lossless, "test").dataset.videos
            assert found.cache.codec == cache.codec and shown(found) == pictures
        except FrameCacheError as error:
            assert str(lossless) in str(error)


INDICES = ["UPDATE videos SET frames = 4000000000", "UPDATE videos SET frames = -5", "UPDATE videos SET frames = 'abc'",
           "UPDATE videos SET fps = 'abc'", "UPDATE videos SET length = 1e30",
           "UPDATE videos SET path = CAST(path AS BLOB)",
           "UPDATE videos SET start = 9000000000000", "UPDATE videos SET checksum = 'x'", "UPDATE videos SET error = 3",
           "UPDATE meta SET value = '[1]'", "UPDATE meta SET value = '1'", "DROP TABLE meta", "DROP TABLE videos",
           f"UPDATE meta SET value = '{'[' * 100_000}'", "UPDATE meta SET value = '{'",
           "UPDATE meta SET value = replace(value, '90', '91')",
           "DROP TABLE videos; CREATE VIEW videos AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
           "SELECT x AS path, 36 AS height, 36 AS width, 1 AS bytes, 1 AS mtime_ns, 1 AS frames, 1.0 AS fps, 0 AS "
           "start, 0 AS length, 0 AS checksum, NULL AS error FROM c"]


@pytest.mark.parametrize("change", INDICES, ids=[change[:40] for change in INDICES])
def test_a_tampered_index_is_named(project, made, tmp_path, change, monkeypatch):
    monkeypatch.setattr("datasets.cache.index.OPERATIONS", 1_000_000)
    out = shutil.copytree(made("--quality", "90"), tmp_path / "copy")
    with sqlite3.connect(out / INDEX) as base:
        base.executescript(change)
    base.close()
    with pytest.raises(FrameCacheError, match="copy"):
        split_of(project, out, "test")
    for special in (INDEX, DATA):
        (out / special).unlink()
        os.mkfifo(out / special)
        with pytest.raises(FrameCacheError, match="expected a file, found a pipe"):
            FrameIndex(out).close() if special == INDEX else split_of(project, out, "test")
        shutil.rmtree(out)
        shutil.copytree(made("--quality", "90"), out)
