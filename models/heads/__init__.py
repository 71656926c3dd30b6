"""Fill the registry of few-shot heads, one file a method: `HEADS["CNN_OTAM_CLIPFSAR"]`."""

from models.heads.clip_fsar import ClipFsar
from models.heads.mean_pool import MeanPool
from models.registries import HEADS

__all__ = ["HEADS", "ClipFsar", "MeanPool"]
