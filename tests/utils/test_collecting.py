"""Garbage is not looked for while a great many objects are made, and is again afterwards."""

import gc

import pytest

from utils.collecting import uncollected


@pytest.mark.parametrize("fails", [False, True])
def test_collection_goes_on_after_the_block(fails):
    assert gc.isenabled()
    try:
        with uncollected():
            assert not gc.isenabled()
            with uncollected():
                pass
            assert not gc.isenabled(), "the block within has ended, not the one around it"
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert gc.isenabled()


def test_only_a_first_import_makes_what_is_there_permanent(monkeypatch):
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    for loads, times in ((None, 0), ("gc", 0), ("a module that is not there yet", 1)):
        frozen: list[bool] = []
        with uncollected(loads):
            pass
        assert len(frozen) == times, loads
