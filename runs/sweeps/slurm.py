"""Writes a sweep as an sbatch array script: a task a combination, with the logs and markers of a sweep run here."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from runs.sweeps.execute import LAST_LINES, LOCK, LOG, MARKER, marker_text
from runs.sweeps.grid import Combination
from utils.config.layers import REPOSITORY
from utils.errors import ConfigError

_HEAD = """#!/bin/bash
#SBATCH --job-name={job}
#SBATCH --array=0-{last}{limit}
#SBATCH --output={log}
# What your cluster wants: take away one # and fill in.
##SBATCH --partition=NAME
##SBATCH --time=24:00:00
##SBATCH --gpus=1
##SBATCH --cpus-per-task=8
##SBATCH --mem=32G
set -euo pipefail
cd {checkout}

case "${{SLURM_ARRAY_TASK_ID:?is not set: submit this file with sbatch}}" in
"""

_TASK = """{number})
  directory={directory}
  sha256={sha256}
  marker={marker}
  command=({command})
  ;;
"""

_TAIL = """*)
  echo "no combination ${{SLURM_ARRAY_TASK_ID}}: the array is 0 to {last}" >&2
  exit 2
  ;;
esac

mkdir -p -- "$directory"
cd -- "$directory"
if [[ -f results.json && -f {done} ]] && grep -qF -- "\\"$sha256\\"" {done}; then
  echo "done before: $directory"
  exit 0
fi
exec 9>>{lock}
flock --nonblock 9 || {{ echo "another process is running $directory" >&2; exit 1; }}
rm -f {done}
cd {checkout}
status=0
"${{command[@]}}" >>"$directory"/{log} 2>&1 || status=$?
if [[ $status -ne 0 ]]; then
  echo "failed with exit status $status: $directory" >&2
  tail -n {lines} -- "$directory"/{log} >&2
  exit "$status"
fi
printf '%s\\n' "$marker" >"$directory"/.{done}.tmp
mv -- "$directory"/.{done}.tmp "$directory"/{done}
echo "done: $directory"
"""


def script(combinations: Sequence[Combination], out: Path, jobs: int | None) -> str:
    """Return the text of the script.

    Args:
        jobs: most tasks at once.

    Raises:
        ConfigError: an `out` that an #SBATCH line cannot name.
    """
    out = out.resolve()
    if any(letter in str(out) for letter in "\n\r"):
        raise ConfigError([f"--out: {str(out)!r}: a line break cannot stand in an #SBATCH line; choose another name"])
    last = len(combinations) - 1
    checkout = shlex.quote(str(REPOSITORY))
    log = str(out).replace("%", "%%") + "/slurm_%a.log"
    head = _HEAD.format(job=shlex.quote(out.name), last=last, limit=f"%{jobs}" if jobs else "", checkout=checkout,
                        log=shlex.quote(log))
    tasks = [_TASK.format(number=number, directory=shlex.quote(str(one.directory.resolve())), sha256=one.config_sha256,
                          marker=shlex.quote(marker_text(one)), command=shlex.join(one.command(absolute=True)))
             for number, one in enumerate(combinations)]
    return head + "".join(tasks) + _TAIL.format(last=last, done=MARKER, lock=LOCK, log=LOG, lines=LAST_LINES,
                                                checkout=checkout)
