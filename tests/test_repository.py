"""Rules of the tree: sizes, lint, duplication, direction of imports, and the demo's class names."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from datasets.demo.render import class_names
from tests.conftest import REPOSITORY

CODE = [p for room in ("datasets", "models", "runs", "utils") for p in sorted((REPOSITORY / room).rglob("*.py"))]
ALL = [*CODE, *sorted((REPOSITORY / "tests").rglob("*.py")), REPOSITORY / "setup.py"]
ALLOWED = {"utils": {"utils"}, "datasets": {"datasets", "utils"}, "models": {"models", "utils"},
           "runs": {"runs", "datasets", "models", "utils"}}


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


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
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            wrong += [f"{_name(path)}:{node.lineno} imports {name}" for name in names
                      if name.split(".")[0] in ALLOWED and name.split(".")[0] not in allowed]
    assert wrong == []


def test_no_test_file_is_imported():
    """What two of them need stands in a module beside them, or is a fixture: each can be moved and run alone."""
    found = [f"{_name(path)}: {line.strip()}" for path in ALL for line in path.read_text().splitlines()
             if re.search(r"(from|import) tests[\w.]*[. ]test_", line) and "re.search" not in line]
    assert found == []


@pytest.mark.parametrize("path", [p for p in CODE if p.is_relative_to(REPOSITORY / "runs") and p.parent.name != "runs"],
                         ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_no_room_of_runs_imports_a_command(path):
    commands = {f"runs.{p.stem}" for p in (REPOSITORY / "runs").glob("*.py") if p.stem != "__init__"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [
            node.module or "", *(f"{node.module}.{a.name}" for a in node.names)] if isinstance(
                node, ast.ImportFrom) else []
        assert not commands & set(names), f"{path.name} imports a command"


def test_ruff():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


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


def test_readme_names_files_that_exist():
    text = Path(REPOSITORY / "README.md").read_text()
    for name in re.findall(r"(?:configs|runs|models|tests|datasets)/[\w/.]+\.(?:py|yaml)", text):
        assert (REPOSITORY / name).is_file(), name


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
