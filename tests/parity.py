"""Replays reference files with the project's own model and losses: python tests/parity.py FILE...

Prints the largest difference of every case and quantity (relative to max(1, |reference|)); exit status 1 when one is
above its tolerance. CLIP-FSAR, in float32 on the CPU: 1e-5; OTAM gradients at lambda 0.1 1e-4; frame indices and
parameter groups exact; test transform 1e-6; learning rates 1e-12. Other methods: tests/golden/baselines.py, modern.py.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.frame_sampling import interval_indices
from datasets.transforms import PixelSettings
from datasets.transforms import test_transform as make_test_transform
from models.builder import FewShotModel
from models.encoders.base import Encoder
from models.encoders.clip import build_towers
from models.heads import HEADS
from models.heads.base import Setting
from models.layers.alignment.otam import soft_alignment
from models.layers.modulator import TemporalTransformer
from models.layers.similarity import cos_similarity
from tests.golden import baselines, modern, settings
from tests.golden.arrays import GoldenFile
from tests.golden.baselines import Row, difference
from utils.checkpoint import atomic_save, load_weights
from utils.config import load_config
from utils.config.fields import keys_of
from utils.config.options import head_options
from utils.episode import Episode
from utils.optim import parameter_groups
from utils.schedule import Schedule

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "projects" / "CLIPFSAR"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
KNOWN_OPTIONS = {
    "mode", "way", "shot", "query_per_class", "num_input_frames", "USE_CLASSIFICATION", "USE_CLASSIFICATION_VALUE",
    "USE_CLASSIFICATION_ONLY", "BATCH_SIZE", "MERGE_BEFORE", "SINGLE_DIRECT", "EVAL_TEXT", "COMBINE", "TEXT_COFF",
    "TRANSFORMER_DEPTH",
}


def tower_config(tower: dict) -> dict:
    """A golden file's `tower` in open_clip's model-config format."""
    vision = {"image_size": tower["image_resolution"], "layers": tower["vision_layers"],
              "width": tower["vision_width"], "head_width": 64}
    if tower["vision_patch_size"]:
        vision["patch_size"] = tower["vision_patch_size"]
    text = {"context_length": tower["context_length"], "vocab_size": tower["vocab_size"],
            "width": tower["transformer_width"], "heads": tower["transformer_heads"],
            "layers": tower["transformer_layers"]}
    return {"embed_dim": tower["embed_dim"], "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}


def build_case_model(data, options: dict) -> FewShotModel:
    """The project's model with a case's switches and the file's weights, read back through the checkpoint reader."""
    tower = json.loads(str(data["tower"]))
    kind = HEADS["CNN_OTAM_CLIPFSAR"]
    own = {name: value for name, value in options.items() if name in keys_of(kind.Options) and value is not None}
    depth = own.get("TRANSFORMER_DEPTH", 1)
    encoder = Encoder(visual=build_towers(tower_config(tower)).visual, dim=tower["embed_dim"], image_size=None,
                      text=None, weights="random", pretraining="none")
    setting = Setting(options["num_input_frames"], loss_divisor=options.get("BATCH_SIZE", 1))
    model = FewShotModel(kind(encoder, setting, head_options(kind.Options, own)),
                         {s: torch.from_numpy(data[f"text_features_{s}"]) for s in ("train", "test")})
    prefix = f"weights_depth{depth}/"
    state = {f"head.{k.removeprefix(prefix)}": torch.from_numpy(np.array(data[k]))
             for k in data.files if k.startswith(prefix)}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint_epoch_00001.pyth"
        atomic_save({"epoch": 1, "model_state": state}, path)
        load_weights(model, path)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train(options["mode"] == "train")


def case_episode(data, case: str, options: dict) -> Episode:
    """The episode of a case."""
    def labels(name: str) -> Tensor:
        return torch.from_numpy(np.array(data[f"{case}/in/{name}"])).long()

    def clips(name: str) -> Tensor:
        key = f"{case}/in/{name}"
        frames = data[f"{key}_x16"] / np.float32(16) if f"{key}_x16" in data.files else data[key]
        frames = torch.from_numpy(np.asarray(frames, np.float32))
        return frames.reshape(-1, options["num_input_frames"], *frames.shape[1:])

    support, real = labels("support_labels"), labels("real_support_labels")
    classes = torch.stack([real[support == k][0] for k in range(int(support.max()) + 1)])
    return Episode(clips("support_set"), support, real, clips("target_set"), labels("target_labels"),
                   labels("real_target_labels"), classes)


