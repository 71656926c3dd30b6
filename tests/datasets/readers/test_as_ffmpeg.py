"""Every decoder gives the frames that FFmpeg's own program puts out, frame by frame, of every kind of file."""

import random
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from datasets.decoding import open_video, read_frames
from datasets.readers.look import look_at
from runs.preparing.examine import FileToExamine, examine
from tests.datasets.readers.decoder_files import READERS, ffmpeg, needs_ffmpeg, ramp

pytestmark = needs_ffmpeg
FRAMES, GROUPS, FILES = 30, 12, 25  # the last two of random kinds: a process of ffmpeg shows a group of files
CODECS = {
    "h264": ["libx264", "-g", "12", "-bf", "2"],
    "h264_one_group": ["libx264", "-g", "250", "-bf", "2"],
    "h264_no_b": ["libx264", "-g", "12", "-bf", "0"],
    "h264_open": ["libx264", "-g", "12", "-x264-params", "bframes=3:b-adapt=0:open-gop=1"],
    "h264_refresh": ["libx264", "-g", "12", "-x264-params", "intra-refresh=1"],
    "h264_pyramid": ["libx264", "-g", "16", "-x264-params", "bframes=5:b-pyramid=normal:ref=4"],
    "h264_interlaced": ["libx264", "-g", "12", "-flags", "+ildct+ilme", "-x264-params", "tff=1"],
    "hevc": ["libx265", "-g", "12", "-x265-params", "log-level=none"],
    "hevc_closed": ["libx265", "-x265-params", "keyint=12:open-gop=0:log-level=none"],
    "vp8": ["libvpx", "-g", "12", "-auto-alt-ref", "1", "-lag-in-frames", "16"],
    "vp9": ["libvpx-vp9", "-g", "12", "-auto-alt-ref", "1", "-lag-in-frames", "16"],
    "vp9_small": ["libvpx-vp9", "-g", "12", "-deadline", "realtime", "-cpu-used", "8"],
    "av1": ["libaom-av1", "-g", "12", "-cpu-used", "8"],
    "mpeg4": ["mpeg4", "-g", "12"],
    "mpeg4_b": ["mpeg4", "-g", "12", "-bf", "2"],
    "xvid": ["libxvid", "-g", "12", "-bf", "2"],
    "mpeg2": ["mpeg2video", "-g", "12", "-bf", "2"],
    "theora": ["libtheora", "-g", "12"],
    "mjpeg": ["mjpeg", "-pix_fmt", "yuvj420p"],
    "ffv1": ["ffv1"],
    "h264_odd": ["libx264", "-g", "12", "-bf", "2"],
    "vp9_odd": ["libvpx-vp9", "-g", "12"],
    "mpeg4_odd": ["mpeg4", "-g", "12", "-pix_fmt", "yuv420p"],
}
SIZES = {"h264_odd": (63, 47), "vp9_odd": (33, 65), "mpeg4_odd": (61, 35)}  # others: 64 wide, 48 high
CONTAINERS = ("mp4", "mkv", "mov", "avi", "ts", "webm", "flv", "ogv", "mpg")
CHANGES = {  # arguments before -i, and behind it
    "as it is": ([], []),
    "cut": (["-ss", "0.5"], []),
    "cut to": (["-ss", "0.4", "-to", "1.2"], []),
    "cut behind": (["-ss", "0.5"], ["-copyinkf"]),
    "no time": ([], ["-bsf:v", "setts=ts=0"]),
    "equal times": ([], ["-bsf:v", "setts=pts=floor(PTS/4)*4:dts=DTS"]),
    "without the first": ([], ["-bsf:v", "noise=drop=lt(n\\,3)", "-copyinkf"]),
    "late": ([], ["-output_ts_offset", "5"]),
    "negative": ([], ["-output_ts_offset", "-0.3", "-avoid_negative_ts", "disabled"]),
    "start codes": ([], ["-bsf:v", "h264_mp4toannexb"]),
    "fragments": ([], ["-movflags", "frag_keyframe+empty_moov"]),
    "live": ([], ["-live", "1"]),
    "no length": ([], ["-bsf:v", "setts=duration=0"]),
}
# FFmpeg's versions differ: older ones show HEVC frames before the first keyframe, and AV1 and MJPEG frames that an edit
# list hides.
OTHERWISE = {("hevc", "without the first"), ("hevc_closed", "without the first"),
             *((codec, name) for codec in ("av1", "mjpeg") for name in ("cut", "cut to", "cut behind", "negative"))}
