"""Replays what the public code of D2ST-Adapter and TS-FSAR computed (modern_*.npz), in float32, by its own options."""

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
from models.encoders.side_network import reduced
from models.heads import HEADS
from models.heads.base import FeatureBatch, Head, Setting
from models.heads.d2st_adapter import D2stOptions
from models.layers.distance_correlation import distance_covariance
from models.layers.set_similarity import query_chamfer, support_chamfer
from models.layers.similarity import frame_costs
from tests.golden.baselines import Row, case_episode, difference
from tests.golden.settings import PROJECTS
from utils.config import load_config
from utils.config.fields import keys_of
from utils.config.options import head_options
from utils.episode import Episode
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


def _gradients(data: Any, case: str, head: Head, prefix: str = "") -> Iterator[Row]:
    found = {n.replace("backbone.", prefix, 1): p.grad for n, p in head.named_parameters() if p.requires_grad}
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


def _schedule(pattern: str) -> Schedule:
    """The learning rates of a project file."""
    solver = load_config(next(PROJECTS.glob(pattern))).SOLVER
    return Schedule(solver.BASE_LR, solver.STEPS_ITER, solver.STEPS, solver.LRS, solver.WARMUP_EPOCHS,
                    solver.WARMUP_START_LR, solver.LR_POLICY, solver.MAX_EPOCH, solver.PROGRESS == "double")


def _rate_rows(data: Any) -> Iterator[Row]:
    for key in [k for k in data.files if k.startswith("lr/") and k.endswith("/iteration")]:
        name = key.split("/")[1]
        schedule = _schedule(f"D2ST/*/D2ST_{name}.yaml")
        found = [schedule(int(i)) for i in data[key]]
        yield name, "learning rate", float(np.max(np.abs(found - data[f"lr/{name}/lr"]))), 1e-12


