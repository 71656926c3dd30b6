"""Read the YAML files that a run is made of, in the order in which they apply."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from utils.errors import ConfigError
from utils.foreign import read_text, regular

REPOSITORY = Path(__file__).resolve().parents[2]
POOL = REPOSITORY / "configs" / "pool"
YAML_BYTES, MOST, DEEPEST, LONGEST = 4 << 20, 100_000, 64, 8  # largest file; values in it; nesting; files in a row
MERGE = "tag:yaml.org,2002:merge"
LINKS = ("_BASE_RUN", "_BASE_MODEL", "_BASE")


def problem(text: str) -> ConfigError:
    """Return the ConfigError of one problem."""
    return ConfigError([text])


class _WrittenTwice(yaml.constructor.ConstructorError):
    """Say that a key stands twice in one mapping."""


class _Lenient(yaml.SafeLoader):
    """Read 1e-3 as a number, as YAML 1.2 does, and no more than MOST values, DEEPEST deep."""

    values = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return a node as YAML has it; raise where there are too many."""
        self.values, self.depth = self.values + 1, self.depth + 1
        if self.values > MOST or self.depth > DEEPEST:
            raise yaml.YAMLError(f"expected at most {MOST:,} values, nested {DEEPEST} deep at most, found more")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put merged mappings (<<) in; raise where they multiply."""
        merged = [value for key, value in node.value if key.tag == MERGE]
        lists = [value.value if isinstance(value, yaml.SequenceNode) else [value] for value in merged]
        if sum(len(part.value) for parts in lists for part in parts) > MOST // 100:
            raise yaml.YAMLError(f"expected at most {MOST // 100:,} merged keys, found more")
        super().flatten_mapping(node)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Return text, with a character that is written as two escapes, as JSON does, made one."""
        value = super().construct_scalar(node)
        return value.encode("utf-16", "surrogatepass").decode("utf-16") if isinstance(value, str) else value


class _Strict(_Lenient):
    """Refuse a key written twice, too."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping whose keys all differ; raise where one stands twice."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # SafeLoader says so
            key = "<<" if key_node.tag == MERGE else self.construct_object(key_node)
            if key in seen:
                raise _WrittenTwice(None, None, f"key {key!r} written twice", key_node.start_mark)
            seen.add(key)
        return node


_Lenient.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = _Strict) -> Any:
    """Turn YAML text into Python values. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, loader)  # noqa: S506  (a SafeLoader subclass)
    except yaml.YAMLError:
        raise
    except Exception as error:  # a day like 2024-02-31, half a character, a number too long to print
        raise yaml.YAMLError(str(error)) from error


@dataclass(frozen=True)
class Layer:
    """Hold one file of settings, or one KEY VALUE pair: where it came from and what it says (nested dict).

    `path` is None for a pair of the command line; `key` and `text` are that pair as typed. `remark` is worth telling.
    """

    name: str
    values: dict[str, Any]
    path: Path | None = None
    key: str = ""
    text: str = ""
    remark: str = ""


def read_layer(path: Path, *, foreign: bool = False) -> Layer:
    """Read one YAML file. Raises ConfigError naming the file when it is missing or is not a mapping.

    A key written twice is an error, but in another project's tree (`foreign`) the last one holds, as it does there.
    """
    name = str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
    remark = ""
    try:
        text = read_text(path, problem, YAML_BYTES)
        try:
            values = parse_yaml(text)
        except _WrittenTwice as error:
            if not foreign:
                raise
            values, remark = parse_yaml(text, _Lenient), f"{name}: {error.problem}; the last one holds"
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{name}: cannot be read ({error})"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{name}: not valid YAML: {' '.join(str(error).split())}"]) from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError([f"{name}: expected sections and keys, found a {type(values).__name__}"])
    return Layer(name, values, path, remark=remark)


def _linked(layer: Layer, path: Path, link: str) -> Path | None:
    """Return the file that a layer names under `link`, relative to itself."""
    target = layer.values.get(link)
    if target is None:
        return None
    if not isinstance(target, str):
        raise ConfigError([f"{layer.name}: {link}: expected a file name, found {target!r}"])
    try:
        found = (path.parent / target).resolve()
        found.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long; a NUL in it; links in a loop
        raise ConfigError([f"{layer.name}: {link}: {target[:80]!r} cannot be read ({error})"[:400]]) from error
    return found


def _chain(path: Path, foreign: bool, seen: tuple[Path, ...] = ()) -> list[Layer]:
    """Return the layers of a file, earliest first: its run and model files, its parents, itself."""
    if path in seen:
        loop = " -> ".join(p.name for p in (*seen, path))
        raise ConfigError([f"{path}: _BASE goes in a circle: {loop}"])
    if len(seen) == LONGEST:
        raise ConfigError([f"{path}: expected at most {LONGEST} files that name the next as their base, found more"])
    layer = read_layer(path, foreign=foreign)
    before: dict[str, list[Layer]] = {link: [] for link in LINKS}
    for link in LINKS:
        target = _linked(layer, path, link)
        if target is None or (_optional(link, target) and not target.exists()):
            continue
        if not target.exists():
            raise ConfigError([f"{layer.name}: {link}: no such file: {target}"])
        before[link] = _chain(target, foreign, (*seen, path))
    own = replace(layer, values={k: v for k, v in layer.values.items() if k not in LINKS})
    return [*before["_BASE_RUN"], *before["_BASE_MODEL"], *before["_BASE"], own]


def _optional(link: str, target: Path) -> bool:
    """Return whether a link may lead nowhere: the public tree names a backbone file whose settings it all overrides."""
    return link == "_BASE_MODEL" and target.name == "localization-conv.yaml"


def foreign_base(path: Path) -> Path | None:
    """Return `configs/pool/base.yaml` of the tree a project file lies in, when that is not this repository's."""
    for parent in path.resolve().parents:
        base = parent / "pool" / "base.yaml"
        if parent.name == "configs" and base.is_file():
            return None if base.samefile(POOL / "base.yaml") else base
    return None


def layer_files(path: Path) -> tuple[list[Layer], list[Layer]]:
    """Return (base layers, project layers) of a project file; the protocol layer goes between them.

    The base layers are this repository's base.yaml and, for a file of another tree, that tree's.

    The order inside is the published one: base, `_BASE_RUN`, `_BASE_MODEL`, each `_BASE`, the file.
    """
    regular(path, problem)
    bases = [read_layer(POOL / "base.yaml")]
    other = foreign_base(path)
    if other:
        bases.append(read_layer(other, foreign=True))
    return bases, _chain(path.resolve(), other is not None)
