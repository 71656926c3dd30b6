"""Fill the registry of few-shot heads, one file a method: `HEADS["CNN_OTAM_CLIPFSAR"]`."""

from models.heads.clip_fsar import ClipFsar
from models.heads.cross_transformer import CrossTransformer
from models.heads.d2st_adapter import D2stAdapter
from models.heads.hyrsm import Hyrsm, Hyrsm5Shot
from models.heads.hyrsm_plusplus import PlusPlus, PlusPlus5Shot, PlusPlusSemi
from models.heads.mean_pool import MeanPool
from models.heads.molo import Molo
from models.heads.otam import Otam
from models.heads.training_free import Frozen, FrozenText
from models.heads.trx import Trx
from models.heads.ts_fsar import TsFsar
from models.heads.tsn import Tsn
from models.registries import HEADS

__all__ = ["HEADS", "ClipFsar", "CrossTransformer", "D2stAdapter", "Frozen", "FrozenText", "Hyrsm",
           "Hyrsm5Shot", "MeanPool", "Molo", "Otam", "PlusPlus", "PlusPlus5Shot", "PlusPlusSemi",
           "Trx", "TsFsar", "Tsn"]
