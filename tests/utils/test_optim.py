"""What the settings of an optimizer become."""

import pytest
from torch import nn

from runs.training.setup import optimizer_of
from utils.config import load_config
from utils.config.layers import REPOSITORY
from utils.schedule import Schedule


class Model(nn.Module):
    """A model whose head has no groups of its own."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.head.parameter_groups = lambda: None


@pytest.mark.parametrize("method", ["adam", "adamw"])
def test_eps_reaches_the_optimizer(method):
    path = REPOSITORY / "configs" / "projects" / "demo" / "MeanPool_Demo_1shot.yaml"
    for pairs, eps in (([], 1e-8), (["OPTIMIZER.EPS", "1e-6"], 1e-6)):
        cfg = load_config(path, ["OPTIMIZER.OPTIM_METHOD", method, *pairs])
        assert {group["eps"] for group in optimizer_of(cfg, Model()).param_groups} == {eps}


def test_the_late_cosine_is_that_of_the_iteration_before():
    early, late = (Schedule(2e-4, 1000, (0,), (1,), 0, 0, policy, 10, double=False)
                   for policy in ("cosine", "cosine_late"))
    assert late(0) == early(0) == 2e-4
    assert [late(i) for i in (1, 2, 9999)] == [early(i) for i in (0, 1, 9998)] != [early(i) for i in (1, 2, 9999)]
