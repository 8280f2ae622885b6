import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.limits import LIBRARY, VISITOR
from workbench.data.matrix_market import read_header, read_matrix_market, with_float_values
from workbench.data.unpacking import DataFileError

BANNER = b"%%MatrixMarket matrix coordinate "


def test_reads_what_scipy_writes(tmp_path, rng):
    want = sp.random_array((40, 30), density=0.1, rng=rng, format="csr")
    path = tmp_path / "a.mtx"
    scipy.io.mmwrite(path, want, precision=17)
    for source in (path, str(path), path.read_bytes(), gzip.compress(path.read_bytes())):
        got = read_matrix_market(source)
        assert isinstance(got, sp.csr_array) and got.dtype == np.float64 and got.has_canonical_format
        np.testing.assert_array_equal(got.toarray(), want.toarray())
    packed = tmp_path / "b.mtx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_matrix_market(packed).toarray(), want.toarray())


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"real general\n% a comment\n\n2 3 2\n1 1 1.5\n2 3 -2e1\n", [[1.5, 0, 0], [0, 0, -20]]),
        (b"REAL GENERAL\r\n1 1 1\r\n1 1 +7\r\n", [[7]]),
        (b"double general\n1 1 1\n1 1 7", [[7]]),
        (b"integer general\n2 2 2\n\n+2 1 -3\n  \n1 2 +4\n", [[0, 4], [-3, 0]]),
        (b"pattern general\n2 2 1\n2 1\n", [[0, 0], [1, 0]]),
        (b"pattern general\n2 2 1\n2 1 ", [[0, 0], [1, 0]]),  # SciPy alone reads past the end here
        (b"real general\n2 2 1\n2 1 3 \t", [[0, 0], [3, 0]]),
        (b"real symmetric\n2 2 2\n1 1 5\n2 1 3\n", [[5, 3], [3, 0]]),
        (b"pattern symmetric\n2 2 1\n2 1\n", [[0, 1], [1, 0]]),
        (b"real skew-symmetric\n2 2 1\n2 1 3\n", [[0, -3], [3, 0]]),
        (b"real general\n2 2 2\n1 2 3\n1 2 4\n", [[0, 7], [0, 0]]),
        (b"real general\n0 0 0\n", np.zeros((0, 0))),
        (b"real general\n3 0 0\n", np.zeros((3, 0))),
        (b"real general\n1 2 2\n1 1 .5\n1 2 1.e2\n", [[0.5, 100]]),
    ],
)
def test_reads_every_sort_of_real_file(text, want):
    np.testing.assert_array_equal(read_matrix_market(BANNER + text).toarray(), want)


