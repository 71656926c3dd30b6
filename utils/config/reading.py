"""Put layers into one table, dotted key to the value that wins; problems are collected, and none stops it."""

import difflib
import functools
import reprlib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.config.fields import Key, Mismatch, coerce, describe, keys_of
from utils.config.inert import inert_keys
from utils.config.layers import POOL, Layer, parse_yaml
from utils.config.schema import Config
from utils.registry import nearest

OPTIONS = "VIDEO.HEAD.OPTIONS"
LOOKED_UP = 50  # unknown keys for which a similar name is looked for
_NULLS = ("null", "Null", "NULL", "~")


def shown(value: Any) -> str:
    """Return a value as an error message has it: YAML's words for null and booleans, long lists cut."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, int) and abs(value) >= 10**80:  # too long to print, or even to be printed
        return "a whole number of over 80 digits"
    short = reprlib.Repr()
    short.maxlist, short.maxstring, short.maxother = 4, 80, 80
    return short.repr(value)


@functools.cache
def aliases() -> dict[str, str]:
    """Return other spellings of keys, to the key; the dict is shared: do not change it."""
    published = parse_yaml((POOL / "head_options.yaml").read_text(encoding="utf-8"))
    misspelt = {"TRAIN.WAT_TEST": "TRAIN.WAY_TEST"}
    return misspelt | {name: f"{OPTIONS}.{name.rsplit('.', 1)[-1]}" for name in published}


@functools.cache
def _sections() -> dict[str, dict[str, None]]:
    """Return the names right below each section, those of inert keys last."""
    found: dict[str, dict[str, None]] = {}
    for dotted in (*keys_of(Config), f"{OPTIONS}.", *inert_keys()):
        parts = dotted.split(".")
        for depth in range(1, len(parts)):
            found.setdefault(".".join(parts[:depth]), {})[parts[depth]] = None
    return found


def suggestion(dotted: str) -> str:
    """'; did you mean ...?' with the nearest known names, or where all names stand."""
    known = [*keys_of(Config), *aliases(), *inert_keys(), *_sections()]
    wanted = dotted.upper()
    leaf = wanted.rsplit(".", 1)[-1]
    found = difflib.get_close_matches(wanted, known, n=1, cutoff=0.8)
    found += [name for name in known if name.rsplit(".", 1)[-1] == leaf and name not in found][:3]
    found = found or difflib.get_close_matches(wanted, known, n=1, cutoff=0.55)
    return f"; did you mean {' or '.join(found[:3])}?" if found else "; configs/pool/base.yaml lists every key"


@dataclass(frozen=True)
class Entry:
    """A value as written, the layer that wrote it, the name it was written under, and the text if it was typed."""

    value: Any
    layer: str
    spelled: str
    text: str = ""


@dataclass
class Reading:
    """Collect what the layers say, in the order in which they are added."""

    ignored_names: frozenset[str]  # keys and sections of the public project's other tasks
    foreign_pool: Path | None = None  # configs/pool of another tree; its keys beyond the schema are ignored
    entries: dict[str, Entry] = field(default_factory=dict)  # dotted key, or option of the head, to the value that wins
    inert: dict[str, Entry] = field(default_factory=dict)  # the same of keys that nothing reads
    ignored: dict[str, None] = field(default_factory=dict)  # found of `ignored_names`; ordered, without duplicates
    problems: list[str] = field(default_factory=list)  # what is wrong, one line each

    def add(self, layer: Layer) -> None:
        """Put one layer over the earlier ones."""
        self._add(layer, layer.values, "")

    def _add(self, layer: Layer, values: dict[Any, Any], prefix: str) -> None:
        for name, value in values.items():
            dotted = f"{prefix}{name}"
            target = aliases().get(dotted, dotted)
            if dotted in self.ignored_names or dotted in self.ignored:
                self.ignored[dotted] = None
            elif "." in str(name):  # a name with dots is not the way to a key in a section
                self._unknown(layer, dotted, value)
            elif dotted in inert_keys():
                if value is not None or layer.key:  # an empty line of a YAML file sets nothing
                    self.inert[dotted] = Entry(value, layer.name, dotted)
            elif target.startswith(f"{OPTIONS}."):
                self._enter(target, Entry(value, layer.name, dotted, layer.text))
            elif target in keys_of(Config):
                self._value(layer, dotted, target, value)
            elif dotted in _sections():
                self._section(layer, value, dotted)
            else:
                self._unknown(layer, dotted, value)

    def without_effect(self) -> list[str]:
        """Return a line for each inert key that was set to something else than its default."""
        return [f"{entry.layer}: {dotted}: {shown(entry.value)} has no effect: {inert_keys()[dotted].why}"
                for dotted, entry in self.inert.items() if entry.value != inert_keys()[dotted].default]

    def _unknown(self, layer: Layer, dotted: str, value: Any) -> None:
        if self.foreign_pool and layer.path and layer.path.is_relative_to(self.foreign_pool):
            self.ignored[dotted] = None
            return
        if "." in dotted and layer.path and (dotted in keys_of(Config) or dotted in inert_keys()):
            advice = f"; in a file a key stands indented under its section: {dotted.replace('.', ': ')}"
            self.problems.append(f"{layer.name}: {dotted}: unknown key{advice}")
            return
        kind = "section" if isinstance(value, dict) and not layer.key else "key"
        name = layer.key or dotted
        advice = suggestion(name) if len(self.problems) < LOOKED_UP else ""
        self.problems.append(f"{layer.name}: {name}: unknown {kind}{advice}")

    def _section(self, layer: Layer, value: Any, dotted: str) -> None:
        if isinstance(value, dict):
            self._add(layer, value, f"{dotted}.")
        elif value is not None or layer.key:
            inner = ", ".join(list(_sections()[dotted])[:3])
            self.problems.append(f"{layer.name}: {dotted}: expected a section (with {inner}, ...), found "
                                 f"{shown(value)}")

    def _value(self, layer: Layer, spelled: str, dotted: str, value: Any) -> None:
        key = keys_of(Config)[dotted]
        if layer.key == spelled and key.is_text:
            value = typed_text(layer.text, value)
        elif isinstance(value, dict):
            inner = ", ".join(str(name) for name in list(value)[:3])
            self.problems.append(
                f"{layer.name}: {spelled}: expected {describe(key.hint)}, found a section (with {inner or 'nothing'})")
            return
        if value is None and not key.optional and not layer.key:
            return  # an empty line of a YAML file sets nothing
        self._enter(dotted, Entry(value, layer.name, spelled))

    def _enter(self, dotted: str, entry: Entry) -> None:
        """Put a value over an earlier one. One layer may spell a key in two ways only if it says the same."""
        before = self.entries.get(dotted, entry)
        if before.layer == entry.layer and before.spelled != entry.spelled and before.value != entry.value:
            self.problems.append(f"{entry.layer}: {entry.spelled}: another spelling of {before.spelled}, which is set "
                                 f"to {shown(before.value)}; found {shown(entry.value)}")
        self.entries[dotted] = entry


def typed_text(text: str, value: Any) -> Any:
    """A command-line value of a text key: null, quoted text without its quotes, or the text as typed."""
    if text.strip() in _NULLS:
        return None
    return value if isinstance(value, str) and text.strip()[:1] in ("'", '"') else text


def _wrong_type(value: Any, key: Key) -> str:
    """Say what was expected and found; for a list, the first item that does not fit."""
    text = f"expected {describe(key.hint)}, found {shown(value)}"
    lists = [key.hint, *typing.get_args(key.hint)]
    item_types = [typing.get_args(hint)[0] for hint in lists if typing.get_origin(hint) is tuple]
    if not isinstance(value, list) or not item_types:
        return text
    for number, item in enumerate(value, start=1):
        try:
            coerce(item, item_types[0])
        except Mismatch:
            advice = "; put it in quotes" if item_types[0] is str else ""
            return f"expected {describe(key.hint)}, found {shown(item)} as item {number}{advice}"
    return text


def _numbers(value: Any) -> list[float]:
    items = value if isinstance(value, tuple) else (value,)
    return [item for item in items if isinstance(item, (int, float)) and not isinstance(item, bool)]


def typed(value: Any, key: Key) -> tuple[Any, str]:
    """Return (value as the key's type, "") or (None, what is wrong with it)."""
    try:
        result = coerce(value, key.hint)
    except Mismatch:
        return None, _wrong_type(value, key)
    if any(number != number or number in (float("inf"), -float("inf")) for number in _numbers(result)):
        return None, f"expected a finite number, found {shown(value)}"
    if result is not None and key.choices and result not in key.choices:
        hint = nearest(str(result), key.choices)
        return None, f"expected {' or '.join(key.choices)}, found {shown(result)}{hint and f'; {hint}'}"
    for text in result if isinstance(result, tuple) else (result,):
        if isinstance(text, str) and ("\0" in text or text.encode("utf-8", "ignore").decode() != text):
            return None, f"expected text, found {shown(text)}, which holds a NUL or half a character"
    if any(isinstance(number, int) and abs(number) >= 2**63 for number in _numbers(result)):
        return None, f"expected a whole number below 2^63, found {shown(value)}"
    if problem := _out_of_range(result, key):
        return None, problem
    return key.one_spelling(result), ""


def _out_of_range(value: Any, key: Key) -> str:
    """What is wrong with a value that has the right type; empty: nothing."""
    if key.registry is not None and value is not None and value not in key.registry:
        return key.registry.unknown(value)
    found = shown(list(value) if isinstance(value, tuple) else value)
    if key.items is not None and isinstance(value, tuple) and len(value) != key.items:
        return f"expected a list of {key.items} numbers, found {found}"
    for number in _numbers(value):
        if key.minimum is not None and number < key.minimum:
            return f"expected {key.minimum:g} or more, found {found}"
        if key.maximum is not None and number > key.maximum:
            return f"expected {key.maximum:g} or less, found {found}"
        if key.above is not None and number <= key.above:
            return f"expected more than {key.above:g}, found {found}"
    return ""
