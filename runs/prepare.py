"""Make a data set ready to run: python runs/prepare.py COMMAND --help"""

import importlib
from types import ModuleType

COMMANDS = {
    "demo": ("render the demo's videos and split lists; nothing is downloaded",
             "python runs/prepare.py demo --out data/demo"),
    "lists": ("make, import or fetch the split lists of a data set, checked",
              "python runs/prepare.py lists ucf101 --videos data/ucf101/videos"),
    "weights": ("fetch CLIP's or ImageNet weights, or take them from a file, checked",
                "python runs/prepare.py weights ViT-B/16"),
    "check": ("find, open and decode every listed video; say what is missing, unreadable, too short",
              "python runs/prepare.py check --cfg X.yaml --write-lists data/checked"),
    "probe": ("show what the decoder sees in a video and which frames each sampling takes",
              "python runs/prepare.py probe video.mp4 --cfg X.yaml --out video.png"),
    "cache": ("decode and resize the frames of every listed video once, for DATA.FRAME_CACHE",
              "python runs/prepare.py cache --cfg X.yaml --out data/frames"),
}


def load(name: str) -> ModuleType:
    """Return the module of a command."""
    return importlib.import_module(f"runs.preparing.{name}")


if __name__ == "__main__":
    from clip_fsar import start

    start("prepare")
