"""runs/run.py as a rank of torchrun, where something happens to one of them: see processes.run_until."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[3])

from tests.runs.processes import be_rank  # noqa: E402

if __name__ == "__main__":
    sys.exit(be_rank(sys.argv[1:]))
