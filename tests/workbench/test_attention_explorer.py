"""The attention explorer: every method on generated heads, own files, refusals, recipe."""

import io

import numpy as np
import pytest

from workbench.attention_explorer import explorer
from workbench.models.attention_inputs import load_input, read_npz
from workbench.models.attention_methods import METHODS, coverage_curve


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_shows_a_head_and_counts_its_cost(method):
    view = explorer(input="heavy", method=method, tokens=256, block=16).wait()
    try:
        assert view.error == ""
        result = view.scene.result
        assert result.panels["attention"].sum() == pytest.approx(256, rel=1e-4)
        assert 0 < result.density <= 1.2
        assert int(result.facts["operations to attend (counted)"].replace(",", "")) > 0
    finally:
        view.close()


def test_curves_rise_with_density():
    given = load_input("slash", tokens=256)
    state = {"block": 16, "stride": 4, "threshold": 0.9, "sampler": "antidiagonal"}
    density, coverage, settings = coverage_curve(given, "xattention", state)
    assert (np.diff(density) >= 0).all() and (np.diff(coverage) >= 0).all() and len(settings) == len(density)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_own_file_is_shown_and_bad_ones_are_named(rng):
    q, k = rng.standard_normal((2, 3, 40, 8))
    given = read_npz(npz(q=q, k=k), "mine.npz")
    np.testing.assert_allclose(given.q[0, 0], q[0], rtol=1e-6)
    np.testing.assert_allclose(given.v, given.k)
    for content, words in (
        (b"not a zip", "not a readable .npz"),
        (npz(q=q), "must hold arrays q and k"),
        (npz(q=q, k=k[:, :5]), "one shape"),
        (npz(q=q.astype(int), k=k), "must be floats"),
        (npz(q=np.full((4, 2), np.nan), k=k), "NaN"),
        (npz(q=np.array([{}], object), k=k), "not a readable .npz"),
    ):
        with pytest.raises(ValueError, match=words):
            read_npz(content, "bad.npz")


def test_what_is_too_long_is_refused_before_work():
    view = explorer(input="heavy", method="combiner", tokens=128)
    try:
        view.wait()
        view.tokens = 4096
        assert "takes up to 1,024 tokens" in view.error
        view.input = "file"
        view.tokens = 128
        assert "No file yet" in view.wait().error
    finally:
        view.close()
