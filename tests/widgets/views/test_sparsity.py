"""SparsityView: any input, orderings, brushes, numbers equal to direct counts, links, recipe, uploads, byte budget."""

import asyncio
import csv
import gc
import io
import json
import re
import time

import ipywidgets
import numpy as np
import pytest
import scipy.io
from scipy import sparse

from kernels.raster import block_density, raster
from kernels.reorder import permuted, reorder, statistics
from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.source import BitsSource
from widgets.views.frame.view import View, link_views
from widgets.views.matrix_input import as_pattern
from widgets.views.sparsity import SparsityView


@pytest.fixture
def matrix(rng):
    return sparse.random_array((120, 120), density=0.05, format="csr", rng=rng)


@pytest.fixture
def view(matrix):
    shown = SparsityView({"random": matrix, "eye": lambda: np.eye(30)})
    yield shown
    shown.close()


class Tensor:
    """Has what a torch tensor has, as far as a view may look."""

    def __init__(self, array, layout="torch.strided", **parts):
        self._array, self.layout, self.dtype = array, layout, f"torch.{getattr(array, 'dtype', 'float32')}"
        self.shape = parts.pop("shape", getattr(array, "shape", None))
        for name, part in parts.items():
            setattr(self, name, lambda part=part: Tensor(part))

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        return self._array


def forms(csr):
    coo = csr.tocoo()
    yield "dense", csr.toarray()
    yield "bool", csr.toarray() != 0
    yield "coo", coo
    yield "csc", csr.tocsc()
    yield "csr_matrix", sparse.csr_matrix(csr)
    yield "tensor", Tensor(csr.toarray())
    parts = {"crow_indices": csr.indptr, "col_indices": csr.indices, "values": csr.data}
    yield "csr tensor", Tensor(None, "torch.sparse_csr", shape=csr.shape, **parts)
    parts = {"_indices": np.stack(coo.coords), "_values": coo.data}
    yield "coo tensor", Tensor(None, "torch.sparse_coo", shape=csr.shape, **parts)


def test_any_kind_of_matrix_is_accepted(matrix):
    for name, form in forms(matrix):
        found, duplicates = as_pattern(form, name)
        assert duplicates == 0, name
        np.testing.assert_array_equal(found.toarray() != 0, matrix.toarray() != 0, err_msg=name)


@pytest.mark.slow
def test_torch_tensors_are_accepted(matrix):
    torch = pytest.importorskip("torch")
    dense = torch.from_numpy(matrix.toarray()).requires_grad_()
    forms = [dense, dense.to_sparse_csr(), dense.to_sparse_coo(), dense.to_sparse_csc(), dense != 0]
    forms += [dense.to_sparse_bsr((4, 2)), dense.to_sparse_bsc((2, 4)), dense[:60].to_sparse_bsc((2, 4))]
    half = [form.detach().to(torch.float16) for form in (dense, *forms[1:4], *forms[5:])]
    for tensor in (*forms, *half, dense.to(torch.bfloat16), dense.to(torch.complex64).conj()):
        wanted = matrix.toarray()[: tensor.shape[0]]
        found, duplicates = as_pattern(tensor)
        np.testing.assert_array_equal(found.toarray() != 0, wanted != 0)
        assert duplicates == 0 and (tensor.dtype != torch.float64 or (found.toarray() == wanted).all())
    uncoalesced = torch.sparse_coo_tensor([[0, 0, 1], [1, 1, 0]], [1.0, 2, 3], (2, 2))
    assert as_pattern(uncoalesced)[1] == 1 and as_pattern(uncoalesced)[0].toarray().tolist() == [[0, 3], [3, 0]]


