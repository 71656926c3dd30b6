"""Bundles give torch's numbers without torch; what does not is not kept, and what cannot be exported is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv

import numpy as np
import pytest
import torch
from torch import nn

from runs.own.calibration import Wishes
from runs.own.clips import read_clip
from runs.own.export import bundle as bundle_files
from runs.own.export import exporting
from runs.own.export.exporting import Forms, export_bundle
from runs.own.export.proof import TOLERANCE, load_runner
from runs.own.learning import encoded
from runs.own.outputs import as_json
from runs.own.packs import read_pack
from runs.own.predicting import model_facts
from tests.conftest import called
from tests.runs.own.colours import model_of_colours
from utils.errors import ExportError

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
export = called("export")


def near(found, expected):
    """Whether two pieces of JSON are the same but for the last digits of floats."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(near(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(near, found, expected))
    return found == pytest.approx(expected, abs=TOLERANCE) if isinstance(expected, float) else found == expected


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_answers_without_torch_are_predicts(request, name, clips, recognise):
    """All that `predict --format json` prints, from here without the processes that it reads videos in."""
    made = request.getfixturevalue(name)
    asked, actions = [clips / "new.mp4", made.support / "red" / "0.mp4"], made.actions
    done = recognise(made.path, *asked, clips / "broken.mp4")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert "Invalid data" in found["queries"].pop()["error"]
    answers = [actions.answer(encoded(actions.model, path.name, None, read_clip(path, actions.model.reading)))
               for path in asked]
    expected = json.loads(as_json(actions.check(), model_facts(actions.model), answers))
    assert near(found, expected), done.stdout
    assert found["queries"][1]["same_as_support"] == "red/0.mp4"
    assert "unlike your clips'" in found["queries"][0]["notes"][0]
    assert recognise(made.path, clips / "broken.mp4").returncode == 1


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_it_says_what_was_compared(request, name):
    made = request.getfixturevalue(name)
    assert made.proof.holds and made.proof.read == made.proof.clips == made.proof.held_out == 12
    assert set(made.proof.differences) == {"features", "references", "distances", "pixels"}
    assert 0 < made.proof.differences["features"] <= TOLERANCE and made.proof.differences["pixels"] <= 1e-5
    text = (made.path / "CHECK.txt").read_text()
    assert "Answers of held-out clips that differ: 0 of 12." in text and "12 examples read again" in text
    assert f"  distances: {made.proof.differences['distances']:.2e}" in text
    assert ("references were made by torch alone" in text) == (name == "resnet")
    pack = read_pack(made.path / "actions.safetensors")
    assert [one.name for one in pack.clips if one.action] == [one.clip.name for one in made.actions.clips]


def test_sizes_are_free_or_fixed(vit, resnet):
    sizes = {}
    for made in (vit, resnet):
        bundle = load_runner(made.path).Bundle(made.path)
        sizes[made.path] = {part: [one.shape for one in session.get_inputs()]
                            for part, session in bundle.sessions.items()}
    assert sizes[vit.path] == {"tower": [["n", 3, 32, 32]], "modulator": [["b", "l", 32]],
                               "align": [["m", 4, 32], ["k", 4, 32]]}
    assert sizes[resnet.path] == {"tower": [[4, 3, 32, 32]], "modulator": [[1, 4, 32]],
                                  "align": [[1, 4, 32], [3, 4, 32]]}


def test_the_same_modules_for_torch_export(vit):
    tower = torch.export.load(vit.path / "tower.pt2").module()
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels), vit.actions.model.head.backbone(pixels))
    assert (vit.path / "modulator.pt2").is_file() and (vit.path / "align.pt2").is_file()


def test_eight_bits_are_measured_and_never_called_equal(vit, clips, recognise):
    text = (vit.path / "CHECK.txt").read_text()
    cosine = r"(0\.9|1\.0)\d+"
    assert re.search(r"tower_int8.onnx: not equal to torch. Cosine with the features of floats: lowest "
                     rf"{cosine}, mean {cosine}, over 48 frames of the examples; \d+ of 12 answers of held-out clips "
                     r"change\.", text)
    runner = load_runner(vit.path)
    pixels = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    apart = np.abs(runner.Bundle(vit.path, int8=True).features(pixels) - runner.Bundle(vit.path).features(pixels))
    assert apart.max() > TOLERANCE
    assert recognise(vit.path, "--int8", clips / "new.mp4").returncode == 0


def test_a_changed_file_is_not_run(vit, tmp_path, clips, recognise):
    changed = shutil.copytree(vit.path, tmp_path / "bundle")
    content = bytearray((changed / "align.onnx").read_bytes())
    content[-1] ^= 1
    (changed / "align.onnx").write_bytes(content)
    done = recognise(changed, clips / "new.mp4")
    assert done.returncode == 1 and "align.onnx: is not the file that was exported" in done.stderr


