"""What recognises someone's own clips starts in little more time than torch: what is heavy comes when it is used."""

import subprocess
import sys

from tests.conftest import REPOSITORY

LIGHT = "models.builder, datasets.decoding, datasets.transforms, datasets.frame_sampling, datasets.streaming"
HEAVY = ("open_clip", "timm", "huggingface_hub", "torchvision", "torch._dynamo", "scipy.stats", "decord", "torchcodec")


def test_nothing_heavy_is_imported_before_it_is_used():
    """A test of time would fail on a busy machine; that these are away is what makes it fast."""
    code = (f"import sys; import {LIGHT}; print([name for name in {HEAVY} if name in sys.modules]); "
            "from utils.config import load_config; cfg = load_config('configs/projects/demo/CLIPFSAR_Demo_1shot.yaml');"
            "models.builder.build_head(cfg); print([name for name in ('open_clip', 'decord') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "['open_clip']"], "imported at once: " + done.stdout
