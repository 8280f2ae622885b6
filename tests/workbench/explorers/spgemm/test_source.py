"""Operands of the SpGEMM explorer: every source yields a pair, a guest's file adds one, wrong settings are named."""

import importlib
import sys

import numpy as np
import pytest

from kernels.matmul.spgemm import spgemm
from workbench.explorers.spgemm import sources as folder
from workbench.explorers.spgemm.explorer import explorer
from workbench.explorers.spgemm.source import load_pair, small_values, sources
from workbench.machines.piuma import simulate_spgemm

GUEST = '''"""Ones on the diagonal, squared."""

import scipy.sparse as sp

from workbench.explorers.spgemm.knobs import SCALE
from workbench.explorers.spgemm.source import Source


def _make(settings):
    ones = sp.eye_array(2 ** settings["scale"], format="csr")
    return ones, ones


SOURCE = Source(key="ones", title="Ones on the diagonal", make=_make, knobs=(SCALE,))
'''


def settings(source, **wanted):
    return {knob.key: wanted[knob.key] for knob in sources()[source].knobs if knob.key in wanted}


@pytest.mark.parametrize("source", [key for key in sources() if key != "w0"])
def test_every_pair_can_be_multiplied_and_run(source):
    pair = load_pair(source, **settings(source, scale=6, edge_factor=4))
    expected = pair.a @ pair.b
    c = spgemm(pair.a, pair.b)
    assert np.abs((c - expected).toarray()).max() <= 1e-12 * max(1.0, np.abs(expected.data).max())
    assert simulate_spgemm(pair.a, pair.b, 2).inserts == c.nnz
    assert pair.title.startswith(sources()[source].title)


def test_equal_settings_give_equal_operands():
    first, again, other = (made("rmat", scale=6, seed=seed) for seed in (1, 1, 5))
    assert np.array_equal(first.indices, again.indices) and np.array_equal(first.data, again.data)
    assert not np.array_equal(first.indices, other.indices)
    pairs = [load_pair("rmat", scale=6, seed=seed) for seed in (1, 1, 5)]
    assert pairs[0] is pairs[1]
    assert pairs[0].made_from == ("rmat", 6, 3, 0.47, 0.115, 0.115, True, 1) != pairs[2].made_from


def made(source, **wanted):
    """A of a source, made anew."""
    defaults = {knob.key: knob.default for knob in sources()[source].knobs}
    return sources()[source].make(defaults | wanted)[0]


def test_small_values_keep_the_pattern():
    a, b = load_pair("karate").a, load_pair("les_miserables").a
    drawn = small_values(a, b)
    for x, y in zip(drawn, (a, b), strict=True):
        assert np.array_equal(x.indices, y.indices) and np.array_equal(x.indptr, y.indptr)
        assert set(x.data) <= set(range(1, 10)) and len(set(x.data)) > 3
    assert np.array_equal(drawn[0].data, small_values(a, b)[0].data)


def test_wrong_settings_are_named():
    with pytest.raises(KeyError, match="did you mean 'karate'"):
        load_pair("karatee")
    with pytest.raises(TypeError, match="karate has no setting 'scale'; it has none"):
        load_pair("karate", scale=6)
    with pytest.raises(TypeError, match="banded has no setting 'seed'; its settings are scale"):
        load_pair("banded", seed=6)
    with pytest.raises(ValueError, match="scale: must be from 4 to 12"):
        load_pair("banded", scale=20)


@pytest.fixture
def add_source(tmp_path, monkeypatch):
    """Write a source's file into a folder beside the house's own."""

    def add(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
        importlib.invalidate_caches()
        sources.cache_clear()
        names.append(f"{folder.__name__}.{name}")

    names = []
    yield add
    sources.cache_clear()
    for name in names:
        sys.modules.pop(name, None)


def test_a_guest_file_adds_operands_and_edits_nothing(add_source):
    add_source("ones", GUEST)
    view = explorer(query="operands=ones&scale=6")
    assert ("ones", "Ones on the diagonal") in view.knob("operands").choices
    assert [spec["key"] for spec in view._panel.controls] == ["operands", "scale"]
    assert view.error == "" and view.scene.title == "Ones on the diagonal, 64 rows"
    assert view.scene.products == view.scene.c.nnz == 64
    view.close()


def test_a_knob_that_is_defined_twice_is_refused(add_source):
    own = 'from widgets.controls.knob import Knob\n\nSCALE = Knob("scale", "Mine", 5)'
    add_source("ones", GUEST.replace("from workbench.explorers.spgemm.knobs import SCALE", own))
    with pytest.raises(ValueError, match=r"ones defines the knob 'scale' again, which knobs\.py has"):
        explorer()
