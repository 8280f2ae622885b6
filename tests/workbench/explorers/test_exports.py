"""Every export of every explorer: for every method, every order and every part of the view."""

import csv
import html
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.sparse as sp

from widgets.figures.plot_pane import PlotPane
from widgets.views.sparsity import ORDERINGS, SparsityView
from workbench.data.matrices import MATRICES
from workbench.explorers.attention import explorer as attention
from workbench.explorers.attention.method import offered
from workbench.explorers.factorization.explorer import explorer as factors
from workbench.explorers.kv_cache.explorer import explorer as kv_cache
from workbench.explorers.layer_density.explorer import explorer as density
from workbench.explorers.spgemm.explorer import explorer as spgemm

SVG_TEXT = "{http://www.w3.org/2000/svg}text"
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?|inf|-inf|")
ATTENTION = {"input": "heavy", "tokens": 128, "block": 16}
CASES = {
    f"attention {key}": (attention.explorer, {"method": key} | ({} if method.pictures else ATTENTION))
    for key, method in offered().items()
}
CASES |= {
    "attention compared": (attention.explorer, ATTENTION | {"method": "xattention", "compare_with": "pbs_attn"}),
    "attention, all lost": (attention.explorer, ATTENTION | {"left": "lost", "formula": "q >= k", "method": "formula"}),
    "attention of weights": (attention.explorer, ATTENTION | {"method": "xattention", "left": "keep", "theme": "dark"}),
}


def sparsity(**state):
    return SparsityView({"poisson: 2d": MATRICES["poisson2d"].load}, **state)


CASES |= {f"sparsity {order}": (sparsity, {"ordering": order}) for order, _ in ORDERINGS}
CASES["sparsity brushed"] = (
    lambda **state: SparsityView(MATRICES["karate"].load(), **state),
    {"brush_rows": "3:9", "window": "0:20:0:20", "grid": True, "block": 4},
)
CASES["sparsity without entries"] = (lambda **state: SparsityView(sp.csr_array((6, 4)), **state), {})
CASES |= {
    f"cache, {part}": (kv_cache, {"cache": "generated", "drawn_tokens": 64, "prompt": 32, "section": part})
    for part in ("parts", "corrections", "bytes", "drift")
}
CASES |= {
    f"factors, {part}": (lambda **state: factors(np.random.default_rng(0).standard_normal((24, 32)), **state),
                         {"section": part, "method": "svd"})
    for part in ("factors", "error", "bytes")
}  # fmt: skip
# Every operand in the part that shows it, and every other part on one of them.
PRODUCTS = [*(("step", operands) for operands in ("worked", "karate", "poisson2d")),
            *((part, "karate") for part in ("bytes", "machine", "constants"))]  # fmt: skip
CASES |= {
    f"SpGEMM {part} of {operands}": (spgemm, {"section": part, "operands": operands, "step": 3})
    for part, operands in PRODUCTS
}
CASES |= {
    f"layer density {part} {mode}": (density, {"net": "plain", "method": "random", "section": part, "mode": mode})
    for part, mode in (("layers", "tied"), ("layers", "inner"), ("mask", "tied"), ("rounds", "tied"))
}
CASES["layer density accuracy"] = (density, {"section": "accuracy", "rounds": 2})


@pytest.fixture(scope="module", params=CASES)
def view(request):
    patched = pytest.MonkeyPatch()
    patched.setattr(attention, "_times", lambda given, method, state, seen: {})
    make, state = CASES[request.param]
    made = make(**state).wait()
    assert made.error == ""
    yield made
    made.close()
    patched.undo()


@pytest.fixture(scope="module")
def files(view):
    """What Python makes of each export, by label; plotly's pictures are the browser's, and a table may be empty."""
    made = {}
    for label in view.export_labels:
        try:
            made[label] = view.export(label)
        except ValueError as error:
            empty = label == "Data (CSV)" and not len(view.table(view.scene)[1])
            assert empty or "drawn by the browser" in str(error)
    return made


def test_pictures_have_axes_a_title_and_a_legend(view, files):
    pictures = {name: part for name, part in view.pictures().items() if not isinstance(part, PlotPane)}
    for name, part in pictures.items():
        png, svg = (files[f"{form}: {name}" if len(view.pictures()) > 1 else form][2] for form in ("PNG", "SVG"))
        width, height = np.frombuffer(png[16:24], ">u4")
        words = [node.text for node in ElementTree.fromstring(svg).iter(SVG_TEXT)]
        sheet = part._sheet()
        assert min(width, height) > 300 and sheet.title and " ".join(words).lower().startswith(sheet.title[:20].lower())
        assert {*sheet.axes} <= set(words), name
        assert sum(word.replace(",", "").isdigit() for word in words) >= 2, f"{name}: axes without numbers"
        legend = {name for _, name in sheet.swatches} | (
            {text for _, text in sheet.scale.ticks} if sheet.scale else set()
        )
        assert len(legend) >= 2 and legend <= set(words), name
        assert sheet.caption and sheet.caption[:10].lower() in " ".join(words).lower()


