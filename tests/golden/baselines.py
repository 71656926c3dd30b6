"""Replays what the public code's baseline heads computed (baselines_*.npz), in float64 and in float32.

Every case is replayed by its own options, so other ways, shots, frames, towers and case names work, too. Values are
compared with max(1, |reference|) as the scale. In float64 they must agree to what the file stores; the tolerances of
float32 are those of rounding in convolutions, whose order differs between machines.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from models.encoders.base import Encoder
from models.heads import HEADS
from models.heads.base import Features, Head, Setting
from models.layers.alignment import mean_hausdorff, otam_distance
from utils.config.fields import keys_of
from utils.config.layers import POOL
from utils.config.options import head_options
from utils.episode import Episode

Row = tuple[str, str, float, float]  # case, quantity, difference, tolerance
SHAPE = {"head", "mode", "way", "shot", "query_per_class", "num_input_frames", "image_size", "unlabelled_per_class",
         "weights", "BATCH_SIZE"}
WIDTHS = {"CNN_TRX": ("OUT_DIM", "trx_out_dim"), "CNN_CrossTransformer": ("HIDDEN_DIM", "crosstransformer_hidden_dim")}
SINGLE = {"logits": 6e-6, "loss": 6e-6, "class_logits": 2e-5, "stage": 1e-4, "grad": 1e-4, "after": 1e-4}
DOUBLE = {"logits": 1e-12, "loss": 1e-12, "class_logits": 1e-12, "stage": 2e-7, "grad": 2e-7, "after": 2e-7}
MOLO_GRADIENT = 5e-3  # in float32 some values change sign before the decoder's ReLUs
LOSSES = {"few_shot": "loss_few", "classification": "loss_class"}


def difference(found: Any, reference: Any) -> float:
    """Largest |found - reference| / max(1, |reference|); infinite where shapes or finiteness differ."""
    found, reference = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    if found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.max(np.abs(found - reference) / np.maximum(1, np.abs(reference)), initial=0.0))


@cache
def published_options() -> dict[str, Any]:
    """What the protocol of the published code says of heads' options."""
    layer = yaml.safe_load((POOL / "protocol" / "upstream.yaml").read_text())
    return {**layer["TRAIN"], **layer["VIDEO"]["HEAD"]["OPTIONS"]}


