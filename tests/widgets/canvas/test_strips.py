"""Marginal strips of a matrix whose rows are all equal are flat, however it is binned; scales do not ask the screen."""

import numpy as np
import pytest
from scipy import sparse

from kernels.raster import bin_edges, raster
from widgets.canvas import image
from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.source import BitsSource, CsrSource, WeightSource


def sources(rng, m, n):
    """Return the same equal rows as a sparse matrix, as bits, and as weights of which most are tiny."""
    line = rng.random(n) < 0.2
    line[rng.integers(n)] = True
    entries = np.tile(line, (m, 1))
    yield CsrSource(sparse.csr_array(entries.astype(float)))
    yield BitsSource(np.packbits(entries, axis=1, bitorder="little"), n)
    yield WeightSource(np.tile(rng.random(n).astype(np.float32) ** 20 * np.float32(1e-6), (m, 1)))


@pytest.mark.parametrize("seed", range(12))
def test_equal_rows_make_a_flat_strip_at_any_size_and_zoom(seed):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(2, 2000, 2)
    for source in sources(rng, m, n):
        canvas = RasterCanvas()
        canvas.show(source)
        for _ in range(4):
            r0, c0 = rng.integers(0, m), 0
            window = (int(r0), int(rng.integers(r0 + 1, m + 1)), c0, int(n))
            shape = tuple(int(side) for side in rng.integers(1, 1024, 2))
            header, buffers = canvas.tile(window, shape)
            sums = np.frombuffer(buffers[1], np.uint32)
            assert len(sums) == min(shape[0], window[1] - window[0])
            strip = sums / np.diff(bin_edges(window[1] - window[0], len(sums)))
            strip = strip / strip.max()
            tolerance = 2e-3 if isinstance(source, WeightSource) else 0  # weights are counted in parts
            assert strip.max() == 1 and strip.min() >= 1 - tolerance
            assert sums.sum() == header["total"]
        canvas.close()


@pytest.mark.parametrize("m", [1500, 1024, 1333, 2047])
def test_the_strip_of_a_saved_picture_is_flat(m):
    canvas = RasterCanvas(title="Equal rows")
    canvas.show(CsrSource(sparse.csr_array(np.tile(np.arange(40) % 3 == 0, (m, 1)).astype(float))))
    strips = canvas._sheet().strips
    assert len(set(strips.rows)) == 1 and strips.rows[0] == 14
    np.testing.assert_allclose(strips.columns, np.where(np.arange(40) % 3 == 0, m, 0))
    canvas.close()


def test_the_end_of_the_scale_does_not_ask_for_the_size_of_the_picture(rng):
    matrix = sparse.random_array((3000, 2500), density=0.002, format="csr", rng=rng)
    canvas = RasterCanvas()
    canvas.show(CsrSource(matrix))
    window = (100, 2900, 7, 2400)
    found = {canvas.tile(window, shape)[0]["densest"] for shape in ((1024, 1024), (300, 300), (313, 977), (1, 1))}
    counts = raster(matrix, window, (512, 512))
    areas = np.multiply.outer(*(np.diff(np.ceil(np.arange(513) * size / 512)) for size in (2800, 2393)))
    assert found == {float((counts / areas).max())} == {canvas.densest(window)}
    assert canvas.densest((0, 400, 0, 400)) == 1  # no more positions than parts: an entry fills its own
    canvas.close()


def test_the_end_of_a_scale_of_weights_is_a_weight(rng):
    weights = rng.random((300, 300)).astype(np.float32)
    canvas = RasterCanvas()
    canvas.show(WeightSource(weights))
    assert canvas.densest() == pytest.approx(float(weights.max()), rel=1e-3)
    canvas.close()


def test_levels_end_where_they_are_told_to():
    counts, areas = np.array([[0, 1, 4, 16]]), np.ones((1, 4))
    shades, top = image.levels(counts, areas, 4.0)
    assert top == 4 and shades.tolist() == [[0, 1 + 127, 255, 255]]
    assert image.levels(counts, areas, 64.0)[0].tolist() == [[0, 1 + 32, 1 + 64, 1 + 127]]


def test_a_saved_picture_has_the_colours_of_its_scale():
    canvas = RasterCanvas()
    canvas.show(CsrSource(sparse.csr_array(np.eye(8))))
    own = canvas.png()
    canvas.scale_top = 4.0
    assert canvas.png() != own
    canvas.scale_top = 1.0
    assert canvas.png() == own
    canvas.close()
