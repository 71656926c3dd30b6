"""Replays what the public code of D2ST-Adapter computed (modern_d2st_adapter.npz), in float32, by its own options."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.encoders.base import Encoder
from models.encoders.clip import build_visual
from models.encoders.d2st import STAGES, Adapter
from models.heads import HEADS
from models.heads.base import Head, Setting
from models.heads.d2st_adapter import D2stOptions
from tests.golden.baselines import Row, case_episode, difference
from tests.golden.settings import PROJECTS
from utils.config import load_config
from utils.schedule import Schedule

VALUES, GRADIENTS, RESNET = 2e-5, 2e-4, 1e-4  # tolerances


def weights_of(data: Any, prefix: str) -> dict[str, Tensor]:
    """The arrays below a prefix as tensors."""
    return {k.removeprefix(prefix): torch.from_numpy(np.array(data[k])).float() for k in data.files
            if k.startswith(prefix)}


def d2st_head(data: Any, options: Mapping[str, Any]) -> Head:
    """A case's head with the file's weights."""
    tower = json.loads(str(data[f"{options['tower']}/tower"]))
    visual = build_visual({"embed_dim": tower["width"], "quick_gelu": True, "vision_cfg": {
        "image_size": tower["image"], "layers": tower["layers"], "width": tower["width"],
        "head_width": tower["width"] // tower["heads"], "patch_size": tower["patch"]}})
    state = weights_of(data, f"{options['tower']}/weights/")
    weight = options.get("USE_CLASSIFICATION_VALUE")
    if "classification_layer.weight" in state and weight is None:
        weight = 1.0  # an evaluation, whose class scores are compared, too
    encoder = Encoder(visual, tower["width"], tower["image"], None, "random", "none")
    head = HEADS["D2ST_ADAPTER"](
        encoder, Setting(tower["num_input_frames"], tower["num_class"], options.get("BATCH_SIZE", 1)),
        D2stOptions(ADAPTER_SCALE=tower["adapter_scale"], USE_CLASSIFICATION_VALUE=weight))
    head.load_state_dict({k if k.startswith("classification_layer") else f"backbone.{k}": v for k, v in state.items()})
    return head.train(options["mode"] == "train")


def d2st_rows(data: Any) -> Iterator[Row]:
    """Every case of D2ST-Adapter, the adapters of ResNets, and the learning rates."""
    for case in [k.removesuffix("/options") for k in data.files if k.endswith("/options")]:
        options = json.loads(str(data[f"{case}/options"]))
        head = d2st_head(data, options)
        episode = case_episode(data, case, head.setting.frames, torch.float32)
        with torch.set_grad_enabled(head.training):
            encoded = {role: head.encode(clips) for role, clips in episode.clips.items()}
            output = head.output(episode, encoded, None)
        values = {"logits": output.logits_MK, "query_features": encoded["query"]["frames"], **output.aux}
        if head.training:
            losses = head.losses(output, episode)
            classes = torch.cat([episode.support_classes_N, episode.query_classes_M])
            values |= {"loss_few": F.cross_entropy(output.logits_MK, episode.query_labels_M),
                       "loss": sum(losses.values(), torch.zeros(()))}
            if "class_logits" in output.aux:
                values["loss_class"] = F.cross_entropy(output.aux["class_logits"], classes)
        for name, value in values.items():
            if f"{case}/{name}" in data.files:
                yield case, name, difference(value.detach(), data[f"{case}/{name}"]), VALUES
        if head.training:
            values["loss"].backward()
            yield from _gradients(data, case, head)
    yield from _adapter_rows(data)
    yield from _rate_rows(data)


def _gradients(data: Any, case: str, head: Head) -> Iterator[Row]:
    found = {n.removeprefix("backbone."): p.grad for n, p in head.named_parameters() if p.requires_grad}
    for kind in ("grad", "gradnorm"):
        names = [k.removeprefix(f"{case}/{kind}/") for k in data.files if k.startswith(f"{case}/{kind}/")]
        worst = max((difference(found[n].norm() if kind == "gradnorm" else found[n], data[f"{case}/{kind}/{n}"])
                     for n in names), default=0.0)
        yield case, f"{kind} ({len(names)})", worst, GRADIENTS
        if kind == "gradnorm":
            yield case, "trained parameters", float(set(names) != set(found)), 0.0


def _adapter_rows(data: Any) -> Iterator[Row]:
    for number, (groups, paths) in enumerate(STAGES, start=1):
        case = f"resnet_adapter/stage{number}"
        if f"{case}/out" not in data.files:
            continue
        state = weights_of(data, f"{case}/weights/")
        inner, channels = state["down.weight"].shape[:2]
        adapter = Adapter(channels, inner, groups, paths, convolutional=True)
        adapter.load_state_dict(state)
        x = torch.from_numpy(np.array(data[f"{case}/in_x16"])).float() / 16
        with torch.no_grad():
            out = adapter(x.flatten(2).transpose(1, 2).unsqueeze(0), (x.shape[2], x.shape[3]))
        yield case, "out", difference(out[0].transpose(1, 2).view_as(x), data[f"{case}/out"]), RESNET


def _rate_rows(data: Any) -> Iterator[Row]:
    for key in [k for k in data.files if k.startswith("lr/") and k.endswith("/iteration")]:
        name = key.split("/")[1]
        solver = load_config(next(PROJECTS.glob(f"D2ST/*/D2ST_{name}.yaml"))).SOLVER
        schedule = Schedule(solver.BASE_LR, solver.STEPS_ITER, solver.STEPS, solver.LRS, solver.WARMUP_EPOCHS,
                            solver.WARMUP_START_LR, solver.LR_POLICY, solver.MAX_EPOCH, solver.PROGRESS == "double")
        found = [schedule(int(i)) for i in data[key]]
        yield name, "learning rate", float(np.max(np.abs(found - data[f"lr/{name}/lr"]))), 1e-12
