"""runs/run.py as a rank of torchrun, where something happens to one of them: see processes.run_until. It fails where
a thread of the exchange outlives it."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[3])

from tests.runs.processes import be_rank  # noqa: E402

if __name__ == "__main__":
    status = be_rank(sys.argv[1:])
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    left = [name for name in threads if "gloo" in name]
    sys.exit(f"threads outlive the rank: {left}" if status == 0 and left else status)
