"""The pages that lead in (*.md) and the examples of --help: commands are understood, links lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from runs import clip_fsar
from tests.conftest import REPOSITORY
from utils.config import resolve_config

PAGES = [path for path in sorted(REPOSITORY.rglob("*.md")) if not {".venv", "output", "data"} & set(path.parts)]
DEMO = "configs/projects/demo/CLIPFSAR_Demo_1shot.yaml"
SCRIPTS = {f"{clip_fsar.load(name).__name__.replace('.', '/')}.py": [name] for name in clip_fsar.COMMANDS}
SCRIPTS["runs/benchmarks/gpu.py"] = ["benchmark", "gpu"]
PLACEHOLDERS = ("runs/COMMAND.py", "/abs/")  # what a reader is to replace


def _lines(text: str) -> Iterator[str]:
    """The commands in a text: without comments and the brackets of what may be left out, and with a shell's variables
    in their places."""
    variables: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if found := re.fullmatch(r"\s*(\w+)=(\S+)\s*(#.*)?", line):
            variables[found[1]] = found[2]
        line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), line)
        if line.strip().startswith("python runs/"):
            yield re.sub(r"[\[\]](?=-|$|\s)", "", re.sub(r"\s#.*", "", line)).strip()


def commands() -> list[tuple[str, str]]:
    """(where it stands, command) of every command that starts with `python runs/`."""
    found = [(str(page.relative_to(REPOSITORY)), line) for page in PAGES
             for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL) for line in _lines(block)]
    for name, (_, example) in clip_fsar.COMMANDS.items():
        module = clip_fsar.load(name)
        examples = [example, getattr(module, "EXAMPLES", "").replace("example: ", "example:\n"),
                    *(one for _, one in getattr(module, "COMMANDS", {}).values())]
        found += [(f"--help of {name}", line) for text in examples for line in _lines(text)]
    return found


COMMANDS = commands()


def test_there_are_commands_to_try():
    assert {where for where, _ in COMMANDS} >= {"README.md", "datasets/README.md", "--help of sweep"}
    assert {shlex.split(line)[1] for _, line in COMMANDS} == set(SCRIPTS)


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=[f"{where}: {line}" for where, line in COMMANDS])
def test_a_command_is_understood(where, line, capsys):
    """Its options are those of the command, its file is there, its settings are keys that take these values."""
    _, script, *arguments = shlex.split(line)
    try:
        _, parsed = clip_fsar.read([*SCRIPTS[script], *arguments])
    except SystemExit as end:
        assert end.code == 0, f"{where}: {line}: {capsys.readouterr().err}"  # --help
        return
    files, overrides = getattr(parsed, "cfg", None) or [], getattr(parsed, "overrides", None) or []
    files = [Path(files)] if isinstance(files, (str, Path)) else files
    for file in (one for path in files for one in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])):
        named = "/" in str(file)  # X.yaml stands for anybody's
        if (named or overrides) and PLACEHOLDERS[1] not in line:
            resolve_config(REPOSITORY / (file if named else DEMO), overrides)


def test_settings_are_shown_as_the_page_says(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    shown = [line for _, line in COMMANDS if "--print-config" in line]
    assert shown
    for line in shown:
        _, script, *arguments = shlex.split(line)
        assert clip_fsar.main([*SCRIPTS[script], *arguments]) == 0
        assert "WAY: 5" in capsys.readouterr().out


def test_links_and_names_lead_to_files():
    lost = []
    for page in PAGES:
        text = page.read_text()
        links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
        lost += [f"{page}: {link}" for link in links if not (page.parent / link).exists()]
        names = re.findall(r"(?:configs|runs|models|tests|datasets|utils)/[\w/.]+\.(?:py|yaml)\b", text)
        lost += [f"{page}: {name}" for name in {*names} - {*PLACEHOLDERS}
                 if not (REPOSITORY / name).is_file() and not (page.parent / name).is_file()]
    assert lost == []


def test_targets_of_make_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    asked = {name for page in PAGES for name in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", page.read_text(),
                                                           re.MULTILINE) for name in name if name}
    assert {"demo", "test"} <= asked <= targets


def test_the_method_shown_is_the_file():
    assert f"```python\n{(REPOSITORY / 'models/heads/mean_pool.py').read_text()}```" in (
        REPOSITORY / "models/README.md").read_text()