@pytest.fixture(scope="module")
def colours(clips):
    """Actions of frozen colours, whose modules are exported in a second or two."""
    made = model_of_colours()
    made.model.head.backbone.forward = lambda frames: frames.mean(dim=(2, 3)) - 0.45
    return made.learn(clips / "mine")


def test_a_changed_reference_leaves_nothing(colours, tmp_path, monkeypatch):
    write = bundle_files.write_actions
    monkeypatch.setattr(exporting, "write_actions", lambda actions, references, path: write(
        actions, references + 0.25 * (np.arange(references.size) == 0).reshape(references.shape), path))
    with pytest.raises(ExportError, match=r"not kept. Largest differences: .*references 2\.5e-01.*differ: 0 of 12"):
        export_bundle(colours, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_answers_otherwise_leaves_nothing(colours, tmp_path, monkeypatch):
    made = colours.model.head.exportable(colours.model.scoring)
    compare = made.compare.distance
    made.compare.distance = lambda queries, references: -compare(queries, references)
    monkeypatch.setattr(colours.model.head, "exportable", lambda scoring: made)
    with pytest.raises(ExportError, match=r"distances [12]\.\de\+00; answers of held-out clips that differ: 12 of 12"):
        export_bundle(colours, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_pack_holds_no_pictures(colours, clips, tmp_path):
    colours.save(tmp_path / "my.pack")
    proof, _ = export_bundle(colours, tmp_path / "bundle", Wishes(threshold=-0.5))
    assert proof.read == 0 and "no example itself, as a pack holds no pictures" in (
        tmp_path / "bundle" / "CHECK.txt").read_text()
    facts = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert facts["calibration"]["kind"] == "given" and facts["calibration"]["threshold"] == -0.5
    with pytest.raises(ExportError, match="expected a folder that is not there yet, or empty, found a folder with"):
        export_bundle(colours, tmp_path / "bundle")


def test_eight_bits_need_matrix_products(colours, tmp_path, monkeypatch):
    tower = nn.Sequential(nn.Conv2d(3, 3, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    monkeypatch.setattr(colours.model.head, "backbone", tower)
    with pytest.raises(ExportError, match=r"hold 0 % of this tower's weights: expected a ViT"):
        export_bundle(colours, tmp_path / "bundle", forms=Forms(int8=True))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(clips, vit_checkpoint, tmp_path, capsys):
    out = ["--out", tmp_path / "bundle"]
    assert export(["--support", clips / "mine", "--checkpoint", vit_checkpoint, "--scoring", "fused", *out]) == 1
    assert "--scoring fused: of CLIP-FSAR, expected one that can be exported: prototypes" in capsys.readouterr().err
    assert export(["--support", clips / "mine", "--checkpoint", vit_checkpoint, *out, "VIDEO.HEAD.OPTIONS.SMOOTHING",
                   "0.01"]) == 1
    assert "OTAM of 4 frames with lambda 0.01 cannot be exported" in capsys.readouterr().err
    assert export(["--support", clips / "mine", "--device", "cuda", *out]) == 1
    assert "--device: expected cpu, on which a bundle is written and proved, found 'cuda'" in capsys.readouterr().err
    with pytest.raises(ExportError, match=r"TRX cannot be exported: expected a head that can \(CNN_OTAM, "):
        export_bundle(model_of_colours("CNN_TRX").learn(clips / "mine"), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", [("onnx",), ("onnxscript", "onnxruntime")])
def test_missing_packages_are_named_before_anything_is_done(missing, monkeypatch, tmp_path, capsys):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert export(["--support", tmp_path / "not there", "--out", tmp_path / "bundle"]) == 1
    said = capsys.readouterr().err
    assert f"export needs {', '.join(missing)}, not installed here: pip install -e '.[export]'" in said


def test_the_command(clips, vit_checkpoint, tmp_path, capsys):
    left = tmp_path / ".bundle.999999999.part"
    left.mkdir()
    assert export(["--support", clips / "mine", "--checkpoint", vit_checkpoint, "--out", tmp_path / "bundle",
                   "--keep", "0.8"]) == 0
    said = capsys.readouterr().out
    assert "bundle: 3 actions, " in said and "equal to torch: largest differences features " in said
    assert "differ: 0 of 12" in said and not left.exists()
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["calibration"]["keep"] == 0.8
    with pytest.raises(SystemExit) as stopped:
        export(["--out", tmp_path / "other"])
    assert stopped.value.code == 2 and "expected --support DIR or --pack FILE" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("REQUIRE_EXPORT") != "1", reason="REQUIRE_EXPORT=1 installs packages elsewhere")
def test_in_an_environment_without_torch(vit, clips, tmp_path, recognise):
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "onnxruntime", "av", "pillow"], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    done = recognise(vit.path, clips / "new.mp4", python=python)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout)["queries"][0], vit.actions.predict(clips / "new.mp4").to_dict()
    assert near(found, json.loads(json.dumps(expected)))
