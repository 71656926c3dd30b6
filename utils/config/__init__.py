"""Read layered YAML into a checked, frozen configuration: `load_config(path, ["TRAIN.SHOT", "5"])`."""

from utils.config.loader import load_config, resolve_config
from utils.config.schema import Config

__all__ = ["Config", "load_config", "resolve_config"]
