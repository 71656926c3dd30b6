"""Weights are found or downloaded, checked, read without running code from the file, and fitted strictly."""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from utils import torch_files
from utils.checkpoint import misfits, plain_names, unreadable
from utils.errors import DownloadError, HashError, WeightsError
from utils.files import sha256
from utils.foreign import regular


@dataclass(frozen=True, slots=True)
class Published:
    """This names a weights file that its makers offer for download."""

    address: str  # the file keeps the last part of it as its name
    sha256: str  # its SHA-256 (hex), or as many of the first digits as its makers tell
    cache: str  # the directory that it is kept in unless another is named

    def path(self, weights_dir: str | None) -> Path:
        """Return where the file lies on this machine."""
        return Path(weights_dir or self.cache).expanduser() / self.address.rsplit("/", 1)[-1]


def _openai(sha256_and_file: str) -> Published:
    return Published(f"https://openaipublic.azureedge.net/clip/models/{sha256_and_file}", sha256_and_file[:64],
                     "~/.cache/clip")


OPENAI = {
    "RN50": _openai("afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt"),
    "RN101": _openai("8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599/RN101.pt"),
    "RN50x4": _openai("7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd/RN50x4.pt"),
    "RN50x16": _openai("52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa/RN50x16.pt"),
    "RN50x64": _openai("be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c/RN50x64.pt"),
    "ViT-B/32": _openai("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"),
    "ViT-B/16": _openai("5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt"),
    "ViT-L/14": _openai("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt"),
    "ViT-L/14@336px": _openai("3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt"),
}
IMAGENET = ("resnet18", "resnet34", "resnet50", "mobilenet_v2")  # torchvision's names
_EXTRA = {"input_resolution", "context_length", "vocab_size"}  # numbers OpenAI's archives carry beside the weights
_TYPES = {"HalfStorage": torch.float16, "FloatStorage": torch.float32, "DoubleStorage": torch.float64,
          "LongStorage": torch.int64, "IntStorage": torch.int32, "BFloat16Storage": torch.bfloat16,
          "BoolStorage": torch.bool, "ByteStorage": torch.uint8}


def published(name: str) -> Published:
    """Return the weights published for a name of OPENAI or IMAGENET; torchvision's are the classic IMAGENET1K_V1."""
    if name in OPENAI:
        return OPENAI[name]
    import torchvision.models

    address = str(torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url)
    digits = address.removesuffix(".pth").rsplit("-", 1)[-1]
    return Published(address, digits, f"{torch.hub.get_dir()}/checkpoints")


def find(weights: str | Published, weights_dir: str | None) -> tuple[Path, str]:
    """Return (file, SHA-256) of a local file, or of a published one, which is downloaded unless it is in the cache.

    Raises WeightsError when the file is missing, cannot be downloaded, or has another hash than it must have.
    """
    if isinstance(weights, str):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError("VIDEO.HEAD.BACKBONE_WEIGHTS: expected openai (for CLIP), imagenet (torchvision), "
                               f"random or a file, found no file {path}")
        return path, sha256(path)
    path = weights.path(weights_dir)
    if not path.is_file():
        download(weights.address, path, weights.sha256)
    found = sha256(path)
    if not found.startswith(weights.sha256):
        raise WeightsError(f"{path}: damaged or another file: expected SHA-256 {weights.sha256}, found {found}; "
                           "delete it and start again")
    return path, found


def download(url: str, path: Path, expected: str) -> None:
    """Fetch a file (see utils.download.fetch). Raises WeightsError that says what to do without a network."""
    from utils.download import fetch  # most runs find the file where it is

    try:
        fetch(url, path, expected)
    except HashError as error:
        raise WeightsError(str(error)) from error
    except DownloadError as error:
        raise WeightsError(f"{error}. On a machine with network fetch {url} (SHA-256 {expected}) and place it "
                           f"at {path}, or name a file of such weights: VIDEO.HEAD.BACKBONE_WEIGHTS FILE, or --weights "
                           "FILE of predict.py, serve.py and export.py") from error


def _strided(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if math.prod(size) > storage.numel():
        raise WeightsError(f"refused: it makes {math.prod(size):,} numbers of {storage.numel():,}")
    return storage.as_strided(size, stride, offset).clone()


class _ArchiveUnpickler(pickle.Unpickler):
    """This reads the attribute tree of a TorchScript archive. Only tensors and inert containers can come out of it."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str):
        super().__init__(io.BytesIO(archive.read(f"{prefix}/data.pkl")))
        self._archive, self._prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (_Node,), {})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch.jit._pickle":
            return lambda value=None, *_: value
        raise WeightsError(f"refused: the file wants to run {module}.{name}")

    def persistent_load(self, pid: tuple[Any, ...]) -> Tensor:
        _, storage_type, key, _, _ = pid
        kind = _TYPES[storage_type]
        blob = bytearray(self._archive.read(f"{self._prefix}/data/{key}"))
        return torch.frombuffer(blob, dtype=kind) if blob else torch.empty(0, dtype=kind)


class _Node:
    """This stands for a module of the archive; it has attributes and no behaviour."""

    def __init__(self, *_: Any):
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _tensors(node: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors below a node by dotted name."""
    if isinstance(node, Tensor):
        return {prefix.removesuffix("."): node}
    items = node.state if isinstance(node, _Node) else node
    return {name: found for key, value in (items.items() if isinstance(items, dict) else ())
            for name, found in _tensors(value, f"{prefix}{key}.").items()}


def _read_archive(path: Path) -> dict[str, Tensor] | None:
    """Read the state of a TorchScript archive; None when the file is not one."""
    if not torch_files.is_zip(path):
        return None
    with zipfile.ZipFile(path) as archive:
        roots = [n.removesuffix("/data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")]
        if not roots or f"{roots[0]}/constants.pkl" not in archive.namelist():
            return None
        torch_files.check_sums(path)
        return _tensors(_ArchiveUnpickler(archive, roots[0]).load())


def read_state(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from OpenAI's TorchScript archive, a plain state dict (.pt, .pth) or a .safetensors file.

    Nothing in the file is run. Raises WeightsError naming the file when it is none of these.
    """
    regular(path, WeightsError)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state: Any = _read_archive(path)
        if state is None:
            state = torch_files.load(path, WeightsError)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:
        raise WeightsError(f"{path}: expected weights (a TorchScript archive, a state dict or safetensors): "
                           f"{unreadable(error, path, 'weights')}") from error
    for wrapper in ("state_dict", "model_state"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: expected tensors by name, found a {type(state).__name__} without any")
    return plain_names({k: v for k, v in state.items() if isinstance(v, Tensor) and isinstance(k, str)})


def _with_counts(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file that are weights, and the counts of batches that old files lack."""
    found = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    return found | {k: v for k, v in state.items() if k not in _EXTRA and not k.endswith("attn_mask")}


def fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors of a file are a module's weights, by their names and shapes."""
    counted = {k: v for k, v in own.items() if not k.endswith("num_batches_tracked")}
    return not misfits(counted, {k: v for k, v in _with_counts({}, state).items() if k in counted or k not in own})


def fit(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights strictly, in the module's own precision. Only counts of batches may be missing, as in old files.

    Raises WeightsError listing the names and shapes that do not fit.
    """
    own = module.state_dict()
    found = _with_counts(own, state)
    if problems := misfits(own, found):
        raise WeightsError(f"{path}: these weights are of another model: {problems}")
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in found.items()})
