"""The JSON of a suite's run: machine, versions, settings, every repeat of every row."""

import datetime
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs.benchmarks.hardware import machine
from runs.benchmarks.rows import Row
from runs.results import git_commit, versions, write_json
from utils.errors import BenchmarkError

FORMAT, VERSION = "clip-fsar-benchmarks", 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One benchmark: its settings, its rows, the seconds it took."""

    settings: dict[str, Any]
    rows: list[Row]
    seconds: float

    def record(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return {"settings": self.settings, "seconds": round(self.seconds, 1), "rows": [r.record() for r in self.rows]}


@dataclass(frozen=True, slots=True)
class Record:
    """A run of the suite.

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
        """(benchmark, row), in order."""
        for name, finding in self.findings.items():
            for row in finding.rows:
                yield name, row


def new_record() -> Record:
    """Of this machine, now, without findings."""
    return Record(machine(), versions(), git_commit(), created=datetime.datetime.now().isoformat(timespec="seconds"),
                  command=list(sys.argv))


def write_record(path: Path, record: Record) -> None:
    """Write the JSON; never half of it. Raises BenchmarkError."""
    content = {"format": FORMAT, "version": VERSION, "created": record.created, "command": record.command,
               "machine": record.machine, "versions": record.versions, "git_commit": record.git_commit,
               "benchmarks": {name: finding.record() for name, finding in record.findings.items()},
               "failed": record.failed}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_record(path: Path) -> Record:
    """A run of the suite.

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
    except (KeyError, TypeError, ValueError, AttributeError, BenchmarkError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise BenchmarkError(f"{path}: damaged: {what}") from error


def _record(content: Mapping[str, Any]) -> Record:
    findings = {}
    for name, found in content["benchmarks"].items():
        rows = [Row(row["name"], row["unit"], row["values"], row["better"]) for row in found["rows"]]
        findings[name] = Finding(dict(found["settings"]), rows, float(found["seconds"]))
    return Record(dict(content["machine"]), dict(content["versions"]), content["git_commit"], findings,
                  dict(content["failed"]), str(content["created"]), list(content["command"]))
