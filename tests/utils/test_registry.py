"""Registries: published names resolve; unknown and doubled names say so."""

import pytest

import models.builder  # noqa: F401  (fills the registries)
from datasets.annotations import LIST_FORMATS
from datasets.decoding import DECODERS
from datasets.few_shot import DATASETS
from models.registries import ALIGNMENTS, ENCODERS, HEADS, MODULATORS
from utils.errors import RegistryError
from utils.registry import Registry


@pytest.mark.parametrize("registry, names", [
    (DATASETS, ["Ssv2_few_shot"]), (LIST_FORMATS, ["Ssv2_few_shot", "Kinetics_few_shot", "HMDB_few_shot"]),
    (DECODERS, ["decord", "pyav", "frames"]), (ENCODERS, ["clip", "image"]),
    (MODULATORS, ["transformer"]), (ALIGNMENTS, ["otam", "otam_triton"]), (HEADS, ["CNN_OTAM_CLIPFSAR"])])
def test_published_names_resolve(registry, names):
    for name in names:
        assert name in registry and callable(registry[name]) or registry is LIST_FORMATS
        assert name in list(registry)


def test_unknown_and_doubled_names():
    registry = Registry("fruit", "garden.py", also=("any",))
    registry.register("apple", "pear")(1)
    with pytest.raises(RegistryError, match="^unknown fruit 'aple', did you mean 'apple'\\?; known: any, apple, pear "
                       r"\(another is registered in garden.py\)$"):
        registry["aple"]
    with pytest.raises(RegistryError, match="^fruit 'pear' is registered twice$"):
        registry.register("pear")(2)