def test_keeps_explicit_zeros_nan_and_infinity():
    got = read_matrix_market(BANNER + b"real general\n1 3 3\n1 1 0\n1 2 nan\n1 3 -inf\n")
    np.testing.assert_array_equal(got.data, [0, np.nan, -np.inf])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "line 1: must start with"),
        (b"%%Matrix\n", "line 1: must start with"),
        (b"\x89PNG\r\n", "no Matrix Market file"),
        (b"%%MatrixMarket matrix coordinate real\n", "line 1: must have 5 words"),
        (b"%%MatrixMarket vector coordinate real general\n", "'matrix'"),
        (b"%%MatrixMarket matrix array real general\n", "size line is missing"),
        (b"%%MatrixMarket matrix array real general\n2 2 4\n", "must hold two whole numbers"),
        (b"%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n", "announces 4 entries, the file ends after 3"),
        (
            b"%%MatrixMarket matrix array real general\n1 1\n1 1\n",
            "line 3: an entry of a real matrix has 1 number, got",
        ),
        (b"%%MatrixMarket matrix array integer general\n1 1\n9223372036854775808\n", "line 3: value must fit"),
        (b"%%MatrixMarket matrix array pattern general\n1 1\n", "cannot be 'pattern'"),
        (b"%%MatrixMarket matrix sparse real general\n", "'coordinate'"),
        (BANNER + b"complex general\n1 1 1\n1 1 1\n", "line 3: an entry of a complex matrix has 4 numbers"),
        (BANNER + b"complex general\n1 1 1\n1 1 1 x\n", "line 3: value must be a number, got 'x'"),
        (BANNER + b"quaternion general\n", "field must be"),
        (BANNER + b"real diagonal\n", "symmetry must be"),
        (BANNER + b"unsigned-integer skew-symmetric\n", "unsigned numbers have no signs"),
        (BANNER + b"unsigned-integer general\n2 2 1\n1 1 -5\n", "line 3: value must fit into 64 bits and not be neg"),
        (BANNER + b"unsigned-integer general\n2 2 1\n1 1 18446744073709551616\n", "line 3: value must fit into 64"),
        (BANNER + b"integer skew-symmetric\n2 2 1\n2 1 -9223372036854775808\n", "line 3: value must fit into 64"),
        (BANNER + b"real general\n% only comments\n", "size line is missing"),
        (BANNER + b"real general\n2 2\n", "line 2: must hold three whole numbers"),
        (BANNER + b"real general\n2 2 1.0\n", "line 2: must hold three whole numbers"),
        (BANNER + b"real general\n%c\n2 -2 1\n", "line 3: .* must be >= 0"),
        (BANNER + b"real general\n99999999999999 1 0\n", "at most .* rows"),
        (BANNER + b"real general\n99999 99999 9999999999\n", "at most .* entries"),
        (BANNER + b"real general\n0 2 5\n", "do not fit"),
        (BANNER + b"real symmetric\n2 3 0\n", "must be square"),
        (BANNER + b"real general\n99 99 90\n1 1 1\n", "announces 90 entries, the file ends after 1; it is cut off"),
        (BANNER + b"real general\n9 9 2\n1 1 1        \n", "announces 2 entries, the file ends after 1"),
        (BANNER + b"real general\n9 9 1\n1 1 1\n\n2 2 2\n", "line 5: one entry more than the 1 announced on line 2"),
        (BANNER + b"real general\n9 9 2\n1 1 1\n3 3\n", "line 4: an entry of a real matrix has 3 numbers"),
        (BANNER + b"pattern general\n9 9 1\n1 1 1\n", "line 3: an entry of a pattern matrix has 2 numbers"),
        (BANNER + b"real general\n9 9 2\n1 1 1\n% late\n", "line 4: comments must stand before"),
        (BANNER + b"real general\n9 9 1\n0 1 1\n", "line 3: row must be from 1 to 9"),
        (BANNER + b"real general\n9 9 2\n1 1 1\n1 10 1\n", "line 4: column must be from 1 to 9"),
        (BANNER + b"real general\n9 9 1\n-1 1 1\n", "line 3: row must be at least 1"),
        (BANNER + b"real general\n9 9 1\n1.0 1 1\n", "line 3: row must be a whole number"),
        (BANNER + b"real general\n9 9 1\n99999999999999999999999 1 1\n", "row must be from 1 to 9"),
        (BANNER + b"real general\n9 9 1\n1 1 0x10\n", "line 3: value must be a number"),
        (BANNER + b"real general\n9 9 1\n1 1 1d5\n", "line 3: value must be a number"),
        (BANNER + b"integer general\n9 9 1\n1 1 1.5\n", "line 3: value must be a whole number"),
        (BANNER + b"integer general\n9 9 1\n1 1 99999999999999999999\n", "line 3: value must fit into 64 bits"),
        (BANNER + b"integer general\n9 9 1\n1 1 5e2\n", "line 3: value must be a whole number"),
        (BANNER + b"integer general\n9 9 2\n1 1 9223372036854775807\n1 1 1\n", "sum to more than 64 bits hold"),
    ],
)
def test_says_on_which_line_what_is_wrong(text, words):
    with pytest.raises(DataFileError, match=words):
        read_matrix_market(text)


def test_finds_the_line_in_a_large_file():
    lines = [b"%d %d 1" % (i % 999 + 1, i % 997 + 1) for i in range(300_000)]
    lines[200_000] = b"7 1000 1"
    with pytest.raises(DataFileError, match=r"line 200003: column must be from 1 to 999"):
        read_matrix_market(BANNER + b"real general\n999 999 300000\n" + b"\n".join(lines))