MATRICES = {"turned": (0, 1, -1, 0), "upside down": (-1, 0, 0, -1), "turned back": (0, -1, 1, 0),
            "mirrored": (-1, 0, 0, 1), "flipped": (1, 0, 0, -1), "transposed": (0, 1, 1, 0), "other": (0, -1, -1, 0),
            "askew": (0.8, 0.6, -0.6, 0.8)}


def encode(path: Path, codec: list[str], size: tuple[int, int] = (64, 48), frames: int = FRAMES,
           picture=ramp) -> Path:
    """A video of picture(0), picture(1), ..., cut from the top left of it, or tiled, to `size` (width, height)."""
    width, height = size
    pictures = [np.tile(picture(i), (-(-height // 48), -(-width // 64), 1))[:height, :width] for i in range(frames)]
    pixels = [] if "-pix_fmt" in codec else ["-pix_fmt", "yuv420p" if not (width % 2 or height % 2) else "yuv444p"]
    ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "15", "-i", "-", "-c:v", *codec,
           *pixels, "-threads", "1", path, data=np.stack(pictures).tobytes())
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return the path of a video of a codec's name, made once."""
    folder, made = tmp_path_factory.mktemp("sources"), {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = encode(folder / f"{name}.{'avi' if name == 'xvid' else 'mkv'}", CODECS[name],
                                SIZES.get(name, (64, 48)))
        return made[name]
    return make


def change(whole: Path, path: Path, name: str) -> Path | None:
    """Copy the packets of a video into another container, changed; None where FFmpeg cannot."""
    before, behind = CHANGES[name]
    try:
        ffmpeg(*before, "-i", whole, "-c", "copy", *behind, path)
    except subprocess.CalledProcessError:
        return None
    return path


def with_matrix(whole: Path, path: Path, name: str) -> Path:
    """Write the display matrix of an MP4 file anew."""
    content = bytearray(whole.read_bytes())
    place = content.index(b"tkhd") + 44  # behind name, version and ten numbers
    a, b, c, d = (round(value * 65536) for value in MATRICES[name])
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def shown(path: Path) -> bytes:
    return ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")


def all_shown(paths: list[Path]) -> list[bytes]:
    """What ffmpeg shows of files with one video stream each, by one process of it; b"" where it shows nothing."""
    outputs = [path.with_suffix(".rgb") for path in paths]
    try:
        ffmpeg(*(x for path in paths for x in ("-threads", "1", "-i", path)),
               *(x for i, output in enumerate(outputs) for x in (
                   "-map", f"{i}:v", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", output)))
        return [output.read_bytes() for output in outputs]
    except subprocess.CalledProcessError:  # of one of them
        half = len(paths) // 2
        return [*all_shown(paths[:half]), *all_shown(paths[half:])] if half else [b""]


def assert_shown(path: Path, what: str = "", most: float = 3, expected: bytes = b"") -> None:
    """Hold every decoder to FFmpeg's frames: all in order, and some by jumps in a clip opened anew."""
    expected = expected or shown(path)
    for decoder in READERS:
        clip = open_video(path, decoder)
        try:
            every = read_frames(clip, np.arange(clip.num_frames), path)
            assert every.size == len(expected), (what, decoder, every.shape, len(expected) / every[0].size)
            right = np.frombuffer(expected, np.uint8).reshape(every.shape).astype(int)
            assert np.abs(every - right).mean((1, 2, 3)).max() < most, (what, decoder)
            assert look_at(path).shape == every.shape[1:3]
        finally:
            clip.close()
        for seed in range(2):
            order = np.random.default_rng(seed).integers(0, len(every), 5)
            clip = open_video(path, decoder)
            some = [read_frames(clip, order, path), read_frames(clip, order[::-1], path)[::-1]]
            clip.close()
            assert max(np.abs(one - right[order]).mean((1, 2, 3)).max() for one in some) < most, (what, decoder, order)


@pytest.mark.parametrize(("codec", "container", "name"), [
    ("h264", "mp4", "cut"), ("h264_one_group", "mp4", "cut"), ("h264_one_group", "mp4", "cut to"),
    ("h264_one_group", "mkv", "cut behind"), ("h264", "mkv", "no time"), ("h264_no_b", "mp4", "equal times"),
    ("h264", "mkv", "without the first"), ("h264", "ts", "cut"), ("h264", "raw", "as it is"), ("vp9", "webm", "live"),
    ("h264_open", "mp4", "as it is"), ("h264_open", "mp4", "cut"), ("h264_refresh", "mp4", "as it is"),
    ("hevc", "mp4", "cut"), ("mpeg4_b", "avi", "as it is"), ("mpeg4_b", "raw", "as it is"), ("mpeg2", "mpg", "cut"),
    ("mpeg4", "avi", "as it is"), ("theora", "ogv", "as it is"), ("xvid", "avi", "as it is")])
def test_frames_are_those_of_ffmpeg(source, tmp_path, codec, container, name):
    suffix = {"h264": "h264", "mpeg4_b": "m4v"}[codec] if container == "raw" else container
    path = change(source(codec), tmp_path / f"x.{suffix}", name)
    assert path is not None
    assert_shown(path)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
def test_pictures_are_turned_and_mirrored(source, tmp_path, codec, name):
    whole = change(source(codec), tmp_path / "whole.mp4", "as it is")
    assert_shown(with_matrix(whole, tmp_path / "x.mp4", name), most=8 if name == "askew" else 3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("dispositions", [(), ("0", "default"), ("default", "default"), ("0", "0")])
def test_the_stream_is_the_one_that_ffmpeg_takes(source, tmp_path, suffix, dispositions):
    codec = "h264" if suffix == "ts" else "mpeg4"
    other = encode(tmp_path / "other.mkv", CODECS[codec], (96, 64), picture=lambda i: 255 - ramp(i))
    path = tmp_path / f"x.{suffix}"
    ffmpeg("-i", source(codec), "-i", other, "-map", "0:v", "-map", "1:v", "-c", "copy",
           *(x for i, value in enumerate(dispositions) for x in (f"-disposition:v:{i}", value)), path)
    assert_shown(path)


@pytest.mark.parametrize(("suffix", "arguments"), [
    *((suffix, ["-map", f"{first}:v", "-map", f"{1 - first}:v", f"-disposition:v:{first}", "attached_pic"])
      for suffix in ("mp4", "mkv") for first in (0, 1)),
    ("mkv", ["-map", "1:v", "-attach", "cover.jpg", "-metadata:s:t", "mimetype=image/jpeg", "-disposition:v:0", "0"])])
def test_a_cover_is_no_video(source, tmp_path, monkeypatch, suffix, arguments):
    monkeypatch.chdir(tmp_path)
    ffmpeg("-i", source("mjpeg"), "-frames:v", "1", "-s", "200x200", tmp_path / "cover.jpg")
    path = tmp_path / f"x.{suffix}"
    ffmpeg("-i", tmp_path / "cover.jpg", "-i", source("h264"), *arguments, "-c", "copy", path)
    assert_shown(path)


@pytest.mark.parametrize("codec", ["h264", "vp8", "vp9", "mpeg4"])
@pytest.mark.parametrize("sizes", [((64, 48), (96, 64)), ((96, 64), (64, 48)), ((64, 48), (48, 64))])
def test_frames_of_another_size_are_scaled_to_the_first(tmp_path, codec, sizes):
    middle = "ts" if codec in ("h264", "mpeg4") else "mkv"
    parts = [encode(tmp_path / f"{i}.{middle}", CODECS[codec], size) for i, size in enumerate(sizes)]
    path = tmp_path / "x.mkv"
    if middle == "ts":
        (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
        ffmpeg("-i", tmp_path / "both.ts", "-c", "copy", path)
    else:
        (tmp_path / "list.txt").write_text("".join(f"file '{part.name}'\n" for part in parts))
        ffmpeg("-f", "concat", "-i", tmp_path / "list.txt", "-c", "copy", path)
    assert_shown(path)


@pytest.mark.parametrize("size", [(1, 64), (64, 1), (63, 47), (129, 97), (2, 2), (30, 30)])
@pytest.mark.parametrize("codec", ["h264_no_b", "ffv1", "vp9"])
def test_odd_sizes(tmp_path, codec, size):
    assert_shown(encode(tmp_path / "x.mkv", CODECS[codec], size))


def test_a_cut_is_not_damaged(source, tmp_path):
    """The container counts frames that its edit list hides: check finds nothing odd."""
    path = change(source("h264_one_group"), tmp_path / "x.mp4", "cut")
    facts = examine(FileToExamine(str(path), "pyav", every_frame=True))
    assert facts.readable and facts.reason == "" and facts.frames == len(shown(path)) // (64 * 48 * 3) < FRAMES


@pytest.mark.parametrize("name", ["12:30.mp4", "-dash.mp4", "http:x.mp4", "%05d.mp4", "a b#?.mp4"])
def test_names_that_look_like_something_else(source, tmp_path, monkeypatch, name):
    change(source("h264"), tmp_path / "plain.mp4", "as it is").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for decoder in READERS:
        assert open_video(Path(name), decoder).num_frames == FRAMES


def coloured(i: int) -> np.ndarray:
    """Frame i of a video with sharp edges between colours."""
    rows = np.eye(3, dtype=np.uint8)[(np.arange(48) // 4 + i) % 3] * 200
    return np.repeat(rows[:, None], 64, axis=1)


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_colours_of_interlaced_pictures(tmp_path, suffix):
    assert_shown(encode(tmp_path / f"x.{suffix}", CODECS["h264_interlaced"], picture=coloured))


@pytest.mark.parametrize("asked", ["rotate=180", "rotate=90", "flip=horizontal"])
def test_what_a_keyframe_asks_for_itself_turns_no_other_frame(source, tmp_path, asked):
    """ffmpeg turns that one frame, or not, as its version is; torchcodec asks the container alone."""
    whole, path = change(source("h264"), tmp_path / "whole.mp4", "as it is"), tmp_path / "x.mp4"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", f"h264_metadata={asked}:display_orientation=insert", path)
    assert_shown(path, expected=shown(whole))


def some_file(rng: random.Random, source, folder: Path) -> tuple[Path, str]:
    """A file of a random kind, and what it is."""
    while True:
        codec, name, container = rng.choice([*CODECS]), rng.choice([*CHANGES]), rng.choice(CONTAINERS)
        with av.open(str(folder / f"none.{container}"), "w") as file:
            fits = {"ts": True, "mpg": codec == "mpeg2"}.get(container, CODECS[codec][0] in file.supported_codecs)
        path = change(source(codec), folder / f"x.{container}", name) if fits else None
        what = f"{codec} {container} {name}"
        if path is None or not path.stat().st_size or (codec, name) in OTHERWISE:
            continue
        if rng.random() < 0.1:
            other, path = path, path.with_name(f"two.{container}")
            try:
                ffmpeg("-i", other, "-i", source("h264_one_group"), "-map", "0:v", "-map", "1:v", "-c", "copy", path)
            except subprocess.CalledProcessError:
                continue
            what += " and another stream"
        if container in ("mp4", "mov") and rng.random() < 0.4:
            matrix = rng.choice([*MATRICES])
            path, what = with_matrix(path, folder / f"y.{container}", matrix), f"{what} {matrix}"
        return path, what


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_any_file_is_read_as_ffmpeg_shows_it(source, tmp_path, group):
    files = []
    for i in range(FILES):
        (tmp_path / str(i)).mkdir()
        files.append(some_file(random.Random(FILES * group + i), source, tmp_path / str(i)))
    single = [path for path, what in files if "another stream" not in what]
    expected = dict(zip(single, all_shown(single), strict=True))
    held = 0
    for path, what in files:
        frames = expected[path] if path in expected else shown(path)
        if frames:
            assert_shown(path, what, 8 if "askew" in what else 3, frames)
            held += 1
    assert held > FILES / 2
