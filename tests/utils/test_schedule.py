"""Learning rates worked out by hand; the published ones are in the golden files."""

import pytest

from utils.schedule import Schedule


@pytest.mark.parametrize("settings", [
    {"policy": "cosine", "steps": (), "factors": (), "end": 10.0},  # half-way through the cosine: half of the rate
    {"steps": (0.0, 5.0), "factors": (1.0, 0.5)},
])
def test_the_warm_up_rises_to_the_rate_that_follows_it(settings):
    """The policy has already halved the rate, 2, where the warm-up ends: it must rise to 1 and not to 2."""
    rate = Schedule(base_lr=2.0, steps_iter=1, warmup=5.0, warmup_start_lr=0.0, double=False, **settings)
    assert [rate(i) for i in range(6)] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