# What the reader once refused, or changed in silence, and what SciPy reads it as.
LIKE_SCIPY = [
    b"real symmetric\n2 2 1\n1 2 5\n",
    b"real symmetric\n3 3 3\n1 2 5\n2 1 7\n3 3 1\n",
    b"real skew-symmetric\n2 2 1\n1 2 5\n",
    b"real skew-symmetric\n2 2 2\n1 1 5\n2 1 3\n",
    b"integer skew-symmetric\n2 2 1\n1 2 5\n",
    b"pattern skew-symmetric\n2 2 1\n2 1\n",
    b"unsigned-integer general\n2 2 2\n2 1 18446744073709551615\n1 1 0\n",
    b"unsigned-integer symmetric\n2 2 1\n2 1 9007199254740993\n",
    b"integer general\n2 2 2\n2 1 9007199254740993\n1 2 -9223372036854775808\n",
    b"integer symmetric\n2 2 1\n2 1 -9007199254740993\n",
    b"integer general\n2 2 2\n2 1 5.0\n1 1 3.\n",
    b"real general\n1 1 3\n1 1 1\n1 1 2\n1 1 3\n",
    b"integer general\n1 1 2\n1 1 9007199254740992\n1 1 1\n",
    b"complex general\n2 2 2\n1 2 1.5 -2e1\n2 2 .5 0\n",
    b"complex hermitian\n2 2 2\n2 1 1 2\n1 1 5 0\n",
    b"complex symmetric\n2 2 1\n1 2 1 2\n",
    b"real hermitian\n2 2 1\n1 2 3\n",
    b"complex skew-symmetric\n2 2 1\n2 1 1 2\n",
]


@pytest.mark.parametrize("text", LIKE_SCIPY)
def test_what_scipy_reads_is_read_with_equal_values(text):
    for banner in (BANNER, BANNER[1:]):
        want = scipy.io.mmread(io.BytesIO(banner + text), spmatrix=False).tocsr()
        got = read_matrix_market(banner + text)
        assert got.dtype == want.dtype and got.nnz == want.nnz
        assert got.toarray().tolist() == want.toarray().tolist()


@pytest.mark.parametrize(
    "text",
    [
        b"real general\n2 3\n1\n2.5\n0\n-4e1\n\n 5\n6",
        b"integer symmetric\n2 2\n1\n+2\n9007199254740993\n",
        b"real skew-symmetric\n3 3\n2\n0\n3\n",
        b"unsigned-integer general\n1 1\n18446744073709551615\n",
        b"complex hermitian\n2 2\n1 0\n2 3\n4 0\n",
    ],
)
def test_dense_files_are_read_and_their_zeros_are_no_entries(text):
    text = b"%%MatrixMarket matrix array " + text
    want = scipy.io.mmread(io.BytesIO(text.replace(b"+", b"")))
    got = read_matrix_market(text)
    assert got.dtype == want.dtype and got.nnz == np.count_nonzero(want)
    assert got.toarray().tolist() == want.tolist()


@pytest.mark.parametrize(
    ("size", "symmetry"), [("0 3", "general"), ("0 0", "symmetric"), ("3 0", "general"), ("1 1", "skew-symmetric")]
)
def test_dense_files_without_values_do_not_end_the_process(size, symmetry):
    for field in ("real", "integer"):
        got = read_matrix_market(f"%%MatrixMarket matrix array {field} {symmetry}\n{size}\n".encode())
        assert got.nnz == 0 and list(got.shape) == [int(side) for side in size.split()]