def _of_tower(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The frozen tower's weights by open_clip's names, from those of Hugging Face's CLIP."""
    plain = {"embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
             "embeddings.position_embedding.weight": "positional_embedding"}
    found = {own: state[f"model.{name}"] for name, own in plain.items()}
    found["proj"] = state["model.projection.weight"].T
    for name, own in (("pre_layernorm", "ln_pre"), ("post_layernorm", "ln_post")):
        found |= {f"{own}.{end}": state[f"model.{name}.{end}"] for end in ("weight", "bias")}
    for layer in range(layers):
        theirs, ours = f"model.layers.{layer}", f"transformer.resblocks.{layer}"
        for end in ("weight", "bias"):
            found[f"{ours}.attn.in_proj_{end}"] = torch.cat([state[f"{theirs}.self_attn.{part}_proj.{end}"]
                                                             for part in "qkv"])
            for name, own in (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("mlp.fc1", "mlp.c_fc"),
                              ("mlp.fc2", "mlp.c_proj"), ("layer_norm2", "ln_2")):
                found[f"{ours}.{own}.{end}"] = state[f"{theirs}.{name}.{end}"]
    return found


def ts_head(data: Any, options: Mapping[str, Any]) -> Head:
    """A case's head of TS-FSAR with the file's weights."""
    name = options["tower"]
    tower, kind = json.loads(str(data[f"{name}/tower"])), HEADS["TS_FSAR"]
    visual = build_visual({"embed_dim": tower["embed_dim"], "quick_gelu": True, "vision_cfg": {
        "image_size": tower["image"], "layers": tower["layers"], "width": tower["width"],
        "head_width": tower["width"] // tower["heads"], "patch_size": tower["patch"]}})
    own = {key: value for key, value in options.items() if key in keys_of(kind.Options)}
    own |= {"OUTPUT_DIM": tower["output_dim"], "TEMP_LAYERS": tower["temp_layers"], "DROPOUT": 0.0, "PCA_START": False}
    encoder = Encoder(visual, tower["embed_dim"], tower["image"], None, "random", "none")
    head = kind(encoder, Setting(tower["num_input_frames"], tower["num_class"]), head_options(kind.Options, own))
    state = weights_of(data, f"{name}/weights/")
    trained = {key.replace("model.", "backbone.", 1): value for key, value in state.items()
               if key.startswith(("model.side", "model.Adapter", "model.up", "model.Linear", "ts_dcm"))}
    head.load_state_dict({f"backbone.visual.{key}": value for key, value in _of_tower(state, tower["layers"]).items()}
                         | trained)
    return head.train(options["mode"] == "train")


def ts_values(head: Head, episode: Episode, text: Tensor) -> dict[str, Tensor]:
    """Everything of a case that the file may hold."""
    encoded = {role: head.encode(clips) for role, clips in episode.clips.items()}
    output = head.output(episode, encoded, text)
    values = {"scores": output.scores["prototypes"]}
    if head.training:
        losses = head.losses(output, episode)
        weights = {"few_shot": "VIS_ALPHA", "dc": "CLS_ALPHA", "side": "SIDE_CLS_ALPHA", "clip": "KD_ALPHA",
                   "kl": "KD_ALPHA"}
        values |= {f"loss_{'vision' if name == 'few_shot' else name}": value / getattr(head.options, weights[name])
                   for name, value in losses.items()}
        return values | {f"logits_{name}": value for name, value in output.aux.items()} | {"loss": sum(losses.values())}
    own = output.scores["fused"].gather(1, episode.query_labels_M.unsqueeze(1))
    right = output.scores["fused"].argmax(1) == episode.query_labels_M
    return values | {"logits_clip": output.scores["text"], "logits_side": output.scores["side_text"],
                     "fused": output.scores["fused"], "loss": -(own + 1e-8).log().mean(), "acc": right.float().mean(),
                     "side_tokens_first_frame": encoded["support"]["tokens"][0, 0],
                     "clip_cls": encoded["support"]["frames"][:2],
                     "dc_first_frame": head.clip_features(encoded["support"])["dependence"][0, 0]}


def ts_rows(data: Any) -> Iterator[Row]:
    """Every case of TS-FSAR, its start by main components, and its measure of dependence."""
    for case in [k.removesuffix("/options") for k in data.files if k.endswith("/options")]:
        options = json.loads(str(data[f"{case}/options"]))
        head = ts_head(data, options)
        episode = case_episode(data, case, head.setting.frames, torch.float32)
        part = "train" if head.training else "test"
        text = torch.from_numpy(np.array(data[f"{options['tower']}/class_embeddings_{part}"])).float()
        with torch.set_grad_enabled(head.training):
            values = ts_values(head, episode, text)
        for name, value in values.items():
            if f"{case}/{name}" in data.files:
                yield case, name, difference(value.detach(), data[f"{case}/{name}"]), VALUES
        if head.training:
            values["loss"].backward()
            for _, what, found, allowed in _gradients(data, case, head, "model."):
                yield case, what, found, allowed
        groups = {one.name: {id(p) for p in one.parameters} for one in head.parameter_groups() or ()}
        names = {f"{'model.' if n.startswith('backbone.') else ''}{n.removeprefix('backbone.')}": id(p)
                 for n, p in head.named_parameters()}
        wanted = json.loads(str(data[f"{options['tower']}/groups"]))
        same = {name: {names[n] for n in own} for name, own in wanted.items()} == groups
        yield case, "parameter groups", float(not same), 0.0
    yield from _formula_rows(data)
    if "lr/iteration" in data.files:
        found = _schedule("TSFSAR/*/TSFSAR_HMDB51_1shot.yaml")
        yield "lr", "learning rate", max(abs(found(int(i)) - own) for i, own in zip(
            data["lr/iteration"], data["lr/lr"], strict=True)), 1e-12


def _formula_rows(data: Any) -> Iterator[Row]:
    for case in [k.removesuffix("/cols_rows") for k in data.files if k.endswith("/cols_rows")]:
        columns, rows = (int(n) for n in data[f"{case}/cols_rows"])
        found = np.asarray(reduced(torch.from_numpy(np.array(data[f"{case}/in"])).double(), columns, rows))
        wanted = np.asarray(data[f"{case}/out"], np.float64)
        if wanted.ndim == 2:  # a component's sign is free
            axis = 0 if rows >= columns else 1
            found = found * np.sign((found * wanted).sum(axis=axis, keepdims=True))
        yield case, "out", difference(found, wanted), VALUES
    for case in [k.removesuffix("/in") for k in data.files if k.startswith("alpha_dc/") and k.endswith("/in")]:
        x = torch.from_numpy(np.array(data[f"{case}/in"])).double().requires_grad_()
        found = distance_covariance(x, float(case.split("/")[1]))
        (found * torch.from_numpy(np.array(data[f"{case}/w"]))).sum().backward()
        yield case, "out", difference(found.detach(), data[f"{case}/out"]), VALUES
        yield case, "grad", difference(x.grad, data[f"{case}/grad"]), GRADIENTS


def free_rows(data: Any) -> Iterator[Row]:
    """The rows that need no training (modern_training_free.npz)."""
    for case in [k.removesuffix("/query") for k in data.files if k.endswith("/query")]:
        support, query, text = (torch.from_numpy(np.array(data[f"{case}/{name}"]))
                                for name in ("support", "query", "text"))
        width, frames = query.shape[-1], query.shape[1]
        head = HEADS["FROZEN_TEXT"](Encoder(torch.nn.Identity(), width, None, None, "random", "none"), Setting(frames))
        parts = [head.in_role({"frames": clips}, None, "query") for clips in (support.flatten(0, 1), query)]
        batch = FeatureBatch({n: v.unflatten(0, support.shape[:2]).unsqueeze(0) for n, v in parts[0].items()},
                             {n: v.unsqueeze(0) for n, v in parts[1].items()}, text.unsqueeze(0))
        costs = frame_costs(batch.query["frames"], batch.support["frames"].flatten(1, 2))
        similarities = (1 - costs).unflatten(2, batch.sizes)
        found = head.eval().match(batch)
        values = {"chamfer_query": query_chamfer(similarities), "chamfer_support": support_chamfer(similarities),
                  "mean": found["mean_frames"], "max": found["best_frames"], "tip_zero_shot": found["zero_shot"],
                  "diagonal_per_clip": (1 - costs).diagonal(dim1=-2, dim2=-1).mean(dim=-1),
                  "tip_beta1_alpha3": head.tip(batch, alpha=3.0, beta=1.0)}
        for name, value in values.items():
            yield case, name, difference(value[0], data[f"{case}/{name}"]), VALUES
