"""Measures on a checkpoint's validation classes how near a clip lies to its own action, for those with too few clips.

A threshold comes from a person's own clips where they are enough (calibration.py). Else this one stands in, as far as
their videos are like those of validation.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.annotations import read_split_list, resolve_video
from datasets.builder import list_file
from models.heads.base import Features
from runs.own.learning import Wanted, learn_clips, stacked
from runs.own.matching import Matcher
from runs.own.models import REFERENCE, OwnModel
from utils.episode import VideoRecord
from utils.errors import OwnClipsError
from utils.json_files import write_json
from utils.seed import numpy_generator

SHOTS, CLIPS, DRAWS, KEEP = (1, 3, 5), 12, 10, 0.9
_SEED = 0


def measured(model: OwnModel) -> dict[str, float]:
    """Return by number of clips an action the distance within which KEEP of validation clips lie from their own class.

    Up to CLIPS clips a class of the validation list are encoded; each number of shots is drawn DRAWS times.

    Raises AnnotationError: there is no such list; OwnClipsError: no class has two clips that can be read.
    """
    cfg = model.cfg
    records = read_split_list(list_file(cfg, "val"), "val", cfg.TRAIN.DATASET_FEW)
    rng = numpy_generator(_SEED, "own:reference", 0)
    by_class: dict[int, list[VideoRecord]] = defaultdict(list)
    for record in (records[i] for i in rng.permutation(len(records))):
        if len(by_class[record.class_index]) < CLIPS:
            by_class[record.class_index].append(record)
    root = Path(cfg.DATA.DATA_ROOT_DIR)
    wanted = [Wanted(resolve_video(root, record, cfg.TRAIN.DATASET_FEW), record.path, str(index))
              for index, own in sorted(by_class.items()) for record in own]
    learned, _, _ = learn_clips(model, wanted, title="validation clips")
    classes = sorted({int(one.clip.action or 0) for one in learned})
    text = model.texts([cfg.TRAIN.VAL_CLASS_NAME[index] for index in classes]) if cfg.TRAIN.VAL_CLASS_NAME else None
    rows = {label: [row for row, one in enumerate(learned) if one.clip.action == str(index)]
            for label, index in enumerate(classes)}
    features = model.placed(stacked(learned)) if learned else {}
    found = {}
    for shots in SHOTS:
        if distances := _own_distances(model, features, rows, text, shots):
            found[str(shots)] = float(np.quantile(distances, KEEP))
    if not found:
        raise OwnClipsError(f"{list_file(cfg, 'val')}: expected two classes with two clips that can be read, found "
                            f"{len(learned)} clips of {len(classes)} classes")
    return found


def _own_distances(model: OwnModel, features: Features, rows: dict[int, list[int]], text_KD: Tensor | None,
                   shots: int) -> list[float]:
    """Return how far clips lie from their own class of so many other clips; none where no two classes have enough."""
    rng = numpy_generator(_SEED, "own:reference", shots)
    enough = {label: own for label, own in rows.items() if len(own) > shots}
    distances: list[float] = []
    for _ in range(DRAWS if len(enough) > 1 else 0):
        drawn = {label: rng.permutation(own).tolist() for label, own in enough.items()}
        supports = [row for own in drawn.values() for row in own[:shots]]
        labels = torch.arange(len(drawn), device=model.device).repeat_interleave(shots)
        texts = None if text_KD is None else text_KD[torch.tensor(list(drawn), device=model.device)]
        matcher = Matcher(model.head, {n: v[supports] for n, v in features.items()}, labels, texts, model.scoring)
        for k, own in enumerate(drawn.values()):
            asked = {name: value[own[shots:]] for name, value in features.items()}
            distances += matcher.distances(asked, together=True)[:, k].tolist()
    return distances


def write_reference(model: OwnModel) -> Path:
    """Write what was measured beside the checkpoint, and return the file. Raises as `measured`, DiskError."""
    if model.checkpoint is None:
        raise OwnClipsError("--reference: expected a checkpoint (--checkpoint FILE), found none")
    path = model.checkpoint.with_name(REFERENCE)
    write_json(path, {model.scoring: measured(model)})
    return path