@pytest.mark.slow
def test_tensors_that_are_no_matrix_are_refused_in_our_words():
    torch = pytest.importorskip("torch")
    one = torch.eye(4)
    batch = torch.stack([one, one])
    for tensor, words in (
        (
            batch.to_sparse_csr(),
            r"got a batch of matrices of shape \(2, 4, 4\) in layout sparse_csr; pass one matrix, e\.g\. m\[0\]",
        ),
        (batch.to_sparse_bsr((2, 2)), "a batch of matrices"),
        (batch.to_sparse_coo(), "a batch of matrices"),
        (batch, "a batch of matrices"),
        (torch.ones(4), "no matrix"),
        (one.to_sparse(1), r"rows that are dense; use m\.to_dense\(\)"),
        (one.to_mkldnn(), r"layout _mkldnn, which is not read; use m\.to_dense\(\)"),
        (torch.nested.nested_tensor([one, one]), "nested tensor"),
        (one.to("meta"), "on meta, which NumPy cannot read"),
        (torch.quantize_per_tensor(one, 0.1, 0, torch.qint8), "holds qint8 numbers"),
    ):
        with pytest.raises((TypeError, ValueError), match=words) as error:
            as_pattern(tensor, "m")
        assert str(error.value).startswith("SparsityView: m ")


@pytest.mark.slow
def test_eight_bit_floats_are_read():
    torch = pytest.importorskip("torch")
    assert as_pattern(torch.eye(4).to(torch.float8_e4m3fn))[0].nnz == 4


TWICE = (np.array([1, 2, 0, 4]), (np.array([0, 0, 1, 2]), np.array([3, 3, 1, 2])), (4, 6))  # one place twice, one zero


def twice(dtype):
    """The same four entries, one place of them twice, in every format that can hold them."""
    values, (rows, columns), shape = TWICE
    values = values.astype(dtype)
    coo = sparse.coo_array((np.zeros(4), (rows, columns)), shape=shape)
    coo.data = values  # behind SciPy's back, which takes neither half precision nor foreign bytes
    yield "coo", coo
    order = np.argsort(columns, kind="stable")
    for name, kind, places, counts in (
        ("csr", sparse.csr_array, columns, np.bincount(rows, minlength=4)),
        ("csc", sparse.csc_array, rows[order], np.bincount(columns, minlength=6)),
    ):
        made = kind((np.zeros(4), places, np.concatenate(([0], np.cumsum(counts)))), shape=shape)
        made.data = values if name == "csr" else values[order]
        yield name, made


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", "int64", "float16", "float32", ">f2", ">f8", ">i4", "complex64"]
)
def test_every_format_counts_the_same_entries_and_duplicates(dtype):
    values, places, shape = TWICE
    wanted = sparse.coo_array((values.astype(dtype).astype("complex128"), places), shape=shape)
    for name, form in twice(dtype):
        found, duplicates = as_pattern(form, name)
        assert (found.nnz, duplicates) == (3, 1), name
        if dtype != "bool":
            np.testing.assert_array_equal(found.toarray(), wanted.toarray(), err_msg=name)
        assert form.data.dtype == np.dtype(dtype) and form.nnz == 4, "the reader's own matrix was changed"