def _training_rows(data, case: str, options: dict, model, output, episode) -> Iterator[Row]:
    losses = model.head.losses(output, episode)
    total = sum(losses.values())
    total.backward()
    scale = {"few_shot": options["BATCH_SIZE"],
             "classification": options["BATCH_SIZE"] / (options["USE_CLASSIFICATION_VALUE"] or 1)}
    keys = {"few_shot": "loss_few", "classification": "loss_class"}
    for name, value in losses.items():
        if f"{case}/{keys[name]}" in data.files:
            yield case, keys[name], difference(value.detach() * scale[name], data[f"{case}/{keys[name]}"]), 1e-5
    yield case, "loss", difference(total.detach(), data[f"{case}/loss"]), 1e-5
    grads = {n.removeprefix("head."): p.grad for n, p in model.named_parameters()}
    for kind, measure in (("grad", lambda g: g), ("gradnorm", lambda g: g.norm())):
        prefix = f"{case}/{kind}/"
        names = [k.removeprefix(prefix) for k in data.files if k.startswith(prefix)]
        worst = max((difference(measure(grads[n]), data[prefix + n]) for n in names), default=0.0)
        yield case, f"{kind} ({len(names)})", worst, 1e-5


def head_rows(data) -> Iterator[Row]:
    """Every case of a head file."""
    for case in [k.removesuffix("/options") for k in data.files if k.endswith("/options")]:
        options = json.loads(str(data[f"{case}/options"]))
        if unknown := set(options) - KNOWN_OPTIONS:
            raise SystemExit(f"{case}: unknown options {sorted(unknown)}")
        model, episode = build_case_model(data, options), case_episode(data, case, options)
        with torch.set_grad_enabled(model.training):
            output = next(model.head.outputs([episode], model.text("train" if model.training else "test")))
        yield case, "logits", difference(output.logits_MK.detach(), data[f"{case}/logits"]), 1e-5
        if f"{case}/class_logits" in data.files and "class_logits" in output.aux:
            found = output.aux["class_logits"].detach()
            yield case, "class_logits", difference(found, data[f"{case}/class_logits"]), 1e-5
        if model.training:
            yield from _training_rows(data, case, options, model, output, episode)


def function_rows(data) -> Iterator[Row]:
    """OTAM, cosine, modulator."""
    for key in [k for k in data.files if k.startswith("otam/") and k.endswith("/dists")]:
        case = key.removesuffix("/dists")
        smoothing = float(case.rsplit("lambda", 1)[1])
        costs = torch.from_numpy(data[key]).requires_grad_()
        found = soft_alignment(costs, smoothing, float(costs.detach().max()))
        (found * torch.from_numpy(data[f"{case}/w"])).sum().backward()
        yield case, "distance", difference(found.detach(), data[f"{case}/cum"]), 1e-5
        yield case, "gradient", difference(costs.grad, data[f"{case}/grad"]), 1e-4 if smoothing <= 0.1 else 1e-5
    if "cos_sim/out" in data.files:
        found = cos_similarity(torch.from_numpy(data["cos_sim/x"]), torch.from_numpy(data["cos_sim/y"]))
        yield "cos_sim", "out", difference(found, data["cos_sim/out"]), 1e-5
    if "modulator/out" in data.files:
        prefix = "modulator/weights/"
        state = {k.removeprefix(prefix): torch.from_numpy(data[k]) for k in data.files if k.startswith(prefix)}
        depth = 1 + max(int(k.split(".")[1]) for k in state)
        modulator = TemporalTransformer(data["modulator/in"].shape[-1], depth).eval()
        modulator.load_state_dict(state)
        with torch.no_grad():
            found = modulator(torch.from_numpy(data["modulator/in"]))
        yield "modulator", "out", difference(found, data["modulator/out"]), 1e-5


def transform_rows(data) -> Iterator[Row]:
    """Test-time pixels: crop 224 at scale 256 (first frame, every 4th pixel), crop 56 at scale 64."""
    for case in [k.removesuffix("/clip") for k in data.files if k.endswith("/clip")]:
        scale = int(case.rsplit("/", 1)[1])
        crop = {256: 224, 64: 56}[scale]
        transform = make_test_transform(PixelSettings(scale, crop, CLIP_MEAN, CLIP_STD))
        found = transform(torch.from_numpy(data[f"{case}/clip"])).transpose(0, 1)
        if scale == 256:
            found = found[:, :1, ::4, ::4]
        yield case, "pixels", difference(found, data[f"{case}/out"]), 1e-6


