"""Matrices in files: every form that SciPy and NumPy write is read, headers are checked, files round-trip."""

import bz2
import gzip
import io
import lzma
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from kernels.matrix_bytes import matrix_bytes
from kernels.reorder import permuted, reorder
from workbench.data.limits import LIBRARY, VISITOR
from workbench.data.matrix_files import check_matrix, read_matrix, save_matrix
from workbench.data.unpacking import DataFileError

FORMATS = ("csr", "csc", "coo", "bsr", "dia")


@pytest.fixture
def matrix(rng):
    found = sp.random_array((40, 30), density=0.1, rng=rng, format="csr")
    found.data[3] = 0  # a stored zero
    return found


def npz(**arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("compressed", (False, True))
@pytest.mark.parametrize("as_matrix", (False, True))
def test_every_format_that_scipy_saves_is_read(tmp_path, matrix, form, compressed, as_matrix):
    given = matrix.asformat(form)
    if as_matrix:
        given = getattr(sp, f"{form}_matrix")(given)
    path = tmp_path / "a.npz"
    sp.save_npz(path, given, compressed=compressed)
    for source in (path, str(path), path.read_bytes()):
        check_matrix(source)
        got = read_matrix(source)
        assert isinstance(got, sp.csr_array) and got.dtype == np.float64 and got.has_canonical_format
        assert got.nnz == given.tocoo().nnz
        np.testing.assert_array_equal(got.toarray(), matrix.toarray())


def test_coordinates_in_one_array_are_read(matrix):
    entries = matrix.tocoo()
    content = npz(data=entries.data, coords=np.stack(entries.coords), shape=entries.shape, format="coo")
    np.testing.assert_array_equal(read_matrix(content).toarray(), matrix.toarray())


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float32", ">f8", ">i4", "complex64", ">c16"])
@pytest.mark.parametrize("order", ("C", "F"))
def test_dense_arrays_of_every_dtype_are_read(matrix, dtype, order):
    dense = np.asarray(np.rint(9 * matrix.toarray()).astype(dtype), order=order)
    for content in (
        npy(dense),
        gzip.compress(npy(dense)),
        bz2.compress(npy(dense)),
        lzma.compress(npy(dense)),
        npz(m=dense),
    ):
        check_matrix(content)
        got = read_matrix(content)
        assert got.nnz == np.count_nonzero(dense)
        assert got.dtype == ("float32" if dtype == "float16" else dense.dtype.newbyteorder("="))
        np.testing.assert_array_equal(got.toarray(), dense)


@pytest.mark.parametrize("dtype", ["float16", ">f8", ">i2", "bool"])
@pytest.mark.parametrize("places", ["int16", ">i4", "uint8", "int64", "uint64"])
def test_sparse_arrays_of_every_dtype_are_read(matrix, dtype, places):
    data = np.rint(9 * matrix.data).astype(dtype)
    parts = {"indices": matrix.indices.astype(places), "indptr": matrix.indptr.astype(places)}
    got = read_matrix(npz(data=data, shape=matrix.shape, format="csr", **parts))
    np.testing.assert_array_equal(got.data, data)
    np.testing.assert_array_equal(got.indices, matrix.indices)


def test_entries_at_one_place_are_summed_and_never_wrap():
    parts = {"indices": np.array([1, 0, 1]), "indptr": np.array([0, 3]), "shape": (1, 2), "format": "csr"}
    got = read_matrix(npz(data=np.array([1.0, 2, 3]), **parts))
    assert got.has_canonical_format and got.toarray().tolist() == [[2, 4]]
    for dtype in ("int64", "uint64"):
        with pytest.raises(DataFileError, match=r"sum to more than 64 bits hold"):
            read_matrix(npz(data=np.full(3, np.iinfo(dtype).max, dtype), **parts))
    assert read_matrix(npz(data=np.full(3, 127, np.int8), **parts)).toarray().tolist() == [[127, 254]]


def test_entries_at_one_place_are_kept_for_who_counts_them(matrix):
    doubled = matrix.tocoo()
    doubled = sp.coo_array(
        (np.append(doubled.data, 7.0), tuple(np.append(at, at[:1]) for at in doubled.coords)), shape=doubled.shape
    )
    for content in (matrix_bytes(doubled, ".mtx"), matrix_bytes(doubled, ".npz"), matrix_bytes(doubled, ".mtx.gz")):
        kept = read_matrix(content, keep_duplicates=True)
        assert kept.format == "coo" and kept.nnz == matrix.nnz + 1 == read_matrix(content).nnz + 1
        np.testing.assert_array_equal(kept.toarray(), read_matrix(content).toarray())
    assert read_matrix(matrix_bytes(matrix, ".npz"), keep_duplicates=True).has_canonical_format


GOOD = {
    "data": np.ones(2),
    "indices": np.array([0, 1]),
    "indptr": np.array([0, 1, 2]),
    "shape": (2, 2),
    "format": "csr",
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"indices": np.array([0, 2])}, "is no valid csr matrix"),
        ({"indices": np.array([0, -1])}, "is no valid csr matrix"),
        ({"indices": np.array([0, 2**32])}, r"an index beyond 2\^31"),
        ({"indptr": np.array([0, 2])}, "is no valid csr matrix"),
        ({"indptr": np.array([0, 3, 2])}, "is no valid csr matrix"),
        ({"indptr": np.array([0, 1, 5])}, "is no valid csr matrix"),
        ({"data": np.ones(3)}, "is no valid csr matrix"),
        ({"data": np.ones((1, 2))}, "is no valid csr matrix"),
        ({"indices": np.array([0.0, 1])}, "'indices' must hold whole numbers, got float64"),
        ({"data": np.array(["a", "b"])}, "bools or numbers of up to 64 bits, got <U1"),
        ({"data": np.ones(2, np.longdouble)}, "bools or numbers of up to 64 bits, got float128"),
        ({"data": np.array([{}, {}])}, "data holds Python objects, which are not read"),
        ({"shape": (2, 2, 2)}, "two dimensions"),
        ({"shape": (2, -2)}, "rows and columns"),
        ({"shape": (2**30, 2)}, "at most 134,217,728 rows and columns are read, got 1,073,741,824 x 2"),
        ({"format": "lil"}, "in the format 'lil'; known are csr"),
        ({"format": np.array(["csr"])}, "one short word"),
        ({"format": "coo"}, "a coo matrix needs the array 'row'"),
        ({"format": "dia", "offsets": np.array([2**40])}, r"an index beyond 2\^31"),
    ],
)
def test_malformed_sparse_arrays_are_named(changed, words):
    np.testing.assert_array_equal(read_matrix(npz(**GOOD)).toarray(), np.eye(2))
    with pytest.raises(DataFileError, match=words) as error:
        read_matrix(npz(**GOOD | changed), name="mine.npz")
    assert str(error.value).startswith("mine.npz: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(np.ones(3)), r"holds an array of shape \(3,\); a matrix has two dimensions"),
        (npy(np.ones((2, 2, 2))), "a matrix has two dimensions"),
        (npy(np.array([[{}]])), "Python objects"),
        (npy(np.array([["a"]])), "bools or numbers"),
        (npy(np.zeros((2, 2), "i4,f4")), "save numbers or bools"),
        (npz(a=np.eye(2), b=np.eye(2)), "holds the arrays a, b; give a sparse matrix saved by SciPy"),
        (npy(np.eye(3))[:-8], r"declares float64 of shape \(3, 3\), 72 bytes, and has 64; it is damaged or cut off"),
        (npy(np.eye(3))[:60], "header that is damaged or cut off"),
        (npy(np.eye(3))[:9], "no .npy array|header"),
        (npy(np.eye(3)).replace(b"(3, 3)", b"(3,-3)"), "damaged"),
        (npy(np.eye(3)).replace(b"'<f8'", b"'<V0'"), "damaged|save numbers"),
        (npy(np.eye(3)).replace(b"{'descr'", b"[[[[[[[["), "header that is damaged"),
        (b"PK\x03\x04" + b"x" * 50, "zip archive is damaged"),
    ],
)
def test_malformed_files_are_named(content, words):
    for read in (read_matrix, check_matrix):
        with pytest.raises(DataFileError, match=words):
            read(content)


