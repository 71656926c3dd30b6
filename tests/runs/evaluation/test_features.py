"""Scores from stored features equal those of episode-by-episode evaluation, for every option; the store on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.builder import build_split
from datasets.few_shot import FewShotDataset
from models.builder import build_model
from runs.evaluation import features as feature_store
from runs.evaluation.evaluate import Evaluator
from tests.conftest import TINY_TOWER
from tests.damage import flipped
from utils import feature_file
from utils.config import load_config
from utils.errors import FeatureStoreError, VideoDecodeError
from utils.feature_file import FeatureFile, read_feature_file, scratch

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
RESNET = {**TINY_TOWER, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}}


def config(tiny_project, *pairs):
    return load_config(tiny_project(), list(pairs))


def scored(cfg, model=None):
    torch.manual_seed(5)
    model = model or build_model(cfg)
    configs = [replace(cfg, TEST=replace(cfg.TEST, FEATURE_STORE=on)) for on in (True, False)]
    return [Evaluator(one, build_split(one, "test"), CPU).run(model, "test") for one in configs]


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@pytest.mark.parametrize("pairs", [
    [], ["TRAIN.SHOT_TEST", "3"], ["TRAIN.SHOT_TEST", "3", "TRAIN.MERGE_BEFORE", "true"],
    ["TRAIN.MERGE_BEFORE", "true"], ["TRAIN.EVAL_TEXT", "true"],
    ["TRAIN.COMBINE", "true", "TRAIN.TEXT_COFF", "0.6"], ["PROTOCOL", "clean", "TRAIN.COMBINE", "true"],
    ["TRAIN.SINGLE_DIRECT", "true"], ["TRAIN.TRANSFORMER_DEPTH", "2", "TRAIN.QUERY_PER_CLASS_TEST", "2"],
    ["TEST.TEMPORAL_DRAWS", "2"], ["DATA.SAMPLING_RATE", "4"]], ids=lambda pairs: " ".join(pairs) or "defaults")
def test_equals_the_episode_by_episode_path(tiny_project, tmp_path, pairs, tower):
    if tower == "resnet":
        (tmp_path / "resnet.json").write_text(json.dumps(RESNET))
        pairs = [*pairs, "VIDEO.HEAD.BACKBONE_NAME", str(tmp_path / "resnet.json")]
    fast, slow = scored(config(tiny_project, *pairs))
    assert set(fast.scores) == set(slow.scores) == {"prototypes", "fused", "text"}
    for name in fast.scores:
        np.testing.assert_allclose(fast.scores[name], slow.scores[name], rtol=0, atol=1e-5)
    assert fast.scoring == slow.scoring and np.array_equal(fast.query_EM, slow.query_EM)
    assert fast.encoded is not None and slow.encoded is None
    assert len({round(float(x), 4) for x in fast.scores["prototypes"].ravel()}) > 5  # scores do differ


def test_five_shot_of_three_ways(tiny_project, tmp_path, data_of_many_clips):
    pairs = ["DATA.DATA_ROOT_DIR", str(data_of_many_clips), "DATA.ANNO_DIR", str(data_of_many_clips),
             "TRAIN.SHOT_TEST", "5"]
    for merge in ("true", "false"):
        fast, slow = scored(config(tiny_project, *pairs, "TRAIN.MERGE_BEFORE", merge))
        np.testing.assert_allclose(fast.scores["prototypes"], slow.scores["prototypes"], rtol=0, atol=1e-5)


def test_five_by_five_every_clip_is_decoded_once(tiny_project, monkeypatch):
    seen = []
    decode = FewShotDataset.decode
    monkeypatch.setattr(FewShotDataset, "decode", lambda self, video, generators: (
        seen.append(video), decode(self, video, generators))[1])
    cfg = config(tiny_project, "TRAIN.NUM_TEST_TASKS", "40")
    found = Evaluator(cfg, build_split(cfg, "test"), CPU).run(build_model(cfg), "test")
    assert len(seen) == len(set(seen)) == found.encoded <= 20
    assert set(seen) == set(found.query_EM.ravel()) | set(found.support_EN.ravel())


def test_the_number_of_workers_and_of_clips_a_pass_change_nothing(tiny_project):
    found = [scored(config(tiny_project, "DATA_LOADER.NUM_WORKERS", workers, "TEST.ENCODE_BATCH", batch))[0]
             for workers, batch in (("0", "8"), ("2", "8"), ("0", "1"))]
    assert all(np.array_equal(found[0].scores[n], found[1].scores[n]) for n in found[0].scores)
    np.testing.assert_allclose(found[0].scores["prototypes"], found[2].scores["prototypes"], rtol=0, atol=1e-5)


def test_pixels_made_in_this_process_give_the_same_scores(tiny_project):
    torch.manual_seed(5)
    cfg = config(tiny_project)
    model = build_model(cfg)
    plain, moved = scored(cfg, model), scored(config(tiny_project, "AUGMENTATION.USE_GPU", "true"), model)
    for one, other in zip(plain, moved, strict=True):
        assert all(np.array_equal(scores, other.scores[name]) for name, scores in one.scores.items())


def _broken_copy(tiny_videos: Path, target: Path, damaged: int) -> Path:
    for path in tiny_videos.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(tiny_videos)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    for path in sorted((target / "videos").rglob("000.mp4"))[:damaged]:
        path.write_bytes(b"")
    return target


def test_bad_videos_are_replaced_as_in_the_slow_path(tiny_project, tiny_videos, tmp_path):
    root = str(_broken_copy(tiny_videos, tmp_path / "copy", 40))
    pairs = ["DATA.DATA_ROOT_DIR", root, "DATA.ANNO_DIR", root]
    with pytest.raises(VideoDecodeError, match="000.mp4: empty file"):
        scored(config(tiny_project, *pairs))
    for more in ([], ["PROTOCOL", "clean"]):
        fast, slow = scored(config(tiny_project, *pairs, "DATA.ON_BAD_VIDEO", "replace", *more))
        assert fast.bad_videos and fast.bad_videos == slow.bad_videos
        np.testing.assert_allclose(fast.scores["prototypes"], slow.scores["prototypes"], rtol=0, atol=1e-5)


def test_features_on_disk_are_read_again_and_never_when_stale(tiny_project, tiny_videos, tmp_path, monkeypatch):
    root = _broken_copy(tiny_videos, tmp_path / "copy", 0)
    cfg = config(tiny_project, "DATA.DATA_ROOT_DIR", str(root), "DATA.ANNO_DIR", str(root))
    torch.manual_seed(5)
    model, store = build_model(cfg), tmp_path / "store"

    def run(cfg=cfg, model=model):
        return Evaluator(cfg, build_split(cfg, "test"), CPU).run(model, "test", store)

    first = run()
    assert first.encoded == 20 and len(list(store.iterdir())) == 1
    again = run()
    assert again.encoded == 0 and all(np.array_equal(first.scores[n], again.scores[n]) for n in first.scores)
    more = replace(cfg, TRAIN=replace(cfg.TRAIN, NUM_TEST_TASKS=12, SHOT_TEST=2))
    assert run(more).encoded == 0  # other episodes of the same clips
    for changed in (replace(cfg, DATA=replace(cfg.DATA, TEST_SCALE=40)),
                    replace(cfg, TEST=replace(cfg.TEST, TEMPORAL_DRAWS=2)),
                    replace(cfg, DATA=replace(cfg.DATA, SAMPLING_RATE=4))):
        assert run(changed).encoded == 20
    path = next((root / "videos").rglob("*.mp4"))
    listed = root / build_split(cfg, "test").records[0].path
    listed.write_bytes(path.read_bytes())  # another file under a listed name
    assert run().encoded == 20
    with torch.no_grad():
        next(model.head.backbone.parameters()).add_(0.1)
    assert run().encoded == 20
    (root / "test_few_shot.txt").write_text("\n".join((root / "test_few_shot.txt").read_text().splitlines()[:-1]))
    assert run().encoded == 19
    assert not list(store.glob(".*"))  # no unfinished files


def test_an_interrupted_store_leaves_nothing(tiny_project, tmp_path, monkeypatch):
    cfg = config(tiny_project)
    monkeypatch.setattr(feature_store, "_features", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Evaluator(cfg, build_split(cfg, "test"), CPU).run(build_model(cfg), "test", tmp_path / "store")
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").iterdir())


def test_a_damaged_feature_file_is_named(tmp_path):
    with FeatureFile(tmp_path / "a.safetensors", {"x": 1}, spare=100) as file:
        made = file.allocate({"maps": (3, 2, 4), "clip": (3, 5)})
        made["maps"][:], made["clip"][:] = 7, torch.arange(5.0)
        file.commit({"y": 2})
    found, facts = read_feature_file(tmp_path / "a.safetensors")
    assert facts == {"x": 1, "y": 2} and found["maps"].shape == (3, 2, 4) and (found["maps"] == 7).all()
    assert torch.equal(found["clip"], torch.arange(5.0).expand(3, 5))
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-20])
    with pytest.raises(FeatureStoreError, match="b.safetensors: expected stored features, found a file that"):
        read_feature_file(tmp_path / "b.safetensors")
    with FeatureFile(tmp_path / "c.safetensors", {}, spare=0) as file:
        file.allocate({"clip": (1, 1)})
        with pytest.raises(FeatureStoreError, match="c.safetensors: expected at most"):
            file.commit({"long": "x" * 10000})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_every_flipped_bit_and_zeroed_page_of_a_feature_file_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    facts = {"weights": "ab" * 32, "rows": [1, 2]}
    with FeatureFile(path, facts, spare=100) as file:
        made = file.allocate({"maps": (30, 2, 4), "clip": (30, 5)})
        for value in made.values():
            value[:] = torch.randn(value.shape, generator=torch.manual_seed(1))
        file.commit({"bad_videos": {}})
    assert read_feature_file(path, facts)[1] == {**facts, "bad_videos": {}}
    with pytest.raises(FeatureStoreError, match=r"of another weights: 'abab.*', not 'cd'"):
        read_feature_file(path, {"weights": "cd"})
    content = path.read_bytes()
    pages = [content[:at] + bytes(512) + content[at + 512:] for at in range(0, len(content) - 512, 512)]
    for one in [*flipped(content, 100), *pages, content[:-1], content + b"x", b"", content[:100]]:
        path.write_bytes(one)
        with pytest.raises(FeatureStoreError, match="a.safetensors: expected stored features, found a"):
            read_feature_file(path, facts)


def test_a_damaged_store_is_made_anew(tiny_project, tmp_path, caplog):
    cfg, model = config(tiny_project), None
    torch.manual_seed(5)
    model = build_model(cfg)

    def run():
        return Evaluator(cfg, build_split(cfg, "test"), CPU).run(model, "test", tmp_path / "store")

    first = run()
    path, = (tmp_path / "store").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    again = run()
    assert f"{path}: expected stored features, found a file that cannot be read (its checksum" in caplog.text
    assert again.encoded == first.encoded == 20 and run().encoded == 0 and path.read_bytes() == whole
    assert all(np.array_equal(first.scores[n], again.scores[n]) for n in first.scores)


def test_large_arrays_are_memory_mapped_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_file, "RAM_SHARE", 0.0)
    array = scratch((100, 8, 16), tmp_path)
    array[:] = 3.0
    assert (array == 3).all() and not list(tmp_path.iterdir())
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
