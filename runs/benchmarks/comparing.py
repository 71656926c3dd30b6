"""Compares two runs of the suite row by row: what changed by more than a threshold and than the repeats differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runs.benchmarks.record import Record
from runs.benchmarks.rows import LOWER, NEITHER, Row, markdown, short, spread

WORSE, BETTER, NOISE, SAME = "WORSE", "better", "within noise", ""
OTHER_MACHINE, OTHER_SETTINGS, UNJUDGED = "other machine", "other settings", "not judged"
OLD_ONLY, NEW_ONLY, CHANGED_KIND = "only in old", "only in new", "other unit"
EFFORT = ("repeats", "rounds", "turns", "least")  # settings that say how long was measured, not what
THRESHOLD = 5.0  # percent


@dataclass(frozen=True, slots=True)
class Change:
    """Says how a row differs between two runs.

    Args:
        benchmark, name: which row. old, new: None where a run lacks it.
        percent: of the figure, from old to new; None where it cannot be told.
        verdict: WORSE or better (more than the threshold, and outside the spread of both runs); within noise (more than
            the threshold, inside the spread of one of them); empty: less; else why it is not judged.
    """

    benchmark: str
    name: str
    old: Row | None
    new: Row | None
    percent: float | None
    verdict: str


def _outside(old: Row, new: Row) -> bool:
    """Tell whether each run's figure lies outside the least to the most of the other's repeats."""
    return not (min(old.values) <= new.figure <= max(old.values) or min(new.values) <= old.figure <= max(new.values))


def _judged(old: Row, new: Row, percent: float | None, threshold: float) -> str:
    """Return the verdict on two rows that may be compared."""
    if NEITHER in (old.better, new.better) or percent is None:
        return UNJUDGED
    if abs(percent) <= threshold:
        return SAME
    if not _outside(old, new):
        return NOISE
    return WORSE if (percent > 0) == (new.better == LOWER) else BETTER


def is_judged(change: Change) -> bool:
    """Tell whether both runs have the row, and it may be compared."""
    return change.verdict in (WORSE, BETTER, NOISE, SAME)


def same_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether two runs of a benchmark measured the same thing, for however long."""
    return all(old.get(name) == new.get(name) for name in {*old, *new} - set(EFFORT))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return 'name old -> new' of all that differs; empty: nothing."""
    return "; ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in sorted({*old, *new})
                     if old.get(name) != new.get(name))


def changes(old: Record, new: Record, threshold: float = THRESHOLD) -> Iterator[Change]:
    """Yield every row of either run, but for benchmarks that the new one did not run."""
    before, after = ({(name, row.name): row for name, row in record.rows()} for record in (old, new))
    same_machine = old.machine == new.machine
    for key in {**after, **before}:
        benchmark, a, b = key[0], before.get(key), after.get(key)
        if benchmark not in new.findings:
            continue
        if a is None or b is None:
            yield Change(*key, a, b, None, NEW_ONLY if a is None else OLD_ONLY)
            continue
        percent = 100 * (b.figure / a.figure - 1) if a.figure > 0 else None
        if a.unit != b.unit:
            percent, verdict = None, CHANGED_KIND
        elif not same_settings(old.findings[benchmark].settings, new.findings[benchmark].settings):
            verdict = OTHER_SETTINGS
        elif not (same_machine or b.relative or NEITHER in (a.better, b.better)):
            verdict = OTHER_MACHINE
        else:
            verdict = _judged(a, b, percent, threshold)
        yield Change(*key, a, b, percent, verdict)


def _cells(change: Change) -> tuple[str, ...]:
    figures = [short(row.figure) if row else "-" for row in (change.old, change.new)]
    unit = next(row.unit for row in (change.new, change.old) if row)
    percent = "-" if change.percent is None else f"{change.percent:+.1f} %"
    spreads = [spread(row) if row else "-" for row in (change.old, change.new)]
    return change.benchmark, change.name, *figures, unit, percent, change.verdict, *spreads


def _notices(old: Record, new: Record) -> list[str]:
    """Return what must be known before the figures are read."""
    found = []
    if machines := differences(old.machine, new.machine):
        found.append(f"Other machine ({machines}): absolute figures are not comparable and not judged, ratios are.")
    if packages := differences(old.versions, new.versions):
        found.append(f"Other versions ({packages}): a change may come from them.")
    if old.git_commit != new.git_commit:
        found.append(f"Commits: {old.git_commit or 'unknown'} -> {new.git_commit or 'unknown'}.")
    for name in [name for name in new.findings if name in old.findings]:
        settings = [record.findings[name].settings for record in (old, new)]
        if not same_settings(*settings):
            found.append(f"{name}: other settings ({differences(*settings)}): not judged.")
    missing = [name for name in old.findings if name not in new.findings]
    if missing:
        found.append(f"Not in the new run: {', '.join(missing)}.")
    return found


def in_words(old: Record, new: Record, found: list[Change], threshold: float = THRESHOLD) -> str:
    """Return the table, the notices and a summary line as text."""
    columns = ("benchmark", "what", "old", "new", "unit", "change", "flag", "old spread", "new spread")
    count = {verdict: sum(change.verdict == verdict for change in found) for verdict in
             (WORSE, BETTER, NOISE, OTHER_MACHINE, OTHER_SETTINGS, OLD_ONLY, NEW_ONLY)}
    judged = sum(map(is_judged, found))
    single = any(len(row.values) == 1 for change in found if change.verdict in (WORSE, BETTER)
                 for row in (change.old, change.new) if row)
    beyond = f"more than {threshold:g} %"
    summary = (f"{judged} of {len(found)} rows judged: {count[WORSE]} worse and {count[BETTER]} better by {beyond} and "
               f"outside the spread of the repeats; {count[NOISE]} changed by {beyond} within it. Not comparable: "
               f"{count[OTHER_MACHINE]} (other machine), {count[OTHER_SETTINGS]} (other settings); missing in old "
               f"{count[NEW_ONLY]}, in new {count[OLD_ONLY]}.")
    if single:
        summary += " Where a row has one value, no spread is known: measure again before believing its flag."
    return "\n".join([markdown(map(_cells, found), columns), *_notices(old, new), summary]) + "\n"