def test_plots_have_axes_a_title_and_a_legend(view):
    for name, part in view.pictures().items():
        if not isinstance(part, PlotPane):
            continue
        layout = part.figure.layout
        assert layout.title.text and part.alt, name
        for key in layout:
            if re.fullmatch(r"[xy]axis\d*", key):
                assert layout[key].visible is not False and layout[key].showticklabels is not False, (name, key)
        assert layout.xaxis.title.text and layout.yaxis.title.text, name
        named = [trace for trace in part.figure.data if trace.name and trace.showlegend is not False]
        assert len(named) < 2 or layout.showlegend is not False, name
        assert all(trace.showscale is not False for trace in part.figure.data if trace.type == "heatmap"), name


def test_nothing_is_exported_that_shows_nothing(view):
    for name, part in view.parts().items():
        told = {label for label in view.export_labels if label.endswith(f": {name}")}
        assert bool(told) != part.is_empty or len(view.pictures()) == 1, name
    assert not any(part.is_empty for part in view.pictures().values())


def test_every_cell_of_csv_is_a_number_or_stands_in_a_column_of_words(view, files):
    columns, rows = view.table(view.scene)
    if not len(rows):
        with pytest.raises(ValueError, match="no data to save as CSV"):
            view.export("Data (CSV)")
        return
    head, *lines = csv.reader(io.StringIO(files["Data (CSV)"][2].decode()))
    assert head == list(columns) and len(lines) == len(rows)
    numeric = 0
    for name, cells in zip(head, zip(*lines, strict=True), strict=True):
        plain = [bool(NUMBER.fullmatch(cell)) for cell in cells]
        words = name in (
            "what",
            "item",
            "part",
            "dataflow",
            "kernel",
            "factor",
            "kind",
            "name",
            "value in words",
            "unit",
            "tag",
            "source",
        )
        assert words or all(plain), (
            name,
            [cell for cell, is_plain in zip(cells, plain, strict=True) if not is_plain][:3],
        )
        numeric += not words
    assert numeric


def test_the_page_names_its_pictures_and_only_the_settings_that_matter(view, files):
    page = files["Page (HTML, offline)"][2].decode()
    shown = html.unescape(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    headings = re.findall(r"<section><h2>(.+?)</h2>", shown)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", shown, flags=re.DOTALL)
    assert len(headings) == len(captions) == len(view.parts()) and all(captions)
    assert page.count("<img ") == sum(not isinstance(part, PlotPane) for part in view.pictures().values())
    told = dict(re.findall(r"<li>(.+?): (.*?)</li>", shown, flags=re.DOTALL))
    allowed = {label: value for label, value in view.settings() if value}
    assert told == allowed and told
    others = {knob.label for knob in view.knobs} - set(allowed)
    assert not others & set(told)


def test_arrays_open_without_pickles(files):
    stored = np.load(io.BytesIO(files["Data (NPZ)"][2]), allow_pickle=False)
    assert stored.files and all(stored[name].dtype != object for name in stored.files)


def test_file_names_are_valid_on_every_system(files):
    for label, (name, _, content) in files.items():
        assert content and re.fullmatch(r"[\w.-]+\.(png|svg|csv|npz|html|py|mtx)", name), (label, name)


def test_only_settings_of_the_shown_method_are_told():
    view = attention.explorer(**ATTENTION, method="combiner").wait()
    labels = dict(view.settings())
    other = {knob.label for knob in offered()["xattention"].knobs} - {
        knob.label for knob in offered()["combiner"].knobs
    }
    assert other and not other & set(labels) and labels["Method"] == offered()["combiner"].title
    view.close()
    drawn_order = SparsityView(MATRICES["karate"].load(), ordering="random")
    assert "Seed" in dict(drawn_order.settings())
    drawn_order.ordering = "rcm"
    assert "Seed" not in dict(drawn_order.wait().settings())
    drawn_order.close()
    bytes_moved = spgemm(section="bytes")
    assert "Cache" in dict(bytes_moved.wait().settings()) and "Table load" not in dict(bytes_moved.settings())
    bytes_moved.close()


@pytest.mark.parametrize(("section", "operands"), PRODUCTS)
def test_the_npz_of_a_product_holds_its_matrices(section, operands):
    view = spgemm(section=section, operands=operands).wait()
    f = np.load(io.BytesIO(view.export("Data (NPZ)")[2]), allow_pickle=False)
    a, b, c = (
        sp.csr_array((f[f"{x}_data"], f[f"{x}_indices"], f[f"{x}_indptr"]), shape=f[f"{x}_shape"]) for x in "ABC"
    )
    np.testing.assert_allclose((a @ b).toarray(), c.toarray(), rtol=1e-12)
    scene = view.scene
    assert [x.nnz for x in (a, b, c)] == [x.nnz for x in (scene.a, scene.b, scene.c)] and c.nnz
    space = {"f": f, "scipy": __import__("scipy.sparse")}
    exec(str(f["about"]).partition(";")[0], space)
    np.testing.assert_array_equal(space["A"].toarray(), a.toarray())
    view.close()


def test_names_of_users_files_become_valid_names():
    matrix = MATRICES["karate"].load()
    for odd in ("con.mtx", "a:b.npz", "x" * 400, "../up", "матрица.mtx"):
        view = SparsityView({odd: matrix})
        for label in ("Matrix in this order (Matrix Market)", "Matrix in this order (NPZ of SciPy)"):
            name = view.export(label)[0]
            assert re.fullmatch(r"[\w.-]+\.(mtx|npz)", name) and len(name.encode()) <= 255
            assert not name.lower().startswith("con.")
        view.close()