def pack(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda text: lzma.compress(text, lzma.FORMAT_ALONE),
        lambda text: gzip.compress(text[:50]) + gzip.compress(text[50:]),
        lambda text: bz2.compress(text[:50]) + bz2.compress(text[50:]),
        lambda text: lzma.compress(text[:50]) + lzma.compress(text[50:]) + b"\0\0\0\0",
        lambda text: zipped(a_mtx=text, readme_txt=b"hello"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text),
    ],
)
def test_every_container_holds_the_same_matrix(pack):
    text = BANNER + b"real general\n1 2 2\n1 2 3\n1 1 2.5\n"
    packed = pack(text)
    np.testing.assert_array_equal(read_matrix_market(packed).toarray(), [[2.5, 3]])
    assert read_header(packed).entries == 2
    if not packed.endswith(text):
        for cut in (20, len(packed) // 2, len(packed) - 9):
            with pytest.raises(DataFileError, match="cut off"):
                read_matrix_market(packed[:cut])


def test_whole_numbers_are_made_floats_only_where_no_digit_is_lost():
    exact = read_matrix_market(BANNER + b"integer general\n1 2 2\n1 1 9007199254740994\n1 2 -4\n")
    floats = with_float_values("a.mtx", exact)
    assert floats.dtype == np.float64 and floats.data.tolist() == [9007199254740994.0, -4.0]
    assert with_float_values("a.mtx", floats) is floats or with_float_values("a.mtx", floats).data is floats.data
    for field, value in (("integer", 2**53 + 1), ("integer", -(2**63) + 1), ("unsigned-integer", 2**64 - 1)):
        lossy = read_matrix_market(BANNER + f"{field} general\n1 1 1\n1 1 {value}\n".encode())
        with pytest.raises(DataFileError, match=f"a.mtx: {value} has more digits"):
            with_float_values("a.mtx", lossy)


def test_bounds_are_checked_before_anything_is_unpacked():
    text = BANNER + b"real general\n9 9 1\n1 1 1\n"
    with pytest.raises(DataFileError, match="the limit is 10"):
        read_matrix_market(text, replace(LIBRARY, file_bytes=10))
    assert read_matrix_market(text, replace(LIBRARY, file_bytes=len(text))).nnz == 1
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        with pytest.raises(DataFileError, match="unpacks to more than 1,000 bytes"):
            read_matrix_market(pack(text + b" " * 10**7), replace(LIBRARY, unpacked_bytes=1000))
    with pytest.raises(DataFileError, match=r"declares 1,\d+ bytes unpacked, the limit is 1,000"):
        read_matrix_market(zipped(a_mtx=text + b" " * 1000), replace(LIBRARY, unpacked_bytes=1000))
    small = replace(VISITOR, entries=3, side=5)
    for body, words in (
        (b"real general\n6 1 0\n", "at most 5 rows and columns are read, got 6 x 1; open it in a notebook"),
        (b"real general\n2 2 4\n", "at most 3 entries are read, got 4; open it in a notebook of your own"),
        (b"real symmetric\n5 5 2\n2 1 1\n3 1 1\n", "at most 3 entries are read, got 4"),
    ):
        with pytest.raises(DataFileError, match=words):
            read_matrix_market(BANNER + body, small)
    with pytest.raises(DataFileError, match="holds more than 3 entries, which is the limit; open it in"):
        read_matrix_market(b"%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n4\n", small)


def test_a_header_without_its_entries_allocates_nothing(monkeypatch):
    monkeypatch.setattr(scipy.io, "mmread", lambda *_: pytest.fail("the reader was reached"))
    with pytest.raises(DataFileError, match="cut off"):
        read_matrix_market(BANNER + b"real general\n100000000 100000000 100000000\n1 1 1\n")


@pytest.mark.parametrize("cut", [5, 30, -4])
def test_damaged_gzip_is_named(cut):
    packed = gzip.compress(BANNER + b"real general\n9 9 1\n1 1 1\n")
    with pytest.raises(DataFileError, match="gzip data are damaged"):
        read_matrix_market(packed[:cut])


def test_paths_that_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_matrix_market(tmp_path / "absent.mtx")
    with pytest.raises(IsADirectoryError):
        read_matrix_market(tmp_path)
    with pytest.raises(TypeError, match="path or bytes"):
        read_matrix_market(7)


def test_header_alone(tmp_path):
    path = tmp_path / "a.mtx.gz"
    path.write_bytes(gzip.compress(BANNER + b"real symmetric\n%c\n9 9 2\n" + b"not read"))
    header = read_header(path)
    assert (header.rows, header.cols, header.entries, header.symmetry, header.lines) == (9, 9, 2, "symmetric", 3)


def test_an_archive_of_the_collection_is_read_as_it_is():
    text = BANNER + b"real general\n1 2 1\n1 2 3\n"
    packed = pack({"thing/thing_b.mtx": b"a vector", "thing/thing.mtx": text})
    np.testing.assert_array_equal(read_matrix_market(packed).toarray(), [[0, 3]])
    np.testing.assert_array_equal(read_matrix_market(pack({"other/a.mtx": text})).toarray(), [[0, 3]])
    assert read_header(packed).cols == 2
    with pytest.raises(DataFileError, match=r"must hold one \.mtx file, holds x/a\.mtx, x/b\.mtx"):
        read_matrix_market(pack({"x/a.mtx": text, "x/b.mtx": text}))
    with pytest.raises(DataFileError, match=r"thing/thing\.mtx: line 2: must hold three"):
        read_matrix_market(pack({"thing/thing.mtx": BANNER + b"real general\nx\n"}))
    with pytest.raises(DataFileError, match="unpacks to more than 100 bytes"):
        read_matrix_market(packed, replace(LIBRARY, unpacked_bytes=100))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_every_form_and_long_names(form):
    text = BANNER + b"real general\n1 2 1\n1 2 3\n"
    folder = "a" * 40 + "/" + "b" * 50 + "/thing"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:bz2", format=form) as tar:
        place = tarfile.TarInfo(folder)
        place.type = tarfile.DIRTYPE
        tar.addfile(place)
        for name in ("thing", "other"):
            info = tarfile.TarInfo(f"{folder}/{name}.mtx")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    np.testing.assert_array_equal(read_matrix_market(stream.getvalue()).toarray(), [[0, 3]])


def damaged_tar(kind=b"0", size=b"00000000400\0", extra=b""):
    """A tar archive of one header with a correct sum, and what comes after."""
    header = bytearray(512)
    header[:9] = b"thing.mtx"
    header[124:136] = size.ljust(12, b"\0")
    header[156:157] = kind
    header[257:265] = b"ustar  \0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return gzip.compress(bytes(header) + extra)


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (damaged_tar(b"S", extra=b"x" * 1024), "thing.mtx is a sparse file; pack the matrix itself"),
        (damaged_tar(b"x", extra=b"22 GNU.sparse.major=1\n".ljust(512, b"\0")), "sparse"),
        (damaged_tar(b"2", b"0"), "is no plain file"),
        (damaged_tar(b"3", b"0"), "is no plain file"),
        (damaged_tar(size=b"77777777777\0"), "declares 8,589,934,591 bytes, the archive ends before"),
        (damaged_tar(size=b"\x80" + b"\xff" * 11), "damaged"),
        (damaged_tar(size=b"-1"), "damaged"),
        (gzip.compress(gzip.decompress(damaged_tar()).replace(b"thing", b"think")), "damaged"),
        (pack({f"{i}.mtx": b"" for i in range(1001)}), "more than 1,000 files"),
        (zipped(**{f"n{i}_mtx": b"" for i in range(1001)}), "more than 1,000 files"),
        (zipped(readme_txt=b"hello"), "must hold one .mtx file, holds none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "archive",  # bytes hold the time, and workers compare names
)
def test_archives_that_lie_are_refused_in_words(packed, words):
    for read in (read_matrix_market, read_header):
        with pytest.raises(DataFileError, match=words):
            read(packed, replace(LIBRARY, members=1000))


TOKEN = st.sampled_from(
    [b"1", b"2", b"3", b"0", b"-1", b"1.5", b"nan", b"1e9", b"x", b"%", b"", b"\x00", b"9" * 25, b"+2"]
)
LINE = st.lists(TOKEN, max_size=4).map(b" ".join)
BODY = st.lists(LINE, max_size=5).map(b"\n".join)
HEAD = st.tuples(
    st.sampled_from([b"real", b"integer", b"unsigned-integer", b"pattern", b"complex"]),
    st.sampled_from([b"general", b"symmetric", b"skew-symmetric", b"hermitian"]),
)


@given(HEAD, st.tuples(*[st.integers(0, 3)] * 3), BODY)
def test_any_body_is_read_or_refused_and_never_leaves_the_matrix(head, size, body):
    text = BANNER + b" ".join(head) + b"\n" + b"%d %d %d\n" % size + body
    try:
        got = read_matrix_market(text)
    except DataFileError as error:
        assert str(error).startswith("uploaded file: ")
        return
    assert got.shape == size[:2]
    assert got.nnz <= 2 * size[2]
    assert got.indices.size == 0 or (got.indices.min() >= 0 and got.indices.max() < size[1])
    entries = [line.split() for line in body.split(b"\n") if line.strip()]
    want = np.zeros(size[:2], complex if head[0] == b"complex" else float)
    for words in entries:
        i, j, value = int(words[0]) - 1, int(words[1]) - 1, 1.0
        if words[2:]:
            value = complex(*map(float, words[2:])) if head[0] == b"complex" else float(words[2])
        want[i, j] += value
        if head[1] != b"general" and i != j:
            mirrored = {b"skew-symmetric": -value, b"hermitian": np.conj(value)}
            want[j, i] += mirrored.get(head[1], value)
    np.testing.assert_array_equal(got.toarray(), want)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(data, with_banner):
    text = BANNER + b"real general\n" + data if with_banner else data
    for source in (text, b"\x1f\x8b" + data):
        try:
            read_matrix_market(source)
        except DataFileError:
            continue


@given(st.integers(0, 120), st.integers(0, 255))
def test_one_changed_byte_is_read_or_refused(place, byte):
    stream = io.BytesIO()
    scipy.io.mmwrite(stream, sp.csr_array(np.arange(12.0).reshape(3, 4)), precision=6)
    text = bytearray(stream.getvalue())
    text[place % len(text)] = byte
    try:
        got = read_matrix_market(text)
    except DataFileError:
        return
    assert max(got.shape) <= LIBRARY.side
