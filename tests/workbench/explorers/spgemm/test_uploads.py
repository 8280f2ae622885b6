"""The reader's own operands: A alone is squared, B takes its place, what does not fit is told with the cure."""

import numpy as np
import pytest
import scipy.sparse as sp

from kernels.matmul.spgemm import row_flops
from kernels.matrix_bytes import matrix_bytes
from workbench.data.matrix_files import save_matrix
from workbench.explorers.spgemm.explorer import explorer
from workbench.explorers.spgemm.uploads import Uploads


@pytest.fixture
def view():
    shown = explorer(operands="file")
    yield shown
    shown.close()


@pytest.fixture
def send(view):
    def piece_by_piece(which, name, matrix, ending=".npz"):
        content = matrix if isinstance(matrix, bytes) else matrix_bytes(matrix, ending)
        field = view._uploads.children["AB".index(which)]
        for at in range(0, len(content), 1000):
            message = {"type": "piece", "name": name, "at": at, "size": len(content)}
            field._receive(field, message, [content[at : at + 1000]])

    return piece_by_piece


def random(rng, m, n):
    return sp.random_array((m, n), density=0.1, format="csr", rng=rng)


def test_b_is_a_until_it_is_given(view, send, rng):
    assert view.error == "There is no file yet: choose a matrix A above the pictures."
    a, b = random(rng, 40, 40), random(rng, 40, 7)
    send("A", "a.mtx", a, ".mtx")
    assert view.error == "" and view.scene.title == "a.mtx, squared, 40 rows"
    assert view.scene.products == row_flops(a, a).sum()
    send("B", "b.npz", b)
    assert view.error == "" and view.scene.title == "a.mtx times b.npz, 40 rows"
    assert view.scene.products == row_flops(a, b).sum()
    np.testing.assert_array_equal(view.scene.c.indptr, (a @ b).tocsr().indptr)
    send("A", "c.npz", random(rng, 9, 9))
    assert view.error == "" and view.scene.title == "c.npz, squared, 9 rows"


def test_b_may_come_first(view, send, rng):
    send("B", "b.npz", random(rng, 12, 5))
    assert view.error == "There is no file yet: choose a matrix A above the pictures."
    send("A", "a.npz", random(rng, 8, 12))
    assert view.error == "" and view.scene.title == "a.npz times b.npz, 8 rows"


def test_what_does_not_fit_is_told_with_the_cure(view, send, rng):
    send("A", "a.npz", random(rng, 30, 40))
    assert view.error == "a.npz is 30 x 40, so it has no square: choose a matrix B with 40 rows as well."
    send("B", "b.npz", random(rng, 41, 7))
    assert view.error == (
        "A and B do not fit: a.npz has 40 columns, b.npz has 41 rows, and they must be equal. Choose another B."
    )
    send("B", "c.npz", random(rng, 40, 7))
    assert view.error == "" and view.scene.title == "a.npz times c.npz, 30 rows"
    send("A", "broken.mtx", b"%%MatrixMarket matrix coordinate real general\n1 1 2\n1 1 1\n")
    assert view.error.startswith("broken.mtx: line 2 announces 2 entries")
    assert view.scene.title == "a.npz times c.npz, 30 rows", "the picture stays"
    send("A", "whole.npz", sp.csr_array([[2**53 + 1]]))
    assert view.error.startswith("whole.npz: 9007199254740993 has more digits")
    send("A", "complex.npz", sp.csr_array([[1j]]))
    assert view.error.startswith("complex.npz: complex matrices are not multiplied here")
    send("A", "much.npy", sp.csr_array(np.ones((300, 300))))
    assert "the limit of the live view is 10,000,000: take smaller operands" in view.error


@pytest.mark.parametrize("shape", [(0, 0), (5, 5), (100, 100), (1, 1)])
def test_matrices_without_entries_are_drawn(view, send, shape):
    send("A", "empty.npz", sp.csr_array(shape))
    for section in ("step", "bytes", "machine", "constants"):
        view.section = section
        assert view.error == "" and view.scene.products == 0


def test_readers_do_not_see_each_others_results(rng):
    pairs = []
    for matrix in (random(rng, 9, 9), random(rng, 9, 9)):
        mine = Uploads()
        mine.take_a("same.npz", matrix_bytes(matrix, ".npz"))
        pairs.append(mine.pair())
    assert pairs[0].made_from != pairs[1].made_from and pairs[0].title == pairs[1].title


def test_the_fields_are_shown_with_their_choice_only(view):
    assert view._uploads.layout.display is None
    first, second = view._uploads.children
    assert first.label == "Your own matrix A: .mtx, .npz of SciPy or .npy, also compressed, up to 64 MB"
    assert second.label == "Your own matrix B, if it is not A again, up to 64 MB" and ".npz" in second.accept
    view.operands = "karate"
    assert view._uploads.layout.display == "none" and view.error == ""


def test_paths_open_in_python_and_the_recipe_remakes_them(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_matrix("a.mtx", random(rng, 30, 40))
    save_matrix("b.npz", random(rng, 40, 7))
    given = explorer(files=["a.mtx", tmp_path / "b.npz"], section="bytes")
    assert given.error == "" and given.scene.title == "a.mtx times b.npz, 30 rows"
    space = {}
    exec(given.recipe(), space)
    assert space["view"].alt_text(space["view"].scene) == given.alt_text(given.scene)
    for view in (given, space["view"]):
        view.close()
    with pytest.raises(FileNotFoundError):
        explorer(files=["absent.mtx"])


@pytest.mark.parametrize("which", ["A", "B"])
def test_what_a_visitor_sends_is_held_to_a_visitor_s_limits(view, send, which):
    send(which, "long.mtx", b"%%MatrixMarket matrix coordinate real general\n2000001 1 0\n")
    assert "at most 2,000,000 rows and columns are read, got 2,000,001 x 1; open it in a notebook" in view.error