def declared(shape, member="m.npy", extra=0):
    """An .npz whose one member declares a shape that it does not hold."""
    header = npy(np.zeros((1, 1))).replace(b"(1, 1), ", repr(shape).encode() + b", ")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, header + bytes(extra))
    return content.getvalue()


def test_declared_sizes_are_compared_with_the_bytes_before_anything_is_made():
    with pytest.raises(DataFileError, match="damaged or cut off"):
        read_matrix(declared((10**6, 10**6)))
    with pytest.raises(
        DataFileError, match=r"declares 200,000,1.* bytes unpacked, the limit is 100,000,000; open it in a"
    ):
        read_matrix(declared((1, 1), extra=200_000_000), VISITOR)
    lying = bytearray(declared((1, 1)))
    at = lying.rindex(b"PK\x01\x02") + 24
    lying[at : at + 4] = (2**32 - 2).to_bytes(4, "little")
    with pytest.raises(DataFileError, match="bytes unpacked, the limit is"):
        read_matrix(bytes(lying))
    with pytest.raises(DataFileError, match="holds more than 10 entries, which is the limit"):
        read_matrix(npy(np.ones((3, 4))), replace(LIBRARY, entries=10))
    with pytest.raises(DataFileError, match="at most 1 entries are read, got 2"):
        read_matrix(npz(**GOOD), replace(LIBRARY, entries=1))