def sampling_rows(content: dict) -> Iterator[Row]:
    """Test-time frame indices of interval sampling: exact."""
    wrong = 0
    for case in content["cases"]:
        found = interval_indices(
            case["num_frames_in_video"], case["fps"], content["NUM_INPUT_FRAMES"],
            case.get("sampling_rate", content["SAMPLING_RATE"]), content["TARGET_FPS"], None, keep_tail=False)
        wrong += list(map(int, found)) != case["indices"]
    yield "frame_sampling", f"wrong of {len(content['cases'])}", float(wrong), 0.0


def schedule_rows(content: dict) -> Iterator[Row]:
    """Learning rates of the published settings."""
    for name, case in content.items():
        solver = load_config(next(CONFIGS.glob(f"*/{name}_1shot_v1.yaml"))).SOLVER
        schedule = Schedule(solver.BASE_LR, solver.STEPS_ITER, solver.STEPS, solver.LRS, solver.WARMUP_EPOCHS,
                            solver.WARMUP_START_LR, solver.LR_POLICY, solver.MAX_EPOCH, solver.PROGRESS == "double")
        found = np.array([schedule(i) for i in case["iteration"]])
        yield name, "learning rate", float(np.max(np.abs(found - np.array(case["lr"])))), 1e-12


def group_rows(content: dict, name: str) -> Iterator[Row]:
    """Names, order and weight decay of the published parameter groups; state names and shapes."""
    backbone = "RN50" if "RN50" in name else "ViT-B/16"
    from models.encoders.clip import tower_config as named_config
    with torch.device("meta"):
        config = named_config(backbone)
        encoder = Encoder(visual=build_towers(config).visual, dim=config["embed_dim"], image_size=None, text=None,
                          weights="random", pretraining="none")
        model = FewShotModel(HEADS["CNN_OTAM_CLIPFSAR"](encoder, Setting(8)))
    groups = parameter_groups(model, weight_decay=1e-3, norm_weight_decay=0.0)
    found = [(g["weight_decay"], g["names"]) for g in groups]
    expected = [(g["weight_decay"], g["parameters"]) for g in content["groups"]]
    yield backbone, "groups", float(found != expected), 0.0
    shapes = {n: list(v.shape) for n, v in model.state_dict().items()}
    wrong = {n for n in shapes | content["state_dict_shapes"] if shapes.get(n) != content["state_dict_shapes"].get(n)}
    yield backbone, "state names and shapes", float(len(wrong)), 0.0


ARRAYS = (  # what a file of arrays has in it, and what replays it
    (lambda name: name.endswith("/chamfer_query"), modern.free_rows),
    (lambda name: name.startswith("alpha_dc/") or name.endswith("/groups"), modern.ts_rows),
    (lambda name: name.startswith("resnet_adapter/") or ".Adapter.s_attn." in name, modern.d2st_rows),
    (lambda name: name.startswith(("settings/", "otam_both/", "bimhm/")), settings.rows),
    (lambda name: name.startswith("weights_") and "/backbone.0." in name, baselines.head_rows),
    (lambda name: name == "tower", head_rows),
    (lambda name: name.endswith("/clip"), transform_rows),
    (lambda name: True, function_rows),
)


def replay(path: Path) -> list[Row]:
    """All rows of a reference file, whatever its kind."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        if "cases" in content:
            return list(sampling_rows(content))
        if "groups" in content:
            return list(group_rows(content, path.name))
        return list(schedule_rows(content))
    data = GoldenFile(path)
    return list(next(rows for holds, rows in ARRAYS if any(holds(name) for name in data.files))(data))


def main(paths: list[str]) -> int:
    """Print one line a case and quantity; 1 when a difference is above its tolerance, or nothing was replayed."""
    if not paths:
        sys.stderr.write("usage: python tests/parity.py FILE...\n")
        return 2
    failed, compared = False, 0
    for path in map(Path, paths):
        rows = replay(path)
        failed |= not rows
        compared += len(rows)
        for case, quantity, found, tolerance in rows:
            bad = not found <= tolerance
            failed |= bad
            sys.stdout.write(f"{path.name:32} {case:28} {quantity:26} {found:9.2e}  "
                             f"(tolerance {tolerance:g}){'  FAILED' if bad else ''}\n")
        if not rows:
            sys.stdout.write(f"{path.name}: no case found  FAILED\n")
    sys.stdout.write(f"{compared} compared: {'FAILED' if failed else 'all within their tolerance'}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
