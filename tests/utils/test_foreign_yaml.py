"""Settings that strangers wrote: merge keys and odd characters load, and whatever does not ends in a ConfigError."""

import copy
import functools
import json
import os
import random

import pytest
import yaml

from models.registries import HEADS
from runs.session.preflight import check_names
from utils.config import Config, layers, load_config, resolve_config
from utils.config.fields import keys_of
from utils.config.inert import inert_keys
from utils.config.layers import POOL, parse_yaml
from utils.config.reading import aliases
from utils.errors import ConfigError, FewShotError, WeightsError

MINE = "_BASE_RUN: {}\nDATA: {{CLASSES: demo}}\n"


@pytest.fixture
def project(tmp_path):
    def write(text: str):
        (tmp_path / "run.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return tmp_path / "run.yaml"

    return write


def test_merge_keys_load_as_yaml_has_them(project):
    path = project("COMMON: &common {STEPS_ITER: 2, WARMUP_EPOCHS: 0}\n")
    text = path.read_text() + "A: {<<: *common, WARMUP_EPOCHS: 3}\n" \
        "B: &b\n  DEEP: &deep {<<: *common, WARMUP_EPOCHS: 4}\nC: {<<: [*deep, *common]}\n"
    found = parse_yaml(text)
    assert found["A"] == {"STEPS_ITER": 2, "WARMUP_EPOCHS": 3} and found["C"] == yaml.safe_load(text)["C"]
    assert found["B"]["DEEP"] == {"STEPS_ITER": 2, "WARMUP_EPOCHS": 4}
    cfg = load_config(project("DATA: {CLASSES: demo}\n"
                              "SOLVER: {<<: {STEPS_ITER: 2, WARMUP_EPOCHS: 0}, BASE_LR: 1e-3}\n"))
    assert (cfg.SOLVER.STEPS_ITER, cfg.SOLVER.WARMUP_EPOCHS, cfg.SOLVER.BASE_LR) == (2, 0, 1e-3)
    for twice in ("{a: 1, a: 2}", "{<<: {a: 1}, <<: {b: 1}}", "{x: {a: 1, 'a': 2}}"):
        with pytest.raises(yaml.YAMLError, match="written twice"):
            parse_yaml(twice)


def test_a_character_written_as_two_escapes_is_one():
    assert parse_yaml(r'"\ud83d\ude00"') == "\U0001f600"


BOMB = "a: &a {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1 or str()}'] * 9)}], k{n}: 1}}\n"
                                 for n in range(1, 30)).replace("*a0", "*a")
WRONG = {
    "deep lists": "X: " + "[" * 2000 + "]" * 2000, "deep sections": "\n".join(" " * n + f"a{n}:" for n in range(3000)),
    "many": "X: [" + "1, " * 150_000 + "1]", "many keys": "".join(f"KEY_{n}: 1\n" for n in range(40_000)),
    "hex": "RANDOM_SEED: 0x" + "f" * 200_000, "digits": "RANDOM_SEED: " + "9" * 5000,
    "sixties": "RANDOM_SEED: " + "1:" * 5000 + "59",
    "octal": "RANDOM_SEED: 0" + "7" * 20_000, "as float": "SOLVER: {BASE_LR: " + "9" * 4000 + "}",
    "base with NUL": '_BASE: "a\\0b"', "long base": "_BASE: " + "a" * 5000, "half": r'OUTPUT_DIR: "\ud83d"',
    "half in a list": r'TEST: {CLASS_NAME: ["a", "b\udc00"]}', "NUL": 'OUTPUT_DIR: "a\\0b"', "day": "X: 2024-02-31",
    "tag": "X: !!python/object/apply:os.system [true]", "laughs": "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 1}]\n" for n in range(30)),
    "merge of a list": "X: {<<: [1, 2]}", "loop": "&a [*a]", "loop in a section": "TRAIN: &a {SHOT: *a}",
    "prompt of a letter": "TEST: {PROMPT: 'a {:.1}'}", "prompt of a part": "TEST: {PROMPT: 'a {0[0]}'}",
    "prompt that fills memory": "TEST: {PROMPT: '{:>1000000000}'}",
    "prompt that looks around": "TEST: {PROMPT: '{0} {0.__class__}'}", "two prompts": "TEST: {PROMPT: '{} {}'}",
    "episodes": "TRAIN: {NUM_TEST_TASKS: 1000000000000}", "iterations": "TRAIN: {NUM_TRAIN_TASKS: 4611686018427387904}",
    "frames": "DATA: {NUM_INPUT_FRAMES: 100000000}",
    "pixels": "DATA: {TEST_SCALE: 4611686018427387904}", "workers": "DATA_LOADER: {NUM_WORKERS: 4611686018427387904}",
    "jitter": "AUGMENTATION: {BRIGHTNESS: 1e308}", "log": "TRAIN: {LOG_FILE: results.json}",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_told_in_seconds(project, name):
    with pytest.raises(ConfigError) as caught:
        load_config(project(WRONG[name]))
    assert len(str(caught.value)) < 20_000 and "\ud83d" not in str(caught.value)


def test_merged_sections_do_not_multiply(project):
    found = parse_yaml(BOMB)
    assert found["a29"]["x"] == 1 and len(found["a29"]) == 30


