"""Says how the GPU's benchmark is read: the ways of a step, the goals, and the tables that are printed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runs.benchmarks.gpu_works import GIB, KERNELS, MS, SHARE, TFLOPS
from runs.benchmarks.record import Record
from runs.benchmarks.rows import LOWER, Row, markdown, short, table

PLAIN_STEP = "written plainly, fp32"
PLAIN = {"channels_last": False}
BF16: dict[str, Any] = {"precision": "bf16"}
FULL = {**BF16, "alignment": KERNELS, "compile": True}
WAYS: Mapping[str, Mapping[str, Any]] = {  # changes of StepOptions, whose default is fp32 with channels last
    PLAIN_STEP: {},
    "fp32": PLAIN,
    "fp32, channels last": {},
    "tf32": {**PLAIN, "precision": "tf32"},
    "bf16": {**PLAIN, **BF16},
    "bf16, channels last": BF16,
    "bf16, channels last, Triton": {**BF16, "alignment": KERNELS},
    "bf16, channels last, compiled": {**BF16, "compile": True},
    "bf16, channels last, compiled, Triton": FULL,
    "bf16, channels last, 2 episodes a step": {**BF16, "episodes": 2},
    "bf16, channels last, 4 episodes a step": {**BF16, "episodes": 4},
    "bf16, channels last, compiled, Triton, 4 episodes a step": {**FULL, "episodes": 4},
}
TRIED = (PLAIN_STEP, "tf32", "bf16, channels last, Triton", "bf16, channels last, compiled",
         "bf16, channels last, 2 episodes a step")  # by --quick
AGAINST_PLAIN, OTAM = "times the plain step", "OTAM's share"
ALIGNMENT, FASTEST, STEP = "alignment", "fastest way of a step", "step, "  # names of parts


@dataclass(frozen=True, slots=True)
class Goal:
    """Says what the fastest way of a tower's step is to reach on an H100 or H200."""

    tower: str
    what: str
    unit: str
    limit: float
    at_least: bool = True

    @property
    def wanted(self) -> str:
        """The goal in words."""
        return f"at {'least' if self.at_least else 'most'} {self.limit:g} {self.unit}"

    def verdict(self, figure: float) -> str:
        """Say whether a figure meets the goal."""
        return "met" if (figure >= self.limit if self.at_least else figure <= self.limit) else "not met"


GOALS = (
    Goal("ViT-B/16", SHARE, "%", 45),
    Goal("ViT-B/16", AGAINST_PLAIN, "times", 5),
    Goal("ViT-B/16", OTAM, "%", 1, at_least=False),
    Goal("RN50", AGAINST_PLAIN, "times", 3),
    Goal("RN50", OTAM, "%", 1, at_least=False),
)


def step_part(tower: str) -> str:
    """Return the name of the part that measures a tower's steps."""
    return STEP + tower


def _figures(record: Record, part: str) -> dict[str, dict[str, float]]:
    """Return the figures of a part's works: work to quantity to figure."""
    found: dict[str, dict[str, float]] = {}
    for row in record.findings[part].rows if part in record.findings else ():
        work, _, what = row.name.rpartition(": ")
        found.setdefault(work, {})[what] = row.figure
    return found


def step_figures(record: Record, part: str) -> dict[str, dict[str, float]]:
    """Return the figures of each way of a step, and how many times it is as fast as the plain one."""
    ways = _figures(record, part)
    if PLAIN_STEP in ways:
        for figures in ways.values():
            figures[AGAINST_PLAIN] = ways[PLAIN_STEP][MS] / figures[MS]
    return ways


def fastest_way(record: Record, part: str) -> tuple[str, dict[str, float]]:
    """Return the fastest way of a step but the plain one, and its figures; ("", {}) where none was measured."""
    ways = [(name, figures) for name, figures in step_figures(record, part).items() if name != PLAIN_STEP]
    return min(ways, key=lambda way: way[1][MS], default=("", {}))


def fastest_rows(record: Record) -> list[Row]:
    """Return what the goals speak of: the figures of each tower's fastest way, and the share that OTAM would have of
    it in each of its forms, and in the fastest one."""
    rows = []
    for part in (name for name in record.findings if name.startswith(STEP)):
        tower, (_, figures) = part.removeprefix(STEP), fastest_way(record, part)
        rows += [Row(f"{tower}: {what}", unit, [figures[what]])
                 for what, unit in ((SHARE, "%"), (AGAINST_PLAIN, "times")) if what in figures]
        shares = {f", {form}": 100 * found[MS] / figures[MS] for form, found in _figures(record, ALIGNMENT).items()
                  if figures}
        if shares:
            rows += [Row(f"{tower}: {OTAM}{form}", "%", [share], LOWER)
                     for form, share in {"": min(shares.values()), **shares}.items()]
    return rows


def goal_cells(record: Record) -> Iterator[tuple[str, ...]]:
    """Yield what is wanted, what was measured of the fastest way, whether that is enough, and which way it was."""
    found = _figures(record, FASTEST)
    for goal in GOALS:
        figure = found.get(goal.tower, {}).get(goal.what)
        yield (f"{goal.tower}: {goal.what}", goal.wanted, *(
            ("not measured", "", "") if figure is None else
            (f"{short(figure)} {goal.unit}", goal.verdict(figure), fastest_way(record, step_part(goal.tower))[0])))


def _step_table(record: Record, part: str) -> str:
    """Return the ways of a step as a table, a line a way; one that has no figures says why."""
    columns = {MS: MS, TFLOPS: TFLOPS, SHARE: f"% {SHARE}", AGAINST_PLAIN: AGAINST_PLAIN, GIB: f"{GIB}, GiB"}
    cells = [(name, *(short(figures[what]) if what in figures else "" for what in columns))
             for name, figures in step_figures(record, part).items()]
    return markdown(cells, (part, *columns.values()))


def report(record: Record) -> str:
    """Return a run as tables: each tower's steps, the other parts, what was not measured and why, the goals."""
    steps = [part for part in record.findings if part.startswith(STEP)]
    rest = [(part, row) for part, row in record.rows() if part not in (*steps, FASTEST) or OTAM in row.name]
    failed = [(name, f"not measured: {reason}") for name, reason in record.failed.items()]
    columns = ("goal, on an H100 or H200", "wanted", "measured", "verdict", "fastest way")
    tables = [*(_step_table(record, part) for part in steps), table(rest) if rest else "",
              markdown(failed, ("what", "reason")) if failed else "",
              markdown(goal_cells(record), columns)]
    return "\n".join(one for one in tables if one)
