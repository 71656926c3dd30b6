"""Rules of the tree: sizes, lint, duplication, direction of imports, and the demo's class names."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from datasets.demo.render import class_names
from models.heads import HEADS
from tests.conftest import REPOSITORY
from tests.models.heads.small import head_of

CODE = [p for room in ("datasets", "models", "runs", "utils") for p in sorted((REPOSITORY / room).rglob("*.py"))]
ALL = [*CODE, *sorted((REPOSITORY / "tests").rglob("*.py")), REPOSITORY / "setup.py"]
ALLOWED = {"utils": {"utils"}, "datasets": {"datasets", "utils"}, "models": {"models", "utils"},
           "runs": {"runs", "datasets", "models", "utils"}}


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _imports(path: Path) -> list[str]:
    """Every module that a file names in an import, and what it takes from one."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def test_sizes():
    long = []
    for path in ALL:
        text = path.read_text()
        if (lines := len(text.splitlines())) >= 300:
            long.append(f"{_name(path)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno - node.lineno + 1 > 50:
                long.append(f"{_name(path)}:{node.lineno} {node.name}: more than 50 lines")
    assert long == []


def test_imports_flow_one_way():
    wrong = []
    for path in CODE:
        allowed = ALLOWED[path.relative_to(REPOSITORY).parts[0]]
        wrong += [f"{_name(path)} imports {name}" for name in _imports(path)
                  if name.split(".")[0] in ALLOWED and name.split(".")[0] not in allowed]
    assert wrong == []


def test_no_test_file_is_imported():
    """What two of them need stands in a module beside them, or is a fixture: each can be moved and run alone."""
    found = [f"{_name(path)}: {line.strip()}" for path in ALL for line in path.read_text().splitlines()
             if re.search(r"(from|import) tests[\w.]*[. ]test_", line) and "re.search" not in line]
    assert found == []


# Rooms of runs/ from the outer to the inner: a room imports those behind it, never one in front, and no command.
ROOMS = ("benchmarks", "sweeps", "session", "training", "own", "preparing", "evaluation", "reporting", "tables")


def test_rooms_of_runs_import_inwards():
    commands, wrong = {p.stem for p in (REPOSITORY / "runs").glob("*.py")}, []
    for path in (p for p in CODE if p.is_relative_to(REPOSITORY / "runs") and p.parent.name != "runs"):
        own = ROOMS.index(path.relative_to(REPOSITORY / "runs").parts[0])
        for name in (name.split(".") for name in _imports(path) if name.startswith("runs.")):
            if name[1] in commands or name[1] in ROOMS[:own]:
                wrong.append(f"{_name(path)} imports {'.'.join(name)}")
    assert wrong == []


def test_runs_names_no_head_no_scoring_no_loss_no_submodule():
    """What runs/ may know of a method stands in models/heads/base.py."""
    heads = [HEADS[name] for name in HEADS]
    made = [head_of(name) for name in HEADS]
    words = {*HEADS, *(kind.__name__ for kind in heads), *(s.name for head in made for s in head.scorings),
             *(name for head in made for name, _ in head.named_children()), "class_logits", "classification"}
    found = [f"{_name(path)}:{number}: {line.strip()}" for path in CODE if path.is_relative_to(REPOSITORY / "runs")
             for number, line in enumerate(path.read_text().splitlines(), start=1)
             if re.search(rf"""["'.]({'|'.join(map(re.escape, words - {"text", "backbone"}))})["'.\[(]""", line)]
    assert found == []


def test_ruff():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_duplication_is_under_three_percent():
    """Lines of the code rooms that pylint finds twice (six lines or more), over all lines."""
    done = subprocess.run(
        [sys.executable, "-m", "pylint", "--disable=all", "--enable=duplicate-code", "--min-similarity-lines=6",
         "--ignore-imports=y", "--ignore-docstrings=y", "--score=n", "datasets", "models", "runs", "utils"],
        cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode in (0, 8), done.stdout + done.stderr
    twice = sum(int(b) - int(a) for a, b in re.findall(r"^==[\w.]+:\[(\d+):(\d+)\]", done.stdout, re.MULTILINE))
    assert twice / sum(len(p.read_text().splitlines()) for p in CODE) < 0.03, done.stdout


def test_demo_class_names_are_the_rendered_ones():
    names = yaml.safe_load((REPOSITORY / "configs/pool/classes/demo.yaml").read_text())["demo"]
    for split in ("train", "val", "test"):
        assert tuple(names[split]) == class_names(split)
    assert len(names["train"]) >= 32 and len(names["val"]) >= 8 and len(names["test"]) >= 12
    assert not set(names["test"]) & set(names["train"] + names["val"])


@pytest.mark.slow
def test_only_editable_installs_are_accepted(tmp_path):
    """`pip install .` stops with the reason; nothing reaches the target."""
    for name in ("setup.py", "pyproject.toml", "datasets", "utils"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target",
                           str(tmp_path / "site"), "."], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "CLIP-FSAR installs in editable mode only: pip install -e ." in done.stdout + done.stderr
    assert not (tmp_path / "site" / "utils").exists()
