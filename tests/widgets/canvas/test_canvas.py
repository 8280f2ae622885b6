"""What the canvas sends and says: pixels of the matrix, numbers of a direct query, few bytes, files that open."""

import io
import struct
import time
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
import pytest
from scipy import sparse

from kernels.raster import raster
from widgets import theme
from widgets.canvas import image, sheet
from widgets.canvas.canvas import RasterCanvas, bin_of, clip_window
from widgets.canvas.source import BitsSource, CsrSource, ValueSource, WeightSource


@pytest.fixture
def matrix(rng):
    return sparse.random_array((300, 400), density=0.05, format="csr", rng=rng)


@pytest.fixture
def canvas(matrix):
    shown = RasterCanvas(title="Pattern")
    shown.show(CsrSource(matrix), alt="A random pattern.")
    yield shown
    shown.close()


@pytest.mark.parametrize("ask", [RasterCanvas.png, RasterCanvas.svg, lambda canvas: canvas.query(0, 1, 0, 1)])
def test_an_empty_canvas_says_what_it_lacks(ask):
    canvas = RasterCanvas()
    with pytest.raises(ValueError, match="no picture yet; call show"):
        ask(canvas)
    canvas.close()


def pixels_of(header, buffers):
    h, w = header["shape"]
    bits = np.frombuffer(buffers[0], np.uint8)
    if header["packed"]:
        return np.unpackbits(bits, count=h * w, bitorder="little").reshape(h, w)
    return bits.reshape(h, w)


def test_one_to_one_tile_is_the_matrix_as_bits(canvas, matrix):
    header, buffers = canvas.tile((10, 210, 100, 400), (512, 512))
    assert header["packed"] and len(buffers[0]) == 200 * 300 // 8
    np.testing.assert_array_equal(pixels_of(header, buffers), matrix.toarray()[10:210, 100:400] != 0)


def test_duplicates_and_coarse_pixels_travel_as_levels(matrix):
    doubled = sparse.csr_array((np.ones(3), np.array([1, 1, 2]), np.array([0, 3])), shape=(1, 4))
    canvas = RasterCanvas()
    canvas.show(CsrSource(doubled))
    header, buffers = canvas.tile((0, 1, 0, 4), (512, 512))
    assert not header["packed"]
    np.testing.assert_array_equal(pixels_of(header, buffers)[0] > 0, [0, 1, 1, 0])
    canvas.close()


def test_levels_are_zero_only_where_nothing_is_and_rise_with_density():
    counts = np.array([[0, 1, 2, 2], [100, 1, 3, 0]])
    areas = np.array([[1, 100, 100, 200], [100, 1, 3, 4]])
    shades, top = image.levels(counts, areas)
    density = counts / areas
    assert top == 1 and ((shades == 0) == (counts == 0)).all()
    order = np.argsort(density, axis=None)
    assert (np.diff(shades.ravel()[order].astype(int)) >= 0).all()
    assert image.levels(np.zeros((2, 2)), np.ones((2, 2)))[1] == 0


def test_marginal_strips_sum_to_the_entries_in_view(canvas, matrix):
    window = (20, 280, 30, 333)
    header, buffers = canvas.tile(window, (64, 50))
    rows, columns = (np.frombuffer(b, np.uint32) for b in buffers[1:])
    inside = np.count_nonzero(matrix.toarray()[20:280, 30:333])
    assert rows.sum() == columns.sum() == header["total"] == inside
    assert (len(rows), len(columns)) == (64, 50)


@pytest.mark.parametrize("place", ((0, 0), (17, 200), (299, 399)))
def test_read_out_equals_a_direct_query(canvas, matrix, place):
    canvas.block = 16
    dense = matrix.toarray()
    row, column = place
    found = canvas.query(row, row + 1, column, column + 1)
    value = dense[row, column]
    assert found["value"] == (value if value else None) and found["count"] == int(value != 0)
    i, j = row // 16, column // 16
    assert found["block"] == [i, j, np.count_nonzero(dense[16 * i : 16 * i + 16, 16 * j : 16 * j + 16])]
    window, shape = (3, 299, 5, 391), (32, 31)
    if row in range(3, 299) and column in range(5, 391):
        r0, r1, c0, c1 = bin_of(window, shape, row, column)
        assert r0 <= row < r1 and c0 <= column < c1
        assert canvas.query(r0, r1, c0, c1)["count"] == np.count_nonzero(dense[r0:r1, c0:c1])


