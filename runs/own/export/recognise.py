"""Say which actions videos show, by the files of this folder: python recognise.py new.mp4 more.mp4 > answers.json

It needs numpy, onnxruntime and av (and Pillow for videos that are turned by other than right angles), and no torch.
Exit status: 0, 1 when nothing could be done, 2 wrong usage, 3 when some videos could not be read.

n frames, T frames of a clip, L tokens, M queries, R references, K actions, D features, S side of a picture.
"""

import argparse
import hashlib
import json
import math
import struct
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent
ATTACHED, FAVOUR, ASPECT, LONG = 0x400, 5_000_000, 1.5, 3.0  # as where the bundle was made


def frames_of(path):
    """Yield (second at which it is shown, seconds to the next one by the file's rate, frame) of a video, in order."""
    with av.open(str(Path(path).absolute())) as container:
        streams = [one for one in container.streams.video if one.codec_context]
        if not streams or container.format.name.endswith("_pipe"):
            raise ValueError("has no video stream that can be decoded" if not streams else "is a picture, not a video")
        stream = max(streams, key=lambda one: 1 if one.disposition & ATTACHED else one.codec_context.width
                     * one.codec_context.height + FAVOUR * bool(one.disposition & 1))
        stream.thread_type, stream.thread_count = "NONE", 1
        zero = (container.start_time or 0) / 1e6 if container.format.name in ("mpegts", "mpeg") else 0.0
        step, last, cut = 1 / float(stream.average_rate or stream.guessed_rate or math.inf), None, None
        for packet in container.demux(stream):
            cut = not packet.is_keyframe if cut is None and packet.size else cut
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                if cut and packet.size:  # before the first keyframe
                    continue
                raise
            cut = cut and not frames
            for frame in frames:
                ticks = frame.dts if frame.pts is None else frame.pts
                second = float(ticks * (frame.time_base or stream.time_base)) - zero if ticks is not None else \
                    0.0 if last is None else last + step
                last = second if last is None else max(second, last)
                yield last, step, frame


def matrix_of(frame):
    """Return where a frame's x axis (a, b) and y axis (c, d) lead when it is shown."""
    try:
        found = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # of a kind that PyAV does not know stands before it
        turn = math.radians(-frame.rotation)
        return round(65536 * math.cos(turn)), round(65536 * math.sin(turn)), \
            -round(65536 * math.sin(turn)), round(65536 * math.cos(turn))
    a, b, _, c, d, *_ = (1, 0, 0, 0, 1) if found is None else np.frombuffer(found, np.int32).tolist()
    return a, b, c, d


