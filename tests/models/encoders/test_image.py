"""torchvision's towers: what torchvision computes, under the published state names, from checked weights."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision.models
from torch import nn

from models.encoders import weight_files
from models.encoders.base import encode_clips
from models.encoders.image import NAMES, image_encoder
from tests.conftest import REPOSITORY
from utils.errors import ConfigError, WeightsError
from utils.files import sha256

REAL = Path(REPOSITORY).parent / "shared" / "real_clips"
WIDTHS = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "mobilenet_v2": 1280}


def encoder_of(name: str, weights: str | None = "random", output: str = "vector", weights_dir: str | None = None):
    """An image encoder for a head without text."""
    return image_encoder(name=name, weights=weights, weights_dir=weights_dir, reads_text=False, output=output)


def network_of(name: str) -> nn.Module:
    """torchvision's network with random weights and running statistics."""
    torch.manual_seed(1)
    network = torchvision.models.get_model(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """A ResNet-18."""
    return network_of("resnet18")


def saved(network: nn.Module, path: Path) -> Path:
    """The network's state in a file of the kind that the name asks for."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    return path


def test_children_stand_in_one_sequence_under_the_published_names():
    kept = encoder_of("resnet50").visual.state_dict()
    assert kept.keys() >= {"0.weight", "1.running_var", "4.0.conv1.weight", "5.0.downsample.1.running_var",
                           "7.2.bn3.bias"}
    assert {name.split(".")[0] for name in kept} == {"0", "1", "4", "5", "6", "7"}
    assert {name.split(".")[0] for name in encoder_of("mobilenet_v2").visual.state_dict()} == {"0"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES][::2])
def test_vectors_and_maps_are_those_of_torchvision(name, tmp_path):
    network = network_of(NAMES[name])
    file = saved(network, tmp_path / "w.pth")
    vectors, maps = (encoder_of(name, str(file), output) for output in ("vector", "map"))
    clips = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = encode_clips(vectors.visual.eval(), clips)
    assert found.shape == (2, 3, WIDTHS[NAMES[name]]) and vectors.dim == maps.dim == found.shape[-1]
    found_maps = encode_clips(maps.visual.eval(), clips)
    assert found_maps.shape == (*found.shape, 2, 2)
    torch.testing.assert_close(found_maps.mean(dim=(-2, -1)), found)
    for part in ("fc", "classifier"):
        if hasattr(network, part):
            setattr(network, part, nn.Identity())
    torch.testing.assert_close(found, network.eval()(clips.flatten(0, 1)).unflatten(0, (2, 3)))
    assert (vectors.image_size, vectors.text) == (None, None)


@pytest.mark.parametrize("kind", ["w.pt", "w.pth", "w.safetensors"])
def test_files_of_every_kind_and_of_half_precision_are_read(resnet, kind, tmp_path):
    half = network_of("resnet18").half()
    encoder = encoder_of("ResNet18", str(saved(half, tmp_path / kind)))
    assert torch.equal(encoder.visual[0].weight, half.conv1.weight.float())
    assert {value.dtype for value in encoder.visual.state_dict().values()} == {torch.float32, torch.int64}
    assert encoder.weights.startswith(f"{kind} sha256:") and encoder.pretraining == f"not known ({kind})"


def test_old_files_without_counts_of_batches_and_other_classifiers_are_read(resnet, tmp_path):
    state = {k: v for k, v in resnet.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save({**state, "fc.weight": torch.zeros(7, 512)}, tmp_path / "w.pth")
    encoder = encoder_of("resnet18", str(tmp_path / "w.pth"))
    assert torch.equal(encoder.visual[7][1].bn2.running_var, resnet.layer4[1].bn2.running_var)


def test_weights_of_another_tower_are_refused_by_name(resnet, tmp_path):
    file = saved(resnet, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w.pth: these weights are of another model: missing layer1.2.conv1.weight "
                                           r"\[64, 64, 3, 3\]"):
        encoder_of("resnet34", str(file))
    torch.save({**resnet.state_dict(), "conv1.weight": torch.zeros(64, 3, 3, 3)}, file)
    with pytest.raises(WeightsError, match=r"conv1.weight: expected shape \[64, 3, 7, 7\], found \[64, 3, 3, 3\]"):
        encoder_of("resnet18", str(file))


@pytest.mark.slow
def test_imagenet_weights_lie_in_a_cache_and_must_begin_with_their_digits(resnet, tmp_path, monkeypatch):
    assert weight_files.published("resnet50") == weight_files.Published(
        "https://download.pytorch.org/models/resnet50-0676ba61.pth", "0676ba61", f"{torch.hub.get_dir()}/checkpoints")
    file = saved(resnet, tmp_path / "resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match="f37072fd.pth: damaged or another file: expected SHA-256 f37072fd, "):
        encoder_of("resnet18", None, weights_dir=str(tmp_path))
    own = weight_files.Published("http://127.0.0.1:9/resnet18-f37072fd.pth", sha256(file)[:8], "nowhere")
    monkeypatch.setattr(weight_files, "published", lambda _: own)
    for weights in (None, "imagenet"):
        encoder = encoder_of("resnet18", weights, weights_dir=str(tmp_path))
        assert encoder.pretraining == "ImageNet-1k classification"
        assert torch.equal(encoder.visual[0].weight, resnet.conv1.weight)
    with pytest.raises(WeightsError, match=r"fetch http://127.0.0.1:9/resnet18-f37072fd.pth \(SHA-256 .{8}\) and place "
                                           r"it at .*other/resnet18-f37072fd.pth, or name a file"):
        encoder_of("resnet18", None, weights_dir=str(tmp_path / "other"))


def test_random_weights_are_those_that_torchvision_draws():
    torch.manual_seed(5)
    encoder = encoder_of("resnet18")
    torch.manual_seed(5)
    assert torch.equal(encoder.visual[4][0].conv1.weight, torchvision.models.resnet18().layer1[0].conv1.weight)
    assert (encoder.weights, encoder.pretraining) == ("random", "random")


def test_there_is_no_text_tower():
    with pytest.raises(ConfigError, match="the head reads class names and resnet50 has no text tower; expected one"):
        image_encoder(name="resnet50", weights=None, weights_dir=None, reads_text=True)


def test_a_tower_that_sees_clips_gets_them_whole():
    class Mean(nn.Module):
        takes_clips = True

        def forward(self, clips):
            return clips.mean(dim=(2, 3, 4))[..., None]

    clips = torch.rand(2, 3, 3, 4, 4)
    torch.testing.assert_close(encode_clips(Mean(), clips), clips.mean(dim=(2, 3, 4))[..., None])


@pytest.mark.shared("real_clips")
def test_real_weights_see_a_racket():
    """MobileNetV2 as float16 in a file with 1001 classes; its classifier, which the tower drops, reads the features."""
    import av

    file = next((REAL / "mobilenet_v2_imagenet").glob("*.pt"))
    tower = encoder_of("MobileNetV2", str(file)).visual.eval()
    labels = (REAL / "mobilenet_v2_imagenet" / "imagenet_labels.txt").read_text().splitlines()
    with av.open(str(next((REAL / "tennis7" / "clips").rglob("f_volley13.mp4")))) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)][::6])
    pictures = nn.functional.interpolate(torch.from_numpy(frames).permute(0, 3, 1, 2).float(), (224, 224),
                                         mode="bilinear", antialias=True)
    state = weight_files.read_state(file)
    with torch.no_grad():
        features = encode_clips(tower, pictures[None] / 127.5 - 1)[0]
        logits = features @ state["classifier.1.weight"].float().T + state["classifier.1.bias"].float()
    assert labels[logits.softmax(dim=-1).mean(dim=0).argmax()].startswith("racket")