def test_read_out_of_every_bin_equals_the_picture(canvas, matrix):
    window, shape = (3, 299, 5, 391), (7, 9)
    picture = raster(matrix, window, shape)
    for i, row in enumerate(range(7)):
        for j in range(9):
            r, c = 3 + -(-row * 296 // 7), 5 + -(-j * 386 // 9)
            assert canvas.query(*bin_of(window, shape, r, c))["count"] == picture[i, j]


def test_read_out_names_positions_before_reordering(matrix, rng):
    order = rng.permutation(300)
    canvas = RasterCanvas()
    canvas.show(CsrSource(matrix, order, np.arange(400)))
    assert canvas.query(5, 6, 7, 8)["names"] == [order[5], 7]
    canvas.close()


def test_bits_draw_and_answer_like_the_matrix(matrix):
    dense = matrix.toarray() != 0
    canvas = RasterCanvas()
    canvas.show(BitsSource(np.packbits(dense, axis=1, bitorder="little"), 400))
    np.testing.assert_array_equal(pixels_of(*canvas.tile((0, 300, 0, 400), (512, 512))), dense)
    for row, column in zip(*np.nonzero(dense), strict=True):
        assert canvas.query(row, row + 1, column, column + 1)["value"] == 1
        break
    canvas.close()


def test_read_out_puts_rows_and_columns_into_words():
    weights = np.array([[0.25, 0.0], [2.0, 3.0], [0.5, 0.5]], np.float32)
    canvas = RasterCanvas()
    canvas.show(WeightSource(weights[:2], ("one", "two")))
    answer = canvas.query(1, 2, 0, 1)
    assert answer["labels"] == ["two", "one"] and answer["between"] == "reads"
    canvas.show(WeightSource(weights, ("one", "two", "three"), ("channel 0", "channel 1")))
    answer = canvas.query(2, 3, 1, 2)
    assert answer["labels"] == ["three", "channel 1"] and answer["between"] == "in" and answer["value"] == 0.5
    assert "labels" not in canvas.query(0, 2, 0, 1)
    canvas.close()


def test_values_of_any_sign_are_drawn_by_magnitude_and_read_as_they_are(canvas):
    values = np.array([[-2.0, 0.0], [0.5, 1.0]])
    source = ValueSource.of(values)
    canvas.show(source)
    assert (canvas.unit, source.nnz) == ("magnitude", 3)
    assert np.allclose(source.counts((0, 2, 0, 2), (2, 2)) * source.each, np.abs(values), atol=1e-6)
    assert [canvas.query(r, r + 1, c, c + 1)["value"] for r in (0, 1) for c in (0, 1)] == [-2.0, None, 0.5, 1.0]
    canvas.show(ValueSource.of(values * 1j))
    assert canvas.query(0, 1, 0, 1)["value"] == str(-2j)
    for wrong in (np.zeros(3), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="must be a finite matrix, got shape"):
            ValueSource.of(wrong)


def test_weights_are_counted_in_parts_that_fit_32_bits(rng):
    weights = rng.random((40, 30)).astype(np.float32)
    for scale, each in ((1.0, 1e-6), (1e3, 1e-3), (1e7, 10.0)):
        source = WeightSource(weights * np.float32(scale))
        assert source.each == pytest.approx(each)
        total = source.counts((0, 40, 0, 30), (1, 1))
        assert total.dtype == np.uint32
        assert total[0, 0] * source.each == pytest.approx(scale * weights.sum(dtype=np.float64), rel=1e-3)


def test_page_messages_get_answers(canvas, sent):
    shown = RasterCanvas()
    shown.show(canvas._source)
    sent.clear()
    shown._receive(shown, {"type": "tile", "window": [0, 300, 0, 400], "shape": [100, 5000]}, [])
    shown._receive(shown, {"type": "query", "id": 7, "window": [1, 2, 3, 4]}, [])
    picks = []
    shown.on_pick(lambda row, column: picks.append((row, column)))
    shown._receive(shown, {"type": "pick", "row": 5, "column": 6}, [])
    tile, answer = (data["content"] for _, data, _ in sent)
    assert tile["shape"] == [100, 400] and answer["id"] == 7 and answer["rows"] == [1, 2] and picks == [(5, 6)]
    shown.close()


@pytest.mark.parametrize(
    ("asked", "given"),
    (
        ((-5, 5, 0, 4), (0, 10, 0, 4)),
        ((8, 30, 2, 2), (0, 10, 2, 3)),
        ((90, 95, 3, 9), (5, 10, 2, 8)),
    ),
)
def test_windows_are_moved_inside(asked, given):
    assert clip_window(asked, (10, 8)) == given


def test_an_empty_matrix_is_drawn(rng):
    canvas = RasterCanvas()
    for shape in ((0, 0), (0, 5), (5, 0), (1, 1)):
        canvas.show(CsrSource(sparse.csr_array(shape)))
        header, _ = canvas.tile(tuple(canvas.window), (512, 512))
        assert header["total"] == 0 and canvas.png() and canvas.svg()
    canvas.close()


def test_marks_are_bounded(canvas):
    canvas.mark(rows=[3], columns=[4], cells=[(3, 4)])
    assert canvas.marks == {"rows": [3], "columns": [4], "cells": [[3, 4]]}
    with pytest.raises(ValueError, match="at most 5,000"):
        canvas.mark(cells=np.zeros((5001, 2), int))


def read_png(content):
    """Decode a PNG of 8-bit RGB without row filters."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    stream, data, size = io.BytesIO(content[8:]), b"", None
    while head := stream.read(8):
        length, kind = struct.unpack(">I4s", head)
        body = stream.read(length)
        assert struct.unpack(">I", stream.read(4))[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        data += body if kind == b"IDAT" else b""
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(size[1], 1 + 3 * size[0])
    assert (lines[:, 0] == 0).all()
    return lines[:, 1:].reshape(size[1], size[0], 3)


def area_of(canvas, worded=True):
    """The middle of every pixel of the picture in the canvas's PNG, without what stands around it."""
    printed = canvas._sheet()
    layout = sheet._Layout(printed, worded)
    rgb = read_png(canvas.png(worded=worded))
    inside = rgb[layout.top : layout.top + layout.area_h, layout.left : layout.left + layout.area_w]
    assert rgb.shape == (layout.height, layout.width, 3)
    return inside[layout.down // 2 :: layout.down, layout.across // 2 :: layout.across]


@pytest.mark.parametrize("worded", (True, False))
@pytest.mark.parametrize("appearance", ("light", "dark"))
def test_png_shows_the_entries(canvas, matrix, appearance, worded):
    canvas.theme = appearance
    canvas.window = [10, 60, 20, 80]
    wanted = theme.colour_map(appearance)[np.where(matrix.toarray()[10:60, 20:80] != 0, 255, 0)]
    np.testing.assert_array_equal(area_of(canvas, worded), wanted)


def words_of(content):
    root = ElementTree.fromstring(content)
    assert root.tag.endswith("svg")
    return root, [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_svg_says_what_it_shows_with_axes_title_and_legend(canvas):
    canvas.window = [10, 60, 20, 80]
    root, words = words_of(canvas.svg())
    assert root.find("{*}title").text == "Pattern" and root.find("{*}desc").text == "A random pattern."
    assert root.find("{*}image").get("href").startswith("data:image/png;base64,")
    assert {"Pattern", "A random pattern.", "row", "column", "no entry", "entry", "10", "50", "20", "70"} <= set(words)
    assert "entries per row," in words and "entries per column," in words


def test_a_colour_scale_has_numbers_that_are_the_densities_of_its_shades():
    weights = np.linspace(0, 0.5, 64, dtype=np.float32).reshape(8, 8)
    shown = RasterCanvas(title="weights")
    shown.show(WeightSource(weights), alt="Weights.")
    shown.axes = ("query", "key")
    scale = shown._sheet().scale
    assert [words for _, words in scale.ticks] == ["0", "0.0312", "0.125", "0.281", "0.5"]
    top = image.levels(np.array([[0.125, 0.5]]), np.ones((1, 2)))[0]
    place, _ = scale.ticks[2]
    assert abs(int(top[0, 0]) - 1 - place * 254) <= 1  # the shade at the tick is that of the number
    _, words = words_of(shown.svg())
    assert {"query", "key", "zero", "weight per position, on a square-root scale", "0.5"} <= set(words)
    shown.close()


def test_marks_are_drawn_and_explained(canvas):
    plain = read_png(canvas.png())
    canvas.mark(rows=[100], cells=[(5, 7)])
    canvas.marks_are = "used by the step"
    marked = read_png(canvas.png())
    layout = sheet._Layout(canvas._sheet(), True)
    row = layout.top + 100 * layout.down
    assert (marked[row, layout.left : layout.left + 40] != plain[row, layout.left : layout.left + 40]).any()
    assert "used by the step" in words_of(canvas.svg())[1]


def test_bars_are_means_so_that_no_bin_stands_out(rng):
    matrix = sparse.csr_array(np.ones((1500, 30)))
    shown = RasterCanvas()
    shown.show(CsrSource(matrix))
    strips = shown._sheet().strips
    np.testing.assert_allclose(strips.rows, 30)
    np.testing.assert_allclose(strips.columns, 1500)
    shown.close()


def test_a_part_without_entries_is_a_sentence(canvas):
    lonely = RasterCanvas(title="C")
    lonely.show(CsrSource(sparse.csr_array(([1.0], ([0], [0])), shape=(50, 50))))
    lonely.window = [10, 20, 10, 20]
    for draw in (lonely.png, lonely.svg):
        with pytest.raises(ValueError, match=r"C: nothing is stored in the part in view; zoom out\."):
            draw()
    assert not lonely.is_empty and not canvas.is_empty and RasterCanvas().is_empty
    lonely.show(CsrSource(sparse.csr_array((5, 5))))
    assert lonely.is_empty
    lonely.close()


def test_colours_keep_their_order_in_grey():
    grey = np.array([0.2126, 0.7152, 0.0722])
    for name, direction in (("light", -1), ("dark", 1)):
        luminance = theme.colour_map(name)[1:].astype(float) @ grey
        assert (direction * np.diff(luminance) > -1).all() and abs(luminance[-1] - luminance[0]) > 120


@pytest.mark.parametrize("name", ("light", "dark"))
def test_text_colours_have_contrast(name):
    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    p = theme.PALETTE[name]
    pairs = ("ink paper", "muted paper", "accent paper", "on_accent accent", "error error_paper")
    for front, back in map(str.split, pairs):
        assert contrast(p[front], p[back]) >= 4.5, (front, back)
    for mark in ("highlight", "control"):
        assert contrast(p[mark], p["paper"]) >= 3, mark
    for colour in theme.CATEGORIES[name]:
        assert contrast(colour, p["plot"]) >= 3, colour


def large(rng, nnz):
    """Return a square CSR matrix of 10^6 rows with ``nnz`` entries, unsorted."""
    m = 1_000_000
    indptr = np.linspace(0, nnz, m + 1).astype(np.int32)
    return sparse.csr_array((np.ones(nnz, np.float32), rng.integers(0, m, nnz).astype(np.int32), indptr), shape=(m, m))


@pytest.mark.slow
def test_ten_million_entries_stay_within_the_byte_budget(rng, sent, capsys):
    canvas, matrix = RasterCanvas(), large(rng, 10_000_000)
    sent.clear()
    begin = time.perf_counter()
    canvas.show(CsrSource(matrix))
    canvas._receive(canvas, {"type": "tile", "window": list(canvas.window), "shape": [1024, 1024]}, [])
    painted = time.perf_counter() - begin
    begin = time.perf_counter()
    canvas._receive(canvas, {"type": "tile", "window": [0, 500_000, 250_000, 750_000], "shape": [1024, 1024]}, [])
    again = time.perf_counter() - begin
    for _, data, buffers in sent:
        assert len(str(data)) + sum(len(bytes(b)) for b in buffers) < 1_100_000
    with capsys.disabled():
        print(f"\n10^7 entries: first picture {painted:.3f} s, zoom {again:.3f} s")  # noqa: T201
    canvas.close()