def upright(frame, width, height, matrix):
    """Return uint8 RGB [H, W, 3] of a frame as it is to be shown."""
    if frame.interlaced_frame:  # its colours would be scaled by fields
        graph = av.filter.Graph()
        graph.link_nodes(graph.add_buffer(width=frame.width, height=frame.height, format=frame.format,
                                          time_base=frame.time_base), graph.add("setfield", "prog"),
                         graph.add("buffersink")).configure()
        graph.push(frame)
        frame = graph.pull()
    picture = frame.to_ndarray(width=width, height=height, format="rgb24", interpolation="BICUBIC")
    a, b, c, d = matrix
    turn = round(math.degrees(math.atan2(b / (math.hypot(b, d) or 1), a / (math.hypot(a, c) or 1)))) % 360
    if turn % 90:
        from PIL import Image

        return np.array(Image.fromarray(picture).rotate(-turn, Image.Resampling.BILINEAR))
    if turn % 180:
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def resized(picture, size, crop, mean, std):
    """Return float32 [3, S, S] of uint8 [H, W, 3]: bilinear, half-pixel centres, no antialias, middle, normalised."""
    values, one = picture.astype(np.float32) / np.float32(255), np.float32(1)
    for axis, wanted in enumerate(size):
        first, have = round((wanted - crop) / 2), values.shape[axis]
        at = (np.arange(first, first + crop) + 0.5) * np.float64(np.float32(have) / np.float32(wanted)) - 0.5
        at = np.maximum(at, 0).astype(np.float32)  # a step rounded to float32, and the position, as torch rounds them
        low = np.minimum(at.astype(np.int64), have - 1)
        share = (at - low.astype(np.float32)).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        values = (values.take(low, axis) * (one - share)
                  + values.take(np.minimum(low + 1, have - 1), axis) * share)
    return ((values - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)


def arrays_of(path):
    """Return the arrays of a safetensors file of float32."""
    data = Path(path).read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return {name: np.frombuffer(data[start + one["data_offsets"][0]:start + one["data_offsets"][1]],
                                "<f4").reshape(one["shape"])
            for name, one in json.loads(data[8:start]).items() if name != "__metadata__"}


def sha256(path):
    """Return the SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Bundle:
    """Runs the files of a folder. `threads`: 0: one a core. `int8`: the tower of that name, which is no equal."""

    def __init__(self, folder=HERE, threads=0, int8=False):
        self.facts = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        if int8 and not (folder / "tower_int8.onnx").is_file():
            raise ValueError("this bundle has no tower of 8-bit weights: export it with --int8")
        names = {"tower": "tower_int8.onnx" if int8 else "tower.onnx", "modulator": "modulator.onnx",
                 "align": "align.onnx"}
        for name, digest in self.facts["files"].items():
            if (name in (*names.values(), "actions.safetensors") or name.endswith(".data")) \
                    and sha256(folder / name) != digest:
                raise ValueError(f"{folder / name}: is not the file that was exported: its SHA-256 is another one")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.sessions = {part: onnxruntime.InferenceSession(str(folder / name), options,
                                                            providers=["CPUExecutionProvider"])
                         for part, name in names.items() if name in self.facts["files"] or part == "tower"}
        self.references = arrays_of(folder / "actions.safetensors")["references"]

    def run(self, part, first, *more):
        """Run a file on as many rows at once as it takes; what is left of the last ones is filled up."""
        session = self.sessions[part]
        inputs = session.get_inputs()
        most = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else max(len(first), 1)
        found = []
        for at in range(0, len(first), most):
            piece = first[at:at + most]
            filled = np.concatenate([piece, np.zeros_like(piece[:1]).repeat(most - len(piece), 0)])
            rows = session.run(None, dict(zip([one.name for one in inputs], [filled, *more], strict=True)))[0]
            found.append(rows[:len(piece)])
        return np.concatenate(found)

    def features(self, pixels):
        """Return the tower's features of pictures, [n, 3, S, S] -> [n, D]."""
        return self.run("tower", pixels)

    def modulated(self, tokens):
        """Return what the frames of queries, or tokens of references, become, [M, L, D] -> [M, L, D]."""
        return self.run("modulator", tokens) if "modulator" in self.sessions else tokens

    def distances(self, queries, references):
        """Return how far queries, modulated, are from references, [M, R]."""
        return self.run("align", queries, references)

    def of_actions(self, distances):
        """Return the mean over the references of each action, float64 [M, K]."""
        labels = np.array(self.facts["references"])
        return np.stack([distances[:, labels == k].mean(axis=1, dtype=np.float64)
                         for k in range(len(self.facts["actions"]))], axis=1)

    def read(self, path):
        """Return float32 [T, 3, S, S] of a video's frames, the middle ones of T equal parts, and facts of it."""
        shown = [(second, step) for second, step, _ in frames_of(path)]
        if not shown:
            raise ValueError("has no frames")
        seconds, step = [second for second, _ in shown], shown[-1][1]
        frames, pixels = self.facts["frames"], self.facts["pixels"]
        wanted = [(2 * t + 1) * len(seconds) // (2 * frames) for t in range(frames)]
        for index, (_, _, frame) in enumerate(frames_of(path)):
            if index == 0:
                taken, width, height, matrix = {}, frame.width, frame.height, matrix_of(frame)
            if index in wanted:
                waiting = upright(frame, width, height, matrix)
                size = waiting.shape[:2]
                taken[index] = resized(waiting, pixels["size"], pixels["crop"], pixels["mean"], pixels["std"])
            if index == wanted[-1]:
                break
        length = seconds[-1] + (seconds[-1] - seconds[-2] if len(seconds) > 1 else step)
        return np.stack([taken[index] for index in wanted]), \
            {"seconds": length, "size": size, "times": [seconds[i] for i in wanted], "distinct": len(set(wanted))}

    def answer(self, path):
        """Return what is said of one video, as predictions.json says it."""
        facts = self.facts
        pixels, clip = self.read(path)
        queries = self.modulated(self.features(pixels)[None])
        distances = self.of_actions(self.distances(queries, self.references))[0]
        found, names = facts["calibration"], [one["name"] for one in facts["actions"]]
        margin = None if found["threshold"] is None else found["threshold"] - float(distances.min())
        unknown, shares = margin is not None and margin < 0, None
        if found["temperature"] is not None:
            exps = np.exp((distances.min() - distances) / found["temperature"])
            shares = dict(zip(names, (exps / exps.sum()).tolist(), strict=True))
        said = {"file": Path(path).name, "seconds": clip["seconds"],
                "answer": None if unknown else names[int(distances.argmin())], "unknown": unknown,
                "distances": dict(zip(names, distances.tolist(), strict=True)), "margin": margin,
                "probabilities": shares, "frames_s": [round(time, 2) for time in clip["times"]]}
        same = {one["sha256"]: one["name"] for one in reversed(facts["clips"])}.get(sha256(path))
        notes = self.notes(clip)
        return said | ({"same_as_support": same} if same else {}) | ({"notes": notes} if notes else {})

    def notes(self, clip):
        """Say what is odd about a clip."""
        (height, width), usual, frames = clip["size"], self.facts["usual"], self.facts["frames"]
        ratio = width / height / usual["aspect"]
        notes = [f"shape {width} x {height}, unlike your clips': frames are resized to a square, so it looks different"
                 ] if max(ratio, 1 / ratio) > ASPECT else []
        notes += [f"{clip['distinct']} different frames of {frames}"] if clip["distinct"] < frames else []
        return notes + ([f"{clip['seconds']:.0f} s, where the examples' median is {usual['seconds']:.1f} s: answered "
                         "as one clip"] if clip["seconds"] > LONG * usual["seconds"] else [])


def reason(path, error):
    """Say why a video cannot be read."""
    if not path.exists():
        return "no such file"
    return str(error).split("\n")[0] if isinstance(error, ValueError) else f"not a video, or damaged ({error.strerror})"


def main():
    """Answer and print JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--int8", action="store_true", help="the tower of 8-bit weights, whose answers differ")
    parser.add_argument("--threads", type=int, default=0, help="of the processor (default: one a core)")
    parsed = parser.parse_args()
    try:
        bundle = Bundle(threads=parsed.threads, int8=parsed.int8)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    answers = []
    for path in parsed.videos:
        try:
            answers.append(bundle.answer(path))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            answers.append({"file": path.name, "error": reason(path, error)})
    facts = {name: bundle.facts[name] for name in ("format", "model", "actions", "calibration", "warnings")}
    json.dump(facts | {"queries": answers}, sys.stdout, indent=1, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")
    failed = sum("error" in one for one in answers)
    return 1 if failed == len(answers) else 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
