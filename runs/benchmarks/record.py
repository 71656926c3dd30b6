"""Reads and writes the JSON of a suite's run: machine, versions, settings, every repeat of every row."""

import datetime
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs.benchmarks.hardware import machine
from runs.benchmarks.rows import Row
from runs.reporting.run_record import git_commit, versions
from utils.errors import BenchmarkError
from utils.json_files import write_json

FORMAT, VERSION = "clip-fsar-benchmarks", 1


@dataclass(frozen=True, slots=True)
class Finding:
    """Holds what one benchmark found: its settings, its rows, the seconds it took."""

    settings: dict[str, Any]
    rows: list[Row]
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return it as it stands in the JSON."""
        return {"settings": self.settings, "seconds": round(self.seconds, 1), "rows": [r.record() for r in self.rows]}


@dataclass(frozen=True, slots=True)
class Record:
    """Holds a run of the suite.

    Args:
        machine, versions: where and with what; see hardware.machine, results.versions.
        git_commit: None outside a repository.
        findings: by benchmark. failed: why others gave none.
        created: time of the start. command: what was typed.
    """

    machine: dict[str, Any]
    versions: dict[str, str]
    git_commit: str | None
    findings: dict[str, Finding] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    created: str = ""
    command: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Yield (benchmark, row), in order."""
        for name, finding in self.findings.items():
            for row in finding.rows:
                yield name, row


def new_record() -> Record:
    """Return a record of this machine, now, without findings."""
    return Record(machine(), versions(), git_commit(), created=datetime.datetime.now().isoformat(timespec="seconds"),
                  command=list(sys.argv))


def write_record(path: Path, record: Record) -> None:
    """Write the JSON, never half of it. Raises BenchmarkError."""
    content = {"format": FORMAT, "version": VERSION, "created": record.created, "command": record.command,
               "machine": record.machine, "versions": record.versions, "git_commit": record.git_commit,
               "benchmarks": {name: finding.record() for name, finding in record.findings.items()},
               "failed": record.failed}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Raise BenchmarkError where no file can be written there, before minutes of measuring."""
    if path.is_dir():
        raise BenchmarkError(f"{path}: cannot be written: expected the name of a file, found a directory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:50]}."):
            pass
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_record(path: Path) -> Record:
    """Read a run of the suite.

    Raises BenchmarkError: a file that cannot be read, is not one of the suite's, of another version, or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BenchmarkError(f"{path}: expected the JSON of runs/benchmarks/run.py, found no JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BenchmarkError(f"{path}: expected the JSON of runs/benchmarks/run.py, found another file (its format is "
                             f"not {FORMAT!r})")
    if content.get("version") != VERSION:
        raise BenchmarkError(f"{path}: expected version {VERSION} of the format, found {content.get('version')!r}: "
                             "measure anew with this checkout, or compare with the one that wrote it")
    try:
        return _record(content)
    except BenchmarkError as error:
        raise BenchmarkError(f"{path}: damaged: {error}") from error


KINDS = {dict: "an object", list: "a list", str: "a text", (int, float): "a number",
         (str, type(None)): "a text or null"}


def _part(content: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str = "") -> Any:
    """Return content[key], which is to be of one of KINDS. Raises BenchmarkError that names the part."""
    if key not in content:
        raise BenchmarkError(f"no {where + key!r}")
    return _of(content[key], kind, where + key)


def _of(value: Any, kind: type | tuple[type, ...], where: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        found = repr(value)
        raise BenchmarkError(f"{where}: expected {KINDS[kind]}, found "
                             f"{found if len(found) <= 60 else found[:57] + '...'}")
    return value


def _row(row: Any, where: str) -> Row:
    _of(row, dict, where)
    name, unit, better = (_part(row, key, str, f"{where}.") for key in ("name", "unit", "better"))
    values = _part(row, "values", list, f"{where}.")
    try:
        return Row(name, unit, values, better)
    except BenchmarkError as error:
        raise BenchmarkError(f"{where}: {error}") from error


def _finding(found: Any, where: str) -> Finding:
    _of(found, dict, where)
    rows = [_row(row, f"{where}.rows[{n}]") for n, row in enumerate(_part(found, "rows", list, f"{where}."))]
    return Finding(_part(found, "settings", dict, f"{where}."), rows,
                   float(_part(found, "seconds", (int, float), f"{where}.")))


def _record(content: Mapping[str, Any]) -> Record:
    findings = {name: _finding(found, f"benchmarks.{name}")
                for name, found in _part(content, "benchmarks", dict).items()}
    failed = _part(content, "failed", dict)
    for name in failed:
        _part(failed, name, str, "failed.")
    return Record(_part(content, "machine", dict), _part(content, "versions", dict),
                  _part(content, "git_commit", (str, type(None))), findings, failed, _part(content, "created", str),
                  _part(content, "command", list))
