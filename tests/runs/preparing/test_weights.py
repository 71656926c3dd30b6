"""prepare.py weights: fetched or placed, only when they are the right ones; where no network is, what to do."""

import hashlib
from dataclasses import replace

import pytest
import torch

from models.encoders import weight_files
from models.encoders.clip import build_towers
from tests.conftest import TINY_TOWER
from tests.local_server import local_site
from tests.runs.preparing.prepare_fixture import call

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture()
def archive(tmp_path, monkeypatch):
    """A small file in the format of the archives, which stands for RN50's."""
    path = tmp_path / "small.pt"
    torch.manual_seed(1)
    torch.jit.script(torch.nn.Sequential(build_towers(TINY_TOWER).visual.ln_post)).save(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(weight_files.OPENAI, "RN50", replace(weight_files.OPENAI["RN50"], sha256=digest))
    return path, digest


@pytest.fixture()
def site(archive, monkeypatch):
    with local_site() as served:
        monkeypatch.setitem(weight_files.OPENAI, "RN50", replace(
            weight_files.OPENAI["RN50"], address=f"{served.address}/{archive[1]}/RN50.pt"))
        served.bodies[f"{archive[1]}/RN50.pt"] = archive[0].read_bytes()
        yield served


def test_weights_are_fetched_into_the_cache_once(site, archive, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".cache/clip/RN50.pt"
    site.manners[f"{archive[1]}/RN50.pt"], site.times[f"{archive[1]}/RN50.pt"] = "cut", 1
    line = f"RN50: {path}, SHA-256 {archive[1]} "
    assert call(capfd, "weights", "RN50") == (0, f"{line}(written)\n", "")
    assert path.read_bytes() == archive[0].read_bytes() and weight_files.read_state(path)
    assert [asked for _, asked in site.asked] == [None, "bytes=1000-"]
    assert call(capfd, "weights", "rn50") == (0, f"{line}(was there already)\n", "")
    assert weight_files.find(weight_files.OPENAI["RN50"], None) == (path, archive[1])  # a run finds them
    path.write_bytes(b"damaged")
    assert call(capfd, "weights", "RN50") == (0, f"{line}(written)\n", "")
    assert len(site.asked) == 3 and path.read_bytes() == archive[0].read_bytes()


def test_weights_from_a_file(archive, tmp_path, capfd):
    source, digest = archive
    out = tmp_path / "cache"
    status, text, _ = call(capfd, "weights", "RN50", "--from", source, "--dir", out)
    assert (status, text) == (0, f"RN50: {out}/RN50.pt, SHA-256 {digest} (written)\n")
    assert (out / "RN50.pt").read_bytes() == source.read_bytes()
    other = tmp_path / "other.pt"
    other.write_bytes(b"another")
    for name in ("ViT-B/16", "vit-b-16"):
        status, text, err = call(capfd, "weights", name, "--from", other, "--dir", out)
        assert status == 1 and not text and not list(out.glob("ViT*.pt"))
        assert err == (
            f"\nWeightsError: these are not the weights of ViT-B/16: {other}: damaged or another file: expected "
            f"SHA-256 {weight_files.OPENAI['ViT-B/16'].sha256}, found "
            f"{hashlib.sha256(b'another').hexdigest()} (7 bytes)\n")
    status, _, err = call(capfd, "weights", "RN101", "--from", tmp_path / "none.pt", "--dir", out)
    assert (status, err) == (1, f"\nWeightsError: {tmp_path}/none.pt: cannot be read: No such file or directory\n")
    status, _, err = call(capfd, "weights", "RN101", "--from", tmp_path, "--dir", out)
    assert (status, err) == (1, f"\nWeightsError: {tmp_path}: cannot be read: Is a directory\n")


def test_wrong_bytes_from_the_address_are_refused(site, archive, tmp_path, capfd):
    site.bodies[f"{archive[1]}/RN50.pt"] = b"<html>"
    status, text, err = call(capfd, "weights", "RN50", "--dir", tmp_path / "cache")
    assert status == 1 and not text and not list((tmp_path / "cache").glob("*.p*t"))
    assert err == (f"\nWeightsError: these are not the weights of RN50: {site.address}/{archive[1]}/RN50.pt: damaged "
                   f"or another file: expected SHA-256 {archive[1]}, found {hashlib.sha256(b'<html>').hexdigest()} "
                   "(6 bytes)\n")


@pytest.mark.parametrize(("manner", "reason"), [("404", "HTTP 404 Not Found"), ("stall", "Read timed out")])
def test_without_network_it_says_what_to_do(site, archive, tmp_path, capfd, manner, reason):
    site.manners[f"{archive[1]}/RN50.pt"] = manner
    status, text, err = call(capfd, "weights", "RN50", "--dir", tmp_path / "cache")
    assert status == 1 and not text and reason in err
    assert err.endswith(
        f"\nOn a machine with network fetch\n  {site.address}/{archive[1]}/RN50.pt\n    SHA-256 {archive[1]}\n    as "
        f"{tmp_path}/cache/RN50.pt\nor give the file with --from FILE\n")


def test_all_are_listed(tmp_path, capfd):
    (tmp_path / "RN101.pt").touch()
    status, text, _ = call(capfd, "weights", "--list", "--dir", tmp_path)
    assert status == 0 and text.count("SHA-256") == 13
    for name, known in weight_files.OPENAI.items():
        digest, file = known.sha256, known.address.rsplit("/", 1)[-1]
        here = "here, not checked" if name == "RN101" else "not here"
        assert (f"{name}\n  {tmp_path}/{file} ({here})\n  SHA-256 {digest}\n  "
                f"https://openaipublic.azureedge.net/clip/models/{digest}/{file}\n") in text
    assert (f"resnet50\n  {tmp_path}/resnet50-0676ba61.pth (not here)\n  SHA-256 0676ba61\n"
            "  https://download.pytorch.org/models/resnet50-0676ba61.pth\n") in text


def test_imagenet_weights_from_a_file_must_begin_with_the_digits_of_their_name(tmp_path, capfd, monkeypatch):
    source = tmp_path / "resnet18.pth"
    source.write_bytes(b"weights")
    status, _, err = call(capfd, "weights", "resnet18", "--from", source, "--dir", tmp_path / "cache")
    assert status == 1 and "expected SHA-256 f37072fd, found" in err
    digits = hashlib.sha256(b"weights").hexdigest()[:8]
    own = weight_files.Published("https://a.b/resnet18-abc.pth", digits, str(tmp_path))
    monkeypatch.setattr("runs.preparing.weights.published", lambda _: own)
    status, text, _ = call(capfd, "weights", "resnet18", "--from", source, "--dir", tmp_path / "cache")
    assert (status, text) == (0, f"resnet18: {tmp_path}/cache/resnet18-abc.pth, SHA-256 {own.sha256} (written)\n")


@pytest.mark.parametrize(("arguments", "text"), [
    ([], ", or --list, found neither\n"), (["ViT-B-17"], ", found 'ViT-B-17'; did you mean ViT-B/16?\n"),
    (["inception"], ", found 'inception'\n"),
])
def test_a_name_is_needed_and_must_be_known(arguments, text, capfd):
    status, _, err = call(capfd, "weights", *arguments)
    known = ", ".join([*weight_files.OPENAI, *weight_files.IMAGENET])
    assert status == 1 and err == f"\nWeightsError: NAME: expected one of {known}{text}"


def test_an_interruption_is_said_to_be_one(capfd, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("runs.preparing.weights.fetch", stop)
    assert call(capfd, "weights", "RN50") == (130, "", "\nstopped by SIGINT; what was saved before is untouched\n")