def tower_of(plan: Mapping[str, Any], pooled: bool) -> tuple[nn.Module, int]:
    """A file's ResNet, under the published names, and its width."""
    width, expansion = plan["width"], plan["expansion"]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                               nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for stage, blocks in enumerate(plan["blocks"]):
        planes, stride = width * 2 ** stage, 1 if stage == 0 else 2
        own = []
        for block in range(blocks):
            step = stride if block == 0 else 1
            shortcut = None if step == 1 and inputs == planes * expansion else nn.Sequential(
                nn.Conv2d(inputs, planes * expansion, 1, step, bias=False), nn.BatchNorm2d(planes * expansion))
            own.append(Bottleneck(inputs, planes, step, shortcut))
            inputs = planes * expansion
        layers.append(nn.Sequential(*own))
    return nn.Sequential(*layers, *([nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pooled else [])), inputs


def case_head(data: Any, options: Mapping[str, Any]) -> Head:
    """A case's head with its options and the file's weights."""
    plan, kind = json.loads(str(data["tower"])), HEADS[options["head"]]
    known = SHAPE.union(*(keys_of(HEADS[one].Options) for one in HEADS))
    if unknown := set(options) - known:
        raise SystemExit(f"{options['head']}: unknown options {sorted(unknown)}")
    own = {**published_options(), **{name: value for name, value in options.items() if name not in SHAPE}}
    if options["head"] in WIDTHS:
        option, width = WIDTHS[options["head"]]
        own[option] = plan[width]
    own = {name: value for name, value in own.items() if name in keys_of(kind.Options)}
    tower, dim = tower_of(plan, kind.tower_output == "vector")
    encoder = Encoder(tower, dim, None, None, "random", "none")
    setting = Setting(options["num_input_frames"], loss_divisor=options["BATCH_SIZE"])
    head = kind(encoder, setting, head_options(kind.Options, own))
    prefix = f"weights_{options['weights']}/"
    stored = {k.removeprefix(prefix): torch.from_numpy(np.array(data[k])) for k in data.files if k.startswith(prefix)}
    expected = head.state_dict()
    state = {name: stored.get(name.replace("query_head", "key_head"), value) for name, value in expected.items()
             if not name.endswith("pe.pe")}
    if missing := [n for n in state if n.replace("query_head", "key_head") not in stored and "tuples" not in n]:
        raise SystemExit(f"{options['head']}: the file lacks {missing}")
    head.load_state_dict(state, strict=False)
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return head.train(options["mode"] == "train")


def case_episode(data: Any, case: str, frames: int, kind: torch.dtype) -> Episode:
    """The episode of a case, with its unlabelled clips if it has any."""
    def labels(name: str) -> Tensor:
        return torch.from_numpy(np.array(data[f"{case}/in/{name}"])).long()

    def clips(name: str) -> Tensor:
        flat = torch.from_numpy(np.array(data[f"{case}/in/{name}_x16"])).to(kind) / 16
        return flat.reshape(-1, frames, *flat.shape[1:])

    support, real = labels("support_labels"), labels("real_support_labels")
    classes = torch.stack([real[support == k][0] for k in range(int(support.max()) + 1)])
    weakly = clips("target_set_weakly") if f"{case}/in/target_set_weakly_x16" in data.files else None
    return Episode(clips("support_set"), support, real, clips("target_set"), labels("target_labels"),
                   labels("real_target_labels"), classes, unlabelled_UTCHW=weakly)


def _gradients(data: Any, case: str, head: Head, single: bool, tolerance: float) -> Iterator[Row]:
    """Gradients by the tensor's largest entry in float32, entry by entry in float64."""
    found = {name: p.grad for name, p in head.named_parameters()}
    for what in ("grad", "gradnorm"):
        prefix, worst = f"{case}/{what}/", 0.0
        names = [k.removeprefix(prefix) for k in data.files if k.startswith(prefix)]
        for name in names:
            own, reference = found[name], np.asarray(data[prefix + name], np.float64)
            if own is None:
                worst = float("inf")
                continue
            own = np.asarray(own.norm() if what == "gradnorm" else own, np.float64)
            scale = max(1e-3, float(np.abs(reference).max())) if single else np.maximum(1, np.abs(reference))
            worst = max(worst, float(np.max(np.abs(own - reference) / scale)))
        extra = [n for n, g in found.items() if g is not None and g.abs().sum() and what == "gradnorm"
                 and n not in names]
        yield case, f"{what} ({len(names)})", worst if not extra else float("inf"), tolerance


def _losses(data: Any, case: str, options: Mapping[str, Any], head: Head, output: Any, episode: Episode
            ) -> tuple[dict[str, Tensor], Tensor]:
    """Bare losses by their names in the file, and the total of which gradients are."""
    aux, labels = output.aux, episode.query_labels_M
    found = {"loss_few": F.cross_entropy(output.logits_MK, labels)}
    if "temporal" in aux:
        found["loss_temporal_regular"] = aux["temporal"]
    found |= {f"loss_{name.removeprefix('logits_')}": F.cross_entropy(value, labels)
              for name, value in aux.items() if name.startswith("logits_")}
    if "error" in aux:
        found["loss_recons"] = aux["error"]
    total = head.losses(output, episode) if head.training else {}
    if "classification" in total:
        found["loss_class"] = total["classification"] * options["BATCH_SIZE"] / options["USE_CLASSIFICATION_VALUE"]
    return found, sum(total.values(), torch.zeros(()))


def _unused_contrast(head: Head, episode: Episode, encoded: Mapping[Any, Features]) -> dict[str, Tensor]:
    """MoLo's long-short logits where the loss has none: unscaled and transposed, as published; the head makes none."""
    batch = head.batch_of(episode, None, {role: head.clip_features(one) for role, one in encoded.items()})
    return {f"{name}{ending}": logits.T for kind, ending in (("frames", ""), ("motion", "_motion"))
            for name, logits in head.contrast(batch.query[kind][0], batch.prototypes(kind)[0], 1.0).items()}


def _not_computed(data: Any, case: str, found: set[str]) -> Iterator[Row]:
    kinds = tuple(f"{case}/{kind}" for kind in ("logits", "class_logits", "loss_"))
    for name in sorted({k.removeprefix(f"{case}/") for k in data.files if k.startswith(kinds)} - found):
        yield case, f"{name}: not computed", float("inf"), 0.0


def _after(data: Any, case: str, options: Mapping[str, Any], head: Head, single: bool) -> Iterator[Row]:
    """What a step leaves: gradients and running statistics."""
    tolerance = SINGLE if single else DOUBLE
    yield from _gradients(data, case, head, single,
                          MOLO_GRADIENT if single and "MoLo" in options["head"] else tolerance["grad"])
    state = head.state_dict()
    for name in [k for k in data.files if k.startswith(f"{case}/after/")]:
        short = name.removeprefix(f"{case}/after/")
        yield case, short, difference(state[short], data[name]), tolerance["after"]


def _case_rows(data: Any, case: str, kind: torch.dtype) -> Iterator[Row]:
    options = json.loads(str(data[f"{case}/options"]))
    single, shown = kind == torch.float32, case + (" (float32)" if kind == torch.float32 else "")
    tolerance = SINGLE if single else DOUBLE
    head = case_head(data, options).to(kind)
    episode = case_episode(data, case, options["num_input_frames"], kind)
    with torch.set_grad_enabled(head.training):
        encoded = {role: head.encode(clips) for role, clips in episode.clips.items()}
        output = head.output(episode, encoded, None)
        losses, total = _losses(data, case, options, head, output, episode)
    if f"{case}/loss_recons" in data.files and "loss_recons" not in losses and head.training:
        changes = torch.cat([encoded[role]["changes"] for role in ("support", "query")])
        losses["loss_recons"] = head.reconstruction(episode, changes)
    values = {"logits": output.logits_MK, **losses}
    values |= {name: value for name, value in output.aux.items() if "logits" in name}
    if f"{case}/logits_s2q" in data.files and "logits_s2q" not in values:
        values |= _unused_contrast(head, episode, encoded)
    for name, value in values.items():
        if f"{case}/{name}" in data.files:
            kind_of = "class_logits" if name == "class_logits" else "loss" if name.startswith("loss") else "logits"
            yield shown, name, difference(value.detach(), data[f"{case}/{name}"]), tolerance[kind_of]
    yield from _not_computed(data, case, set(values))
    for role, name in (("support", "support"), ("query", "target"), ("unlabelled", "target_weakly")):
        key = f"{case}/stage/backbone_{name}"
        if key in data.files:
            found = encoded[role]["frames"].detach().flatten(0, 1)
            yield shown, f"tower of {role}", difference(found, data[key]), tolerance["stage"]
    if head.training:
        total.backward()
        yield shown, "loss", difference(total.detach(), data[f"{case}/loss"]), tolerance["loss"]
        for _, *rest in _after(data, case, options, head, single):
            yield (shown, *rest)


def head_rows(data: Any) -> Iterator[Row]:
    """Every case of a file of baseline heads."""
    for case in [k.removesuffix("/options") for k in data.files if k.endswith("/options")]:
        for kind in (torch.float64, torch.float32):
            yield from _case_rows(data, case, kind)


def metric_rows(data: Any) -> Iterator[Row]:
    """Distances of frame sequences: OTAM in both directions, Bi-MHM in both and in one, with their gradients."""
    for case in [k.removesuffix("/dists") for k in data.files if k.endswith("/dists")]:
        costs = torch.from_numpy(np.array(data[f"{case}/dists"])).double().requires_grad_()
        otam = case.startswith("otam")
        found = otam_distance(costs, smoothing=0.1) if otam else mean_hausdorff(costs)
        (found * torch.from_numpy(np.array(data[f"{case}/w"]))).sum().backward()
        yield case, "distance", difference(found.detach(), data[f"{case}/{'cum' if otam else 'both'}"]), 1e-12
        yield case, "gradient", difference(costs.grad, data[f"{case}/grad"]), 1e-6
        if not otam:
            single = mean_hausdorff(costs.detach(), single_direction=True)
            yield case, "one direction", difference(single, data[f"{case}/single"]), 1e-12
