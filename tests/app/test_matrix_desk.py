"""The matrix desk: every source loads at its smallest size, uploads reach the view, errors are sentences."""

import gzip
import io
from datetime import UTC, datetime

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from workbench.app.matrix_desk import LARGEST_UPLOAD_BYTES, OPTIONS, MatrixDesk
from workbench.data.matrices import MATRICES


class Wired:
    """Stands in for a view: takes the desk's knobs and notes what it is told."""

    def __init__(self, desk):
        self.state = {knob.key: knob.default for knob in desk.knobs}
        self.refreshed = 0

    def __setattr__(self, name, value):
        if name == "matrix":
            self.state["matrix"] = value
        else:
            super().__setattr__(name, value)

    def refresh(self):
        self.refreshed += 1


def _no_progress(fraction, step):
    assert 0 <= fraction <= 1 and step


def _market(matrix):
    file = io.BytesIO()
    scipy.io.mmwrite(file, sp.coo_array(matrix))
    return file.getvalue()


def _upload(desk, name, content):
    file = {"name": name, "type": "", "size": len(content), "last_modified": datetime(2026, 1, 1, tzinfo=UTC)}
    desk._button.value = (file | {"content": memoryview(content)},)


@pytest.mark.parametrize("key", OPTIONS)
def test_made_to_measure_sources_follow_size_and_seed(key):
    desk = MatrixDesk()
    small, large = (desk.load({"matrix": key, "size": size, "seed": 1}, _no_progress) for size in (6, 9))
    assert 2**5 <= small.shape[0] <= 2**7 and 2**8 <= large.shape[0] <= 2**10
    if "seed" in OPTIONS[key](6, 1):
        other = desk.load({"matrix": key, "size": 9, "seed": 2}, _no_progress)
        assert (large != other).nnz


def test_every_choice_is_in_the_catalogue():
    choices = [key for key, _ in MatrixDesk().knobs[0].choices]
    assert choices == [*MATRICES, "upload"]


def test_the_last_matrix_is_kept():
    desk = MatrixDesk()
    state = {"matrix": "karate", "size": 8, "seed": 1}
    assert desk.load(state, _no_progress) is desk.load(state | {"size": 9, "seed": 5}, _no_progress)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_upload_becomes_the_views_matrix(pack, rng, assert_close):
    desk = MatrixDesk()
    view = Wired(desk)
    desk.steer(view)
    matrix = sp.random_array((7, 5), density=0.4, rng=rng)
    _upload(desk, "mine.mtx", pack(_market(matrix)))
    assert view.state["matrix"] == "upload" and view.refreshed == 1
    assert_close(desk.load(view.state, _no_progress), sp.csr_array(matrix))
    assert "mine.mtx" in desk._status.value


def test_a_second_upload_replaces_the_first():
    desk = MatrixDesk()
    view = Wired(desk)
    desk.steer(view)
    for size in (3, 4):
        _upload(desk, "same.mtx", _market(np.eye(size)))
        assert desk.load(view.state, _no_progress).shape == (size, size)


def test_a_link_to_someone_elses_upload_says_so():
    with pytest.raises(ValueError, match="stayed with its owner; upload it here"):
        MatrixDesk().load({"matrix": "upload", "size": 8, "seed": 1}, _no_progress)


def test_bad_uploads_are_refused_in_a_sentence():
    desk = MatrixDesk()
    view = Wired(desk)
    desk.steer(view)
    for content in (b"", b"not a matrix", b"%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1.0\n"):
        _upload(desk, "bad.mtx", content)
        with pytest.raises(ValueError):
            desk.load(view.state, _no_progress)
    _upload(desk, "big.mtx", bytes(LARGEST_UPLOAD_BYTES + 1))
    with pytest.raises(ValueError, match="limit is"):
        desk.load(view.state, _no_progress)


def test_a_file_name_cannot_smuggle_html():
    desk = MatrixDesk()
    desk.steer(Wired(desk))
    _upload(desk, "<script>.mtx", b"x")
    assert "<script>" not in desk._status.value