def test_blocks_count_what_they_store():
    blocks = np.array([[[1, 0], [0, 1]], [[1, 0], [2, 1]], [[1, 1], [1, 1]]], np.float16)
    bsr = sparse.bsr_array((np.zeros((3, 2, 2)), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(4, 4))
    bsr.data = blocks
    found, duplicates = as_pattern(bsr)
    assert (found.nnz, duplicates) == (8, 4)
    np.testing.assert_array_equal(found.toarray(), [[2, 0, 0, 0], [2, 2, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    diagonals = sparse.dia_array((np.array([[1, 2, 0, 4]], np.float16), [0]), shape=(4, 4))
    assert as_pattern(diagonals)[0].nnz == 3


def test_whole_numbers_that_meet_do_not_wrap():
    eights = sparse.coo_array((np.array([100, 100], np.int8), ([0, 0], [1, 1])), shape=(1, 2))
    assert as_pattern(eights)[0].toarray().tolist() == [[0, 200]]
    assert as_pattern(sparse.csr_array((eights.data, [1, 1], [0, 2]), shape=(1, 2)))[0].toarray().tolist() == [[0, 200]]


@pytest.mark.parametrize("dtype", ["float16", ">f2", ">f4", ">i8", ">c8"])
def test_dense_values_that_scipy_refuses_are_drawn(dtype, matrix):
    dense = np.rint(9 * matrix.toarray()).astype(dtype)
    view = SparsityView(dense, ordering="rcm")
    assert view.error == "" and view.scene.source.nnz == np.count_nonzero(dense)
    np.testing.assert_array_equal(as_pattern(dense)[0].toarray(), dense)
    view.close()


def test_masked_arrays_are_refused_with_the_cure(matrix):
    masked = np.ma.masked_array(np.eye(3), mask=np.eye(3) > 0)
    hidden = matrix.copy()
    hidden.data = np.ma.masked_array(hidden.data, mask=hidden.data > 0.5)
    for form in (masked, hidden):
        with pytest.raises(
            TypeError, match=r"a masked array; say what stands for masked elements, e\.g\. a\.filled\(0\)"
        ):
            as_pattern(form, "a")


@pytest.mark.parametrize("form", [sparse.coo_array, sparse.csc_array, sparse.bsr_array])
def test_forged_indices_are_refused_in_every_format(form, matrix):
    forged = form(matrix)
    place = forged.coords[1] if forged.format == "coo" else forged.indices
    for value in (-1, 10**6):
        place[0] = value
        with pytest.raises(ValueError, match="SparsityView: a"):
            as_pattern(forged, "a")


def test_duplicates_are_summed_and_told():
    doubled = sparse.csr_array((np.array([1.0, 2.0, 3.0]), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 4))
    view = SparsityView(doubled)
    assert ("statistics", "duplicate entries summed", 1) in view.table(view.scene)[1]
    assert view.canvas.query(0, 1, 2, 3)["value"] == 4
    assert doubled.nnz == 3
    view.close()


@pytest.mark.parametrize(
    ("bad", "words"), ((np.zeros(3), "two dimensions"), (np.zeros((2, 2), object), "numbers or bools"))
)
def test_what_is_no_matrix_is_named(bad, words):
    view = SparsityView(bad)
    assert words in view.error and view.scene is None
    view.close()


@pytest.mark.parametrize("ordering", ("none", "rcm", "degree", "random", "morton", "cluster"))
def test_picture_and_numbers_are_those_of_the_reordered_matrix(view, matrix, ordering):
    view.ordering = ordering
    wanted = permuted(matrix, reorder(matrix, ordering))
    np.testing.assert_array_equal(view.arrays(view.scene)["counts"], raster(wanted))
    rows = {(part, item): value for part, item, value in view.table(view.scene)[1]}
    assert rows["statistics", "bandwidth"] == statistics(wanted).bandwidth
    assert rows["statistics", "entries (nnz)"] == matrix.nnz
    for size in (4, 16, 128):
        assert rows["density inside kept blocks", str(size)] == block_density(wanted, size).fill
    assert sum(value for (part, _), value in rows.items() if part == "rows by entries") == 120


def test_brush_narrows_the_numbers(view, matrix):
    view.brush_rows, view.brush_columns = "10:40", "20:90"
    part = matrix.toarray()[10:40, 20:90]
    rows = {item: value for part_name, item, value in view.table(view.scene)[1] if part_name == "statistics"}
    assert rows["entries (nnz)"] == np.count_nonzero(part) and (rows["rows"], rows["columns"]) == (30, 70)
    assert view.canvas.brush_rows == [10, 40]
    assert f"brushed part ({np.count_nonzero(part):,} entries)" in view.alt_text(view.scene)


def test_brush_on_the_canvas_reaches_linked_views(view, matrix):
    other = SparsityView(matrix)
    link_views(view, other)
    view.canvas.brush_rows = [5, 25]
    assert view.brush_rows == other.brush_rows == "5:25" and other.scene.region == (5, 25, 0, 120)
    view.canvas.brush_rows = []
    assert other.brush_rows == "" and other.scene.region == (0, 120, 0, 120)
    other.close()


@pytest.mark.parametrize("text", ("9", "9:3", "a:b", "-1:5", "1:2:3"))
def test_a_malformed_brush_is_refused_in_words(view, text):
    view.brush_rows = text
    assert view.error.startswith("brush_rows: must be first:end") and view.scene is not None


def test_zoom_is_state(view, matrix):
    view.canvas.window = [10, 40, 20, 50]
    assert view.window == "10:40:20:50"
    again = SparsityView.from_query(view.query, {"random": matrix})
    assert again.canvas.window == [10, 40, 20, 50]
    np.testing.assert_array_equal(again.arrays(again.scene)["counts"], view.arrays(view.scene)["counts"])
    np.testing.assert_array_equal(again.arrays(again.scene)["counts"], matrix.toarray()[10:40, 20:50] != 0)
    view.canvas.window = [0, 120, 0, 120]
    assert view.window == "" and view.query == ""
    again.close()


def test_zoom_does_not_compute(view):
    before = view.scene
    view.canvas.window = [10, 40, 20, 50]
    view.grid = True
    assert view.scene is before and view.canvas.block == 16


def test_another_matrix_starts_whole_and_unbrushed(view):
    view.canvas.window = [10, 40, 20, 50]
    view.canvas.brush_rows = [100, 110]
    view._turn("matrix", "eye")
    assert (view.window, view.brush_rows, view.error) == ("", "", "")
    assert view.scene.source.shape == (30, 30) and view.canvas.window == [0, 30, 0, 30]


@pytest.mark.parametrize("state", ({}, {"ordering": "random", "seed": 3}, {"window": "10:40:20:50", "grid": True}))
def test_recipe_makes_the_same_pixels(view, matrix, state):
    with view.changes():
        for key, value in state.items():
            setattr(view, key, value)
    space = {"matrix": matrix}
    exec(view.recipe(), space)
    np.testing.assert_array_equal(space["pixels"], view.arrays(view.scene)["counts"])
    assert len(view.recipe().splitlines()) <= 5
    space["view"].close()


def test_recipe_with_a_source_needs_nothing_else(rng):
    source = "scipy.sparse.eye_array(12, format='csr')"
    eye = sparse.eye_array(12, format="csr")
    view = SparsityView({"eye": eye}, sources={"eye": source}, imports="import scipy.sparse")
    space = {}
    exec(view.recipe(), space)
    np.testing.assert_array_equal(space["pixels"], np.eye(12))
    space["view"].close()
    view.close()


def test_exports_hold_the_data(view, matrix):
    view.canvas.window = [0, 60, 0, 60]
    loaded = np.load(io.BytesIO(view.export("Data (NPZ)")[2]))
    np.testing.assert_array_equal(loaded["counts"], matrix.toarray()[:60, :60] != 0)
    assert loaded["row_sums"].sum() == loaded["column_sums"].sum() == np.count_nonzero(matrix.toarray()[:60, :60])
    np.testing.assert_array_equal(loaded["row_lengths"], np.diff(matrix.indptr))
    lines = list(csv.reader(io.StringIO(view.export("Data (CSV)")[2].decode())))
    assert lines[0] == ["part", "item", "value"] and len(lines) == 1 + len(view.table(view.scene)[1])
    page = view.export("Page (HTML, offline)")[2].decode()
    assert 'src="data:image/png;base64,' in page and not re.search(
        r"<(script|link|img)[^>]+(src|href)=\"?https?:", page
    )
    assert view.export("PNG: Pattern")[2].startswith(b"\x89PNG")


@pytest.mark.parametrize("ordering", ("none", "rcm"))
def test_the_shown_matrix_is_saved_in_its_order(rng, ordering):
    matrix = sparse.random_array((40, 30), density=0.1, format="csr", rng=rng)
    view = SparsityView({"my matrix.mtx.gz": matrix.astype(np.float32)}, ordering=ordering)
    wanted = permuted(matrix.astype(np.float32), reorder(matrix, ordering)).toarray()
    end = "" if ordering == "none" else "-rcm"
    for label, ending, load in (
        ("Matrix in this order (Matrix Market)", ".mtx", lambda content: scipy.io.mmread(content)),
        ("Matrix in this order (NPZ of SciPy)", ".npz", sparse.load_npz),
    ):
        assert label in view.export_labels
        name, _, content = view.export(label)
        assert name == f"my-matrix{end}{ending}"
        np.testing.assert_array_equal(load(io.BytesIO(content)).toarray(), wanted)
    view.close()


def test_what_is_too_large_for_a_page_is_not_saved(matrix, monkeypatch):
    monkeypatch.setattr("widgets.views.frame.export.MAX_SAVED", 719)
    view = SparsityView(matrix)
    with pytest.raises(ValueError, match=r"matrix has 720 entries; a page saves up to 719\. Save it in a notebook\."):
        view.export("Matrix in this order (Matrix Market)")
    mask = SparsityView(BitsSource(np.zeros((12800, 1600), np.uint8), 12800))
    with pytest.raises(ValueError, match=r"over 10\^8 positions is not saved"):
        mask.export("Matrix in this order (NPZ of SciPy)")
    view.close()
    mask.close()


def test_uploads_are_read_shown_and_refused_in_words(matrix):
    def read(filename, content):
        if content == b"bad":
            raise ValueError(f"{filename}: line 1 is no Matrix Market header")
        return matrix

    what = {"upload_label": "Yours: .abc", "upload_endings": (".abc", ".gz"), "upload_limit_bytes": 10_000_000}
    view = SparsityView({"eye": np.eye(5)}, read=read, **what)
    assert (view.children[2].label, view.children[2].accept) == ("Yours: .abc, up to 10 MB", ".abc,.gz")
    view.close()
    view = SparsityView({"eye": np.eye(5)}, read=read, upload_limit_bytes=10)
    upload = view.children[2]
    pieces = ({"type": "piece", "name": "mine.mtx", "at": at, "size": 6} for at in (0, 3))
    for piece in pieces:
        upload._receive(upload, piece, [b"abc"])
    assert view.matrix == "mine.mtx" and view.scene.source.shape == (120, 120) and view.error == ""
    view.add_file("other.mtx", b"bad")
    assert view.error == "other.mtx: line 1 is no Matrix Market header."
    assert view.matrix == "mine.mtx" and view.scene is not None
    upload._receive(upload, {"type": "piece", "name": "big.mtx", "at": 0, "size": 11}, [b"x" * 11])
    assert view.matrix == "mine.mtx"
    view.close()


def test_only_the_last_files_are_kept_and_none_hides_a_matrix_of_the_menu_for_good(matrix):
    view = SparsityView({"random": matrix, "eye": np.eye(3)}, read=lambda name, content: np.ones((2, len(content))))
    for i, name in enumerate(("eye", "a.mtx", "b.mtx", "a.mtx", "c.mtx")):
        view.add_file(name, b"x" * (i + 1))
        assert view.matrix == name and view.scene.source.shape == (2, i + 1) and view.error == ""
    assert [name for name, _ in view.knob("matrix").choices] == ["random", "eye", "b.mtx", "a.mtx", "c.mtx"]
    view.matrix = "eye"
    assert view.scene.source.shape == (3, 3)
    view.close()


def test_a_view_without_a_reader_takes_no_files(matrix):
    view = SparsityView(matrix)
    view.add_file("mine.mtx", b"")
    assert "this view reads no files" in view.error and view.matrix == "matrix"
    view.close()


def test_too_many_entries_are_refused_before_work():
    class Huge:
        nnz = 60_000_000

    view = SparsityView(Huge())
    assert view.error == "matrix has 60,000,000 entries; this view takes up to 50,000,000. Show a part of it."
    view.close()


def test_words_and_labels(view):
    assert view.canvas.alt == view.alt_text(view.scene)
    assert view.canvas.alt.startswith("Pattern of random, 120 x 120 with 720 entries, order as given; density 0.05")
    assert "counted" in view._numbers.value and view._toolbar.kind == "counted"
    assert "counted" in view._lengths.figure.layout.title.text and "counted" in view._blocks.figure.layout.title.text
    assert view._lengths.alt and view._blocks.alt
    json.dumps(view.state)


def test_figures_tell_lines_apart_without_colour(view):
    lines = view._blocks.figure.data
    assert len({(line.line.dash, line.marker.symbol) for line in lines}) == len(lines)


@pytest.mark.slow
def test_views_leave_nothing_behind(matrix):
    def alive():
        gc.collect()
        kinds = (View, ipywidgets.Widget)
        things = sum(issubclass(type(thing), kinds) for thing in gc.get_objects())
        return things, len(ipywidgets.widgets.widget._instances)

    SparsityView(matrix).close()
    before = alive()
    for _ in range(5):
        view = SparsityView(matrix, read=lambda name, content: matrix)
        view._repr_mimebundle_()
        view.ordering = "rcm"
        view.close()
        del view
    assert alive() == before


def test_a_view_stays_within_its_bytes(matrix, sent):
    view = SparsityView(matrix)
    view.canvas._receive(view.canvas, {"type": "tile", "window": [0, 120, 0, 120], "shape": [1024, 1024]}, [])
    total = sum(len(json.dumps(data, default=str)) + sum(len(bytes(b)) for b in buffers) for _, data, buffers in sent)
    assert 50_000 < total < 1_100_000
    view.close()


def test_picture_comes_before_its_numbers(matrix):
    async def main():
        view = SparsityView(matrix)
        seen = []
        paint = view.paint
        view.paint = lambda scene: (seen.append(scene.statistics is not None), paint(scene))
        view.wait()
        assert seen == [False, True]
        view.close()

    asyncio.run(main())


def test_small_bit_masks_are_matrices(matrix):
    dense = matrix.toarray() != 0
    view = SparsityView(BitsSource(np.packbits(dense, axis=1, bitorder="little"), 120), ordering="rcm")
    assert view.error == "" and view.scene.source.nnz == matrix.nnz
    view.close()


@pytest.mark.slow
def test_a_mask_of_65536_by_65536_is_painted_and_counted(capsys):
    bits = np.zeros((65536, 8192), np.uint8)
    for i in range(1024):
        bits[64 * i : 64 * i + 64, 8 * i : 8 * i + 8] = 255
    bits[:, :2] = 255
    mask = BitsSource(bits, 65536)
    canvas = RasterCanvas()
    begin = time.perf_counter()
    canvas.show(mask)
    canvas.tile((0, 65536, 0, 65536), (1024, 1024))
    painted = time.perf_counter() - begin
    begin = time.perf_counter()
    canvas.tile((0, 32768, 16384, 49152), (1024, 1024))
    zoomed = time.perf_counter() - begin
    view = SparsityView(mask)
    ones = 65536 * 64 + 65536 * 16 - 64 * 16
    rows = {(part, item): value for part, item, value in view.table(view.scene)[1]}
    assert rows["statistics", "entries (nnz)"] == ones and rows["statistics", "bandwidth"] == 65535
    assert rows["share of blocks kept", "64"] == (1024 * 2 - 1) / 1024**2
    assert view.canvas.query(100, 101, 7, 8)["value"] == 1
    view.ordering = "rcm"
    assert view.error == "matrix: masks of over 10^8 positions are shown as given; clear order and brush."
    view.close()
    canvas.close()
    with capsys.disabled():
        print(f"\n65,536 x 65,536 mask: first picture {painted:.3f} s, zoom {zoomed:.3f} s")  # noqa: T201


def test_the_menu_shows_titles_and_the_state_keeps_names():
    view = SparsityView({"a": np.eye(3), "b": np.eye(4)}, titles={"a": "Three by three"}).wait()
    assert view._shown_knobs()[0].choices == (("a", "Three by three"), ("b", "b")) and view.matrix == "a"
    assert view.alt_text(view.scene).startswith("Pattern of Three by three, 3 x 3")
    view.close()