def test_a_member_without_a_name_is_no_matrix():
    content = declared((1, 1), member="m.npy").replace(b"m.npy", b"\0.npy")
    with pytest.raises(DataFileError, match=r"must hold one \.mtx file, holds none"):
        read_matrix(content)


def test_an_encrypted_archive_is_named():
    content = bytearray(npz(**GOOD))
    for at in range(len(content)):
        if content[at : at + 4] == b"PK\x01\x02":
            content[at + 8] |= 1
    with pytest.raises(DataFileError, match="is encrypted; save it without a password"):
        read_matrix(bytes(content))


def test_a_changed_byte_is_read_or_refused(rng):
    for content in (
        npz(**GOOD),
        npy(np.eye(3)),
        matrix_bytes(sp.eye_array(5), ".npz"),
        matrix_bytes(sp.eye_array(5), ".mtx.gz"),
    ):
        for place in rng.integers(0, len(content), 300):
            broken = bytearray(content)
            broken[place] = rng.integers(256)
            try:
                read_matrix(bytes(broken))
            except DataFileError as error:
                assert len(str(error)) < 300


@pytest.mark.parametrize("ending", (".mtx", ".mtx.gz", ".npz"))
@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint64", "float32", "float64"])
def test_what_is_saved_is_read_again(tmp_path, rng, ending, dtype):
    matrix = sp.random_array((31, 31), density=0.1, rng=rng, format="csr")
    matrix.data = matrix.data.astype(dtype)
    if "int" in dtype:
        matrix.data = np.iinfo(dtype).max - (np.arange(matrix.nnz) % 9).astype(dtype)
    shuffled = permuted(matrix, reorder(matrix, "random"))
    for form in (matrix, shuffled, matrix.tocsc(), matrix.todok(), sp.csr_matrix(matrix), matrix.toarray()):
        path = save_matrix(tmp_path / f"a{ending}", form)
        got, want = read_matrix(path), sp.csr_array(form)
        np.testing.assert_array_equal(got.toarray(), want.toarray())
        assert got.nnz == want.nnz
        if ending == ".npz" or dtype in ("int64", "uint64", "float64"):
            assert got.dtype == dtype
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}"]


@pytest.mark.parametrize("ending", (".mtx", ".npz"))
def test_saving_keeps_explicit_zeros_nan_and_every_digit(tmp_path, ending):
    data = np.array([0.0, np.nan, -np.inf, 1 / 3, 1e-310, -0.1])
    matrix = sp.csr_array((data, np.arange(6), np.array([0, 6])), shape=(1, 6))
    np.testing.assert_array_equal(read_matrix(save_matrix(tmp_path / f"a{ending}", matrix)).data, data)
    half = sp.csr_array((np.ones(3, np.float16), np.arange(3), np.array([0, 3])), shape=(1, 3))
    assert read_matrix(save_matrix(tmp_path / f"a{ending}", half)).toarray().tolist() == [[1, 1, 1]]
    foreign = np.eye(3).astype(">f2")
    np.testing.assert_array_equal(read_matrix(save_matrix(tmp_path / f"a{ending}", foreign)).toarray(), np.eye(3))


def test_scipy_reads_what_is_saved(tmp_path, matrix):
    np.testing.assert_array_equal(
        scipy.io.mmread(save_matrix(tmp_path / "a.mtx.gz", matrix)).toarray(), matrix.toarray()
    )
    np.testing.assert_array_equal(sp.load_npz(save_matrix(tmp_path / "a.npz", matrix)).toarray(), matrix.toarray())


def test_what_cannot_be_saved_is_named(tmp_path, matrix):
    with pytest.raises(ValueError, match=r"path must end in \.mtx, \.mtx\.gz, \.npz; got 'a\.txt'"):
        save_matrix(tmp_path / "a.txt", matrix)
    for bad, words in ((np.ones((1, 1), np.longdouble), "float128"), (np.ma.masked_array(np.eye(2)), "a masked array")):
        with pytest.raises(TypeError, match=words):
            save_matrix(tmp_path / "a.mtx", bad)
    with pytest.raises(ValueError, match="two dimensions"):
        save_matrix(tmp_path / "a.npz", np.ones(3))
    assert not list(tmp_path.iterdir())
