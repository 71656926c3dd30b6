"""The same index is the same frame in every decoder."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from datasets.decoding import AUTO, open_video, read_frames
from datasets.readers import pyav
from datasets.readers.look import look_at
from tests.datasets.readers.decoder_files import FRAMES, READERS, STEP, ramp, write_pictures

STEPS = 3000 * np.random.default_rng(0).integers(1, 5, FRAMES - 1)
VARIABLE = np.concatenate([[0], np.cumsum(STEPS)])
KINDS = {
    "h264_b.mp4": {"codec": "libx264", "bf": 3},
    "h264_b.mkv": {"codec": "libx264", "bf": 3},
    "h264_b.avi": {"codec": "libx264", "bf": 3},
    "fragmented.mp4": {"codec": "libx264", "bf": 2, "mux": {"movflags": "frag_keyframe+empty_moov"}},
    "mpeg4.avi": {"codec": "mpeg4", "b": 2000000},
    "mpeg4_b.avi": {"codec": "mpeg4", "bf": 2, "b": 2000000},
    "h264.avi": {"codec": "libx264", "bf": 0},
    "h264.mp4": {"codec": "libx264", "bf": 0},
    "mpeg4.mp4": {"codec": "mpeg4", "b": 2000000},
    "mpeg4_b.mp4": {"codec": "mpeg4", "bf": 2, "b": 2000000},
    "mpeg4_b.mkv": {"codec": "mpeg4", "bf": 2, "b": 2000000},
    "h264.ts": {"codec": "libx264", "bf": 2},
    "hevc_b.mp4": {"codec": "libx265", "bf": 3, "x265-params": "log-level=none"},
    "hevc_closed.mp4": {"codec": "libx265", "x265-params": "log-level=none:open-gop=0"},
    "hevc_10.mkv": {"codec": "libx265", "pixels": "yuv420p10le", "x265-params": "log-level=none"},
    "h264_10.mp4": {"codec": "libx264", "bf": 3, "pixels": "yuv420p10le"},
    "av1.mp4": {"codec": "libsvtav1", "preset": 12},
    "av1_10.webm": {"codec": "libsvtav1", "preset": 12, "pixels": "yuv420p10le"},
    "vp9.webm": {"codec": "libvpx-vp9", "auto-alt-ref": 1, "lag-in-frames": 16},
    "vp8.webm": {"codec": "libvpx", "auto-alt-ref": 1, "lag-in-frames": 16},
    "variable.mp4": {"codec": "libx264", "bf": 2, "times": VARIABLE},
    "variable.webm": {"codec": "libvpx-vp9", "times": VARIABLE},
    "late.mp4": {"codec": "libx264", "bf": 2, "times": VARIABLE + 90000},  # the first frame is shown after a second
    "one.mp4": {"codec": "libx264", "frames": 1},
}
ORDERS = (range(FRAMES), [0, 13, 20, 29], [27], [29, 3, 17, 17, 0], [1, 5, 9, 13, 17, 21, 25, 29])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("same")
    for name, settings in KINDS.items():
        write_pictures(folder / name, ramp, **settings)
    whole = bytearray((folder / "h264_b.mp4").read_bytes())
    place = whole.index(b"tkhd") + 44  # behind name, version and ten numbers: the matrix that turns the picture
    whole[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    (folder / "turned.mp4").write_bytes(whole)
    return folder


def frames(path: Path, decoder: str, indices) -> np.ndarray:
    clip = open_video(path, decoder)
    try:
        return read_frames(clip, np.array(indices), path).astype(int)
    finally:
        clip.close()


@pytest.mark.parametrize("decoder", [AUTO, *READERS])
@pytest.mark.parametrize("name", KINDS)
def test_an_index_is_its_frame_whatever_is_asked_with_it(files, name, decoder):
    path, count = files / name, KINDS[name].get("frames", FRAMES)
    clip = open_video(path, decoder)
    assert clip.num_frames == count
    assert clip.fps == pytest.approx(look_at(path).fps)
    for order in ORDERS:
        order = [i for i in order if i < count] or [0]
        for found in (frames(path, decoder, order), read_frames(clip, np.array(order), path).astype(int)):
            levels = found[:, 24:, 24:].mean((1, 2, 3))
            assert np.abs(levels - STEP * np.array(order)).max() < STEP / 2, (name, decoder, order)
    clip.close()


@pytest.mark.parametrize("decoder", READERS[1:])
@pytest.mark.parametrize("name", [*KINDS, "turned.mp4"])
def test_pixels_are_those_of_decord(files, name, decoder):
    count = KINDS.get(name, {}).get("frames", FRAMES)
    one, two = (frames(files / name, d, range(count)) for d in ("decord", decoder))
    assert one.shape == two.shape and np.abs(one - two).mean((1, 2, 3)).max() < 1


@pytest.mark.parametrize("decoder", READERS)
def test_a_turned_video_is_upright(files, decoder):
    turned = frames(files / "turned.mp4", decoder, [0, 20, 29])
    lying = frames(files / "h264_b.mp4", "pyav", [0, 20, 29])
    assert turned.shape == (3, 64, 48, 3)
    assert np.abs(turned - np.rot90(lying, 3, axes=(1, 2))).max() <= 2


OPEN = {
    "h264.mp4": {"codec": "libx264", "x264-params": "bframes=3:b-adapt=0:open-gop=1"},
    "h264.mkv": {"codec": "libx264", "x264-params": "bframes=5:b-pyramid=normal:b-adapt=0:open-gop=1"},
    "h264_10.mp4": {"codec": "libx264", "pixels": "yuv420p10le", "x264-params": "bframes=3:b-adapt=0:open-gop=1"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "bframes=3:b-adapt=0:open-gop=1:log-level=none"},
    "hevc_10.mkv": {"codec": "libx265", "pixels": "yuv420p10le",
                    "x265-params": "bframes=3:b-adapt=0:open-gop=1:log-level=none"},
}


@pytest.mark.parametrize("decoder", [AUTO, *READERS])
@pytest.mark.parametrize("name", OPEN)
def test_open_groups_are_right_in_all(tmp_path, decoder, name):
    path = write_pictures(tmp_path / name, ramp, **OPEN[name])
    assert not look_at(path).jumps and (len(look_at(path).starts) > 1) == (not name.startswith("hevc"))
    right = frames(path, "pyav", range(FRAMES))
    for i in range(1, FRAMES):
        assert np.abs(frames(path, decoder, [0, i])[1] - right[i]).max() <= 2


def test_streams_joined_in_an_open_group_are_read_in_order(tmp_path):
    """There FFmpeg puts frames out in another order than that of their times, so that times do not count them."""
    params = {"preset": "ultrafast", "x265-params": "keyint=12:min-keyint=12:scenecut=0:open-gop=1:bframes=3:"
              "b-adapt=0:log-level=none"}
    whole, joined = tmp_path / "whole.mkv", tmp_path / "joined.mkv"
    write_pictures(whole, ramp, "libx265", frames=48, **params)
    with av.open(str(whole)) as first, av.open(str(joined), "w") as out:
        stream = out.add_stream_from_template(first.streams.video[0])
        packets = [packet for packet in first.demux(video=0) if packet.size]
        again = next(i for i, packet in enumerate(packets) if i and packet.is_keyframe)
        shift = max(packet.pts for packet in packets) + 4 * packets[1].duration - packets[again].pts
        with av.open(str(whole)) as second:
            behind = [packet for packet in second.demux(video=0) if packet.size][again:]
            for packet in behind:
                packet.pts, packet.dts = packet.pts + shift, None if packet.dts is None else packet.dts + shift
            for packet in [*packets, *behind]:
                packet.stream = stream
                out.mux(packet)
    with av.open(str(joined)) as container:
        count = sum(1 for _ in container.decode(video=0))
    in_order = open_video(joined, "pyav").frames(range(count))
    for i in range(count):
        assert np.array_equal(open_video(joined, "pyav").frames([i])[0], in_order[i]), i


def test_decoding_does_not_begin_where_pictures_become_right_little_by_little(tmp_path):
    params = {"x264-params": "intra-refresh=1:bframes=0:scenecut=0"}
    path = write_pictures(tmp_path / "x.mp4", ramp, "libx264", **params)
    with av.open(str(path)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) > 1
    assert look_at(path).starts.tolist() == [[0, 0]]


@pytest.mark.parametrize("decoder", READERS)
def test_all_is_read_in_order_where_seeking_leads_elsewhere(files, monkeypatch, decoder):
    path = files / "h264_b.mp4"
    look = look_at(path)
    assert look.starts[:2].tolist() == [[0, 0], [12, 12288]] and look.pace == pytest.approx((0, 1 / 15))
    monkeypatch.setattr(pyav, "look_at", lambda _: look._replace(starts=look.starts + [0, 1]))
    if decoder == "torchcodec":
        from torchcodec.decoders import VideoDecoder

        plain = VideoDecoder.get_frame_played_at
        monkeypatch.setattr(VideoDecoder, "get_frame_played_at", lambda self, at: plain(self, max(0, at - 1 / 15)))
    for order in ORDERS:
        levels = frames(path, decoder, order)[:, 24:, 24:].mean((1, 2, 3))
        assert np.abs(levels - STEP * np.array(order)).max() < STEP / 2
