"""Every key that claims an effect is read by the code, and no key that claims none is."""

import ast
import functools

import yaml

from utils.config import Config
from utils.config.class_names import TARGETS
from utils.config.effects import flat
from utils.config.fields import keys_of
from utils.config.inert import inert_keys
from utils.config.layers import POOL, REPOSITORY

ROOMS = ("datasets", "models", "runs", "utils")
SECTIONS = {key.rsplit(".", 1)[0] for key in keys_of(Config) if "." in key}
# By utils/config itself.
READ_WHILE_LOADING = {"PROTOCOL", "TASK_TYPE", "DATA.CLASSES", "TEST.ENABLE", *TARGETS.values()}


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`cfg.TRAIN.WAY` to "TRAIN.WAY"; a local name that stands for a section is followed."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in names:
        parts += reversed(names[node.id].split("."))
    return ".".join(part for part in reversed(parts) if part.isupper())


def _bindings(node: ast.AST) -> list[tuple[str, ast.AST]]:
    """(name, value) of the assignments in a node, pairs of a tuple assignment one by one."""
    found = []
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=True))
        found += [(name.id, value) for name, value in pairs if isinstance(name, ast.Name)]
    return found


@functools.cache
def keys_read() -> frozenset[str]:
    """Dotted keys that some code outside utils/config reads as attributes of a Config."""
    found: set[str] = set()
    for room in ROOMS:
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            if path.is_relative_to(REPOSITORY / "utils" / "config"):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for scope in ast.walk(tree):
                if isinstance(scope, ast.FunctionDef):
                    found |= _keys_of_scope(scope)
    return frozenset(found)


def _keys_of_scope(scope: ast.FunctionDef) -> set[str]:
    names: dict[str, str] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            names.update({name: section for name, value in _bindings(node)
                          if (section := _dotted(value, names)) in SECTIONS})
    for argument in (*scope.args.args, *scope.args.kwonlyargs):  # def f(train: TrainConfig)
        kind = ast.unparse(argument.annotation).strip("'\"") if argument.annotation else ""
        sections = [name for name in SECTIONS if kind == f"{name.rsplit('.', 1)[-1].title().replace('_', '')}Config"]
        names.update((argument.arg, section) for section in sections)
    reads = [node for node in ast.walk(scope) if isinstance(node, ast.Attribute)]
    return {_dotted(node, names) for node in reads} & {*keys_of(Config), *inert_keys()}


def test_a_key_with_an_effect_is_read_and_none_without_one():
    read = keys_read() | READ_WHILE_LOADING
    assert [key for key in keys_of(Config) if key not in read] == []
    assert [key for key in inert_keys() if key in keys_read()] == []


def test_base_sets_every_key_and_no_inert_one():
    found = flat(yaml.safe_load((POOL / "base.yaml").read_text(encoding="utf-8")))
    assert list(found) == list(keys_of(Config))
    assert not set(found) & set(inert_keys())


def test_ignored_keys_are_no_keys_of_ours():
    ignored = yaml.safe_load((POOL / "ignored_keys.yaml").read_text(encoding="utf-8"))
    assert len(ignored) == len(set(ignored))
    assert not set(ignored) & (set(keys_of(Config)) | SECTIONS | set(inert_keys()))


def test_every_key_has_a_line_of_documentation():
    assert all(key.doc and "\n" not in key.doc for key in keys_of(Config).values())