@pytest.mark.parametrize("size", ["NUM_TEST_TASKS 1000000000000", "NUM_TRAIN_TASKS 1000000000000"])
def test_a_bound_is_said_with_what_memory_there_is(project, size):
    key, value = size.split()
    with pytest.raises(ConfigError, match=rf"TRAIN.{key}: 1,000,000,000,000 need [\d,]+ GiB of memory or more, and "
                                          r"there are \d+: expected at most [\d,]+"):
        load_config(project("DATA: {CLASSES: demo}"), [f"TRAIN.{key}", value])


def test_what_has_no_end_is_no_file(project, tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for path, said in (("/dev/zero", "expected a file, found a device"), (tmp_path / "pipe.yaml", "found a pipe"),
                       (tmp_path, "found a directory"), (tmp_path / "loop.yaml", "cannot be read"), ("a\0b", "null")):
        with pytest.raises(ConfigError, match=said):
            load_config(path)
        if "\0" not in str(path):
            with pytest.raises(ConfigError, match="found a|cannot be read|no such file"):
                load_config(project(f"_BASE: {path}\n"))
    for n in range(12):
        (tmp_path / f"{n}.yaml").write_text("".join(f"{link}: {n + 1}.yaml\n" for link in ("_BASE", "_BASE_RUN")))
    with pytest.raises(ConfigError, match="expected at most 8 files that name the next as their base"):
        load_config(tmp_path / "0.yaml")


PIECES = [b"[", b"{", b"&a ", b"*a", b"<<: ", b"!!", b"\t", b"\0", b"\xff", b"9" * 40, b"'", b'"\\ud800', b"? ", b"|\n",
          b"- ", b"%", b"\xe2\x80\xa8"]


def mutated(text: bytes, number: int, seed: int):
    """The text with some bytes replaced, doubled, removed or put in, of those that YAML cares about."""
    draw = random.Random(seed)
    for _ in range(number):
        one = bytearray(text)
        for _ in range(draw.randrange(1, 6)):
            at = draw.randrange(len(one))
            one[at:at + draw.choice([0, 0, 1, 9])] = draw.choice(PIECES)
        yield bytes(one)


def _fuzz(project, number: int) -> None:
    text = (POOL / "base.yaml").read_bytes()[:3000] + b"TEST: &a {PROMPT: 'a {}', CLASS_NAME: [x, y]}\n"
    for one in mutated(text, number, 7):
        try:
            load_config(project(one))
        except FewShotError:
            continue


def test_mutated_settings_load_or_are_told(project):
    _fuzz(project, 60)


@pytest.mark.slow
def test_many_mutated_settings_load_or_are_told(project):
    _fuzz(project, 3000)


ODD = [None, "", "x", -1, 0, 1, 2**62, 10**400, 0.5, 1e-300, 1e308, float("nan"), float("-inf"), True, [], {}, [0],
       [0.5] * 3, [float("nan")] * 3, [2**62] * 2, "a" * 5000, "a/" * 3000, "a\0b", "\ud800", "\u202e\x1b[2J", "-x",
       "/dev/zero", "{0}{1}", [[[[1]]]], {"a": {"b": 1}}, ["a", "b", "c"], [None], "1e3", "a\rb", "a:b", "../x.json",
       "~nobody"]


def _odd_values(project, every: list[tuple[str, object]]) -> None:
    """Each value at its key, by file and by command line, is taken or told."""
    for key, value in every:
        text = json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf")
        *sections, leaf = key.split(".")
        written = functools.reduce(lambda inner, name: f"{name}: {{{inner}}}", reversed(sections), f"{leaf}: {text}")
        path, mine = project(f"DATA: {{CLASSES: demo}}\n{written}\n" if sections[:1] != ["DATA"] else written), []
        for pairs in (mine, [key, value if isinstance(value, str) else text]):
            try:
                check_names(resolve_config(path, pairs))
            except ConfigError:
                continue
            except WeightsError as error:
                assert key.startswith("VIDEO.HEAD."), (key, value, error)
            except Exception as error:
                raise AssertionError(f"{key} {value!r:.80} {'by file' if pairs is mine else 'typed'}") from error
            path = project("DATA: {CLASSES: demo}\n")


# Nothing looks at what an inert key is set to: each gets some of the values, and together they get all of them.
EVERY = [(key, value) for key in [*keys_of(Config), *aliases(), *keys_of(
    HEADS["CNN_OTAM_CLIPFSAR"].Options, "VIDEO.HEAD.OPTIONS.")] for value in ODD] + [
    (key, value) for number, key in enumerate(inert_keys()) for value in ODD[number % 8::8]]


def test_odd_values_of_every_key_are_taken_or_told(project):
    _odd_values(project, random.Random(3).sample(EVERY, 300))


@pytest.mark.slow
def test_all_odd_values_of_every_key_are_taken_or_told(project, monkeypatch):
    parse = layers.parse_yaml
    parsed = functools.cache(parse)  # of the pool's files, which are the same each time and take most of it
    monkeypatch.setattr(layers, "parse_yaml", lambda text, *loader: (
        copy.deepcopy(parsed(text, *loader)) if len(text) > 500 else parse(text, *loader)))
    _odd_values(project, EVERY)
