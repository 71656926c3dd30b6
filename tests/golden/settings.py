"""Replays what the public code's settings mean (baselines_settings.npz): learning rates, parameter groups, tables.

The settings themselves are compared with the project files of their names in tests/utils/test_config_baselines.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.models
from torch import nn

from models.builder import FewShotModel
from models.encoders.base import Encoder
from models.heads import HEADS
from models.heads.base import Setting
from models.layers.relation import Positions, TimeEncoding, temporal_relation
from tests.golden.baselines import Row, difference, metric_rows, published_options
from utils.config import load_config
from utils.config.fields import keys_of
from utils.config.layers import REPOSITORY
from utils.config.options import head_options
from utils.optim import parameter_groups
from utils.schedule import Schedule

PROJECTS = REPOSITORY / "configs" / "projects"
HMDB = {"HyRSM": "HyRSM", "HyRSM_plusplus": "HyRSMplusplus", "BiMHM_MoLo": "MoLo"}  # head's family to its project


def project_file(name: str) -> Path:
    """The project file of a published name."""
    return next(PROJECTS.glob(f"*/*/{name}.yaml"))


def rate_rows(data: Any) -> Iterator[Row]:
    """Learning rates of every setting, through its project file."""
    for key in [k for k in data.files if k.startswith("lr/") and k.endswith("/iteration")]:
        name = key.split("/")[1]
        solver = load_config(project_file(name)).SOLVER
        schedule = Schedule(solver.BASE_LR, solver.STEPS_ITER, solver.STEPS, solver.LRS, solver.WARMUP_EPOCHS,
                            solver.WARMUP_START_LR, solver.LR_POLICY, solver.MAX_EPOCH, solver.PROGRESS == "double")
        found = [schedule(int(i)) for i in data[key]]
        yield name, "learning rate", float(np.max(np.abs(found - data[f"lr/{name}/lr"]))), 1e-12


def full_size(name: str) -> FewShotModel:
    """A head on ResNet-50 without memory, with the options of its HMDB51 1-shot file."""
    kind, own = HEADS[name], {}
    for family, project in HMDB.items():
        if name.removeprefix("CNN_").rsplit("_", 1)[0] == family or name.removeprefix("CNN_") == family:
            own = load_config(project_file(f"{project}_HMDB51_1shot_v1")).VIDEO.HEAD.OPTIONS
    own = {k: v for k, v in {**published_options(), **own}.items() if k in keys_of(kind.Options) and v is not None}
    with torch.device("meta"):
        children = list(torchvision.models.resnet50().children())[:-2]
        tower = nn.Sequential(*children, *([nn.AdaptiveAvgPool2d(1)] if kind.tower_output == "vector" else []))
        encoder = Encoder(tower, 2048, None, None, "random", "none")
        return FewShotModel(kind(encoder, Setting(8), head_options(kind.Options, own)))


def group_rows(data: Any) -> Iterator[Row]:
    """Names, order and weight decay of parameters, state names and shapes, and dropout layers of every head."""
    for key in [k for k in data.files if k.startswith("parameter_groups/")]:
        name, content = key.removeprefix("parameter_groups/"), json.loads(str(data[key]))
        model = full_size(name)
        found = [(g["weight_decay"], g["names"]) for g in parameter_groups(model, weight_decay=1e-3,
                                                                           norm_weight_decay=0.0)]
        expected = [(g["weight_decay"], [n for n in g["parameters"] if ".tuples." not in n]) for g in content["groups"]]
        yield name, "groups", float([(d, set(n)) for d, n in found] != [(d, set(n)) for d, n in expected]), 0.0
        yield name, "order in groups", float(found != expected), 0.0
        shapes = {n: list(v.shape) for n, v in model.state_dict().items()}
        wanted = content["state_dict_shapes"]
        wrong = {n for n in shapes | wanted if shapes.get(n) != wanted.get(n)}
        yield name, "state names and shapes", float(len(wrong)), 0.0
        dropout = {n: m.p for n, m in model.head.named_modules() if isinstance(m, nn.Dropout)}
        yield name, "dropout layers", float(dropout != json.loads(str(data[f"dropout/{name}"]))), 0.0


def table_rows(data: Any) -> Iterator[Row]:
    """Position tables, and the relation of frames in time."""
    def pairs(table: torch.Tensor) -> np.ndarray:
        return table.unflatten(1, (-1, 32, 2))[:, :, 0].numpy()

    for width, every in ((64, False), (2048, True)):
        ending = f"{width}_every_32nd_pair" if every else str(width)
        table = Positions(width, 10.0, 1.0, textbook=False, length=20).pe[0]
        yield "pe/hyrsm", ending, difference(pairs(table) if every else table, data[f"pe/hyrsm/{ending}"]), 1e-7
        ending = ending.replace(str(width), f"{width}_frames8")
        table = TimeEncoding(width, 8).pe[0]
        yield "pe/trx", ending, difference(pairs(table) if every else table, data[f"pe/trx/{ending}"]), 1e-7
    for case in [k.removesuffix("/R") for k in data.files if k.endswith("/R")]:
        frames, window, balance = (float("".join(c for c in part if c.isdigit() or c == "."))
                                   for part in case.removeprefix("temporal/").split("_"))
        relation, near = temporal_relation(int(frames), int(window), balance)
        yield case, "R", difference(relation, data[f"{case}/R"]), 1e-7
        yield case, "L", difference(near, data[f"{case}/L"]), 0.0


def rows(data: Any) -> Iterator[Row]:
    """Everything but the settings themselves."""
    yield from metric_rows(data)
    yield from table_rows(data)
    yield from group_rows(data)
    yield from rate_rows(data)
