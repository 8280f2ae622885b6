"""Reads Matrix Market files, plain, compressed or as the SuiteSparse collection packs them, from a path or bytes.

SciPy's reader does the parsing. Everything around it is checked here first, so that a malformed file gets a sentence
with the line's number, no size in a header makes us allocate, and no compressed file unpacks without bound.

What SciPy reads is read, with equal values, unless SciPy drops part of the file: digits after a whole number ("5.7" in
an integer file, "1d5"), further numbers on a line, or the shape of a symmetric matrix that is not square. Entries of a
symmetric file are mirrored on whichever side of the diagonal they lie, as in SciPy; what is listed on both is summed.
"""

import codecs
import io
import re
from dataclasses import dataclass

import numpy as np
import scipy.io
import scipy.sparse as sp

from kernels.matrix_bytes import for_scipy
from workbench.data.limits import LIBRARY, Limits
from workbench.data.unpacking import (
    PIECE,
    DataFileError,
    is_tar,
    is_zip,
    only_matrix,
    opened,
    read_member,
    shown,
    tar_members,
    unpacked,
    zip_members,
)

MAX_HEADER_BYTES = 2**20
FIELDS = {"real": 1, "integer": 1, "unsigned-integer": 1, "complex": 2, "pattern": 0}  # values per entry line
PLACES = {"coordinate": 2, "array": 0}  # indices per entry line
WHOLE = {"integer": range(-(2**63), 2**63), "unsigned-integer": range(2**64)}
SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")
INTEGER = re.compile(rb"[+-]?\d+\Z")
_INDICES = {"coordinate": rb"[ \t]*+\+?+\d++[ \t]++\+?+\d++", "array": b""}
_GAP = {"coordinate": rb"[ \t]++", "array": rb"[ \t]*+"}
_REAL = rb"[+-]?+(?:(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?+\d++)?+|(?i:nan|inf(?:inity)?+))"
_WHOLE = rb"[+-]?+\d++(?:\.0*+)?+"
_COMPLEX = _REAL + rb"[ \t]++" + _REAL
_VALUES = {"real": _REAL, "integer": _WHOLE, "unsigned-integer": _WHOLE, "complex": _COMPLEX, "pattern": b""}


def _lines(layout, field):
    """Return what matches all lines; possessive, so that a line that does not match costs no backtracking."""
    entry = _INDICES[layout] + (_GAP[layout] + _VALUES[field] if FIELDS[field] else b"")
    return re.compile(rb"(?:(?:" + entry + rb")?+[ \t\r]*+\n)*+")


LINES = {(layout, field): _lines(layout, field) for layout in PLACES for field in FIELDS}


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its entries.

    Parameters
    ----------
    rows, cols, entries : the size line; ``entries`` counts lines, so half of a symmetric matrix.
    layout : "coordinate", or "array" for a dense matrix.
    field : "real", "integer", "unsigned-integer", "complex" or "pattern".
    symmetry : "general", "symmetric", "skew-symmetric" or "hermitian".
    lines : lines up to and including the size line.
    offset : where the entries start, in bytes of the unpacked text.
    """

    rows: int
    cols: int
    entries: int
    layout: str
    field: str
    symmetry: str
    lines: int
    offset: int


def read_header(source, limits: Limits = LIBRARY, name: str | None = None) -> Header:
    """Read and check only the header of a Matrix Market file; parameters and errors as for `read_matrix_market`."""
    with opened(source, limits, name) as (called, stream):
        archive = is_zip(stream)
        text = b"" if archive else unpacked(called, stream, limits, at_most=MAX_HEADER_BYTES)
        if archive or is_tar(text):
            called, text = _text(called, stream, limits)
    return _header(called, text, limits)


def read_matrix_market(source, limits: Limits = LIBRARY, name: str | None = None, *, keep_duplicates: bool = False):
    """Read a sparse matrix from a Matrix Market file.

    Parameters
    ----------
    source : path of an ``.mtx`` file, or its bytes; plain, compressed (``.gz``, ``.bz2``, ``.xz``), or the only matrix
        of a ``.zip`` or of a SuiteSparse ``.tar.gz``. All are recognised by content.
    limits : the most that is read.
    name : what error messages call it; the file's own name unless given.
    keep_duplicates : return a coo_array where the file has several entries at one place, so that they can be counted.

    Returns
    -------
    csr_array, canonical: indices sorted, entries of equal position summed, explicit zeros kept. Values are float64, in
    integer files int64 and in unsigned-integer files uint64, so that no digit is lost, in complex files complex128.
    Symmetric, skew-symmetric and hermitian files are completed, patterns get ones. Zeros of dense ("array") files are
    no entries.

    Raises
    ------
    DataFileError (a ValueError) : anything wrong in the file, with its line, or too large.
    FileNotFoundError, IsADirectoryError, PermissionError : the path cannot be opened.
    TypeError : source is neither path nor bytes.
    """
    called, header, read = _entries(source, limits, name)
    if header.layout == "array":
        return from_dense(called, read, limits)
    rows, cols, values = _complete(called, header, *read, limits)
    return summed(called, rows, cols, values, (header.rows, header.cols), keep_duplicates)


def _entries(source, limits, name):
    """Return the name, the header, and what `_parse` reads; the text is let go, as it takes much memory."""
    with opened(source, limits, name) as (called, stream):
        called, text = _text(called, stream, limits)
    header = _header(called, text, limits)
    if isinstance(text, bytearray):
        text += b"\n"  # the last line may lack its end
    elif bytes(text[-1:]) != b"\n":
        text = bytes(text) + b"\n"
    body = memoryview(text)[header.offset :]
    _check_lines(called, header, body)
    return called, header, _parse(called, header, body)


def from_dense(name: str, dense: np.ndarray, limits: Limits) -> sp.csr_array:
    """Return the entries of a dense matrix that are not zero.

    Raises
    ------
    DataFileError : more than ``limits.entries``.
    """
    m, n = dense.shape
    lengths, columns, values, stored = [np.zeros(1, np.int32)], [], [], 0
    step = max(1, PIECE // max(n, 1))
    for first in range(0, m, step):  # in bands of rows, since places take more memory than the matrix
        band = dense[first : first + step]
        i, j = np.nonzero(band)
        stored += len(i)
        if stored > limits.entries:
            raise DataFileError(
                f"{name}: holds more than {limits.entries:,} entries, which is the limit; {limits.cure}"
            )
        lengths.append(np.bincount(i, minlength=len(band)).astype(np.int32))
        columns.append(j.astype(np.int32))
        values.append(for_scipy(band[i, j]))
    if not values:
        return sp.csr_array((m, n), dtype=for_scipy(dense[:0]).dtype)
    indptr = np.cumsum(np.concatenate(lengths), dtype=np.int32)
    return sp.csr_array((np.concatenate(values), np.concatenate(columns), indptr), shape=(m, n))


def summed(name: str, rows, cols, values, shape, keep_duplicates: bool = False) -> sp.csr_array | sp.coo_array:
    """Return a canonical matrix of entries; values at one place are summed, narrow whole numbers as int64.

    With ``keep_duplicates``, entries that would be summed are returned as they are.

    Raises
    ------
    DataFileError : whole numbers sum to more than 64 bits hold.
    """
    entries = sp.coo_array((values, (rows, cols)), shape=shape)
    matrix = entries.tocsr()
    matrix.sum_duplicates()
    if keep_duplicates and matrix.nnz < len(values):
        return entries
    if values.dtype.kind in "iu" and matrix.nnz < len(values):
        if values.dtype.itemsize < 8:
            return summed(name, rows, cols, values.astype(np.int64), shape)
        exact = sp.coo_array((values.astype(np.float64), (rows, cols)), shape=shape).tocsr()
        if (abs(exact.data - matrix.data) > 2.0**40).any():  # a sum that wraps is off by a power of two far above
            raise DataFileError(f"{name}: entries at one place sum to more than 64 bits hold")
    return matrix


def with_float_values(name: str, matrix: sp.csr_array) -> sp.csr_array:
    """Return the matrix with float64 values, which the kernels multiply; itself where it has them.

    Raises
    ------
    DataFileError : complex values, or a whole number that float64 does not hold exactly.
    """
    if matrix.dtype.kind == "c":
        raise complex_refused(name)
    floats = matrix.astype(np.float64, copy=False)
    if matrix.dtype.kind in "iu" and matrix.dtype.itemsize == 8:
        large = np.flatnonzero(abs(floats.data) >= 2.0**53)
        lost = next((int(matrix.data[p]) for p in large if int(floats.data[p]) != int(matrix.data[p])), None)
        if lost is not None:
            raise DataFileError(
                f"{name}: {lost} has more digits than a floating-point number holds, and products are computed in "
                "those; divide the values by a common factor"
            )
    return floats


def complex_refused(name: str) -> DataFileError:
    """Return the error of who multiplies, which here is done in real numbers."""
    return DataFileError(f"{name}: complex matrices are not multiplied here; give real, integer or pattern values")


def _text(name, stream, limits):
    """Return the name and the text of the matrix, out of its archive where it lies in one."""
    if is_zip(stream):
        archive, found = zip_members(name, stream, limits)
        chosen = only_matrix(name, found, (".mtx",))
        return f"{name}, {chosen}", read_member(name, archive, found[chosen], limits)
    head = unpacked(name, stream, limits, at_most=MAX_HEADER_BYTES)
    if not is_tar(head):
        _header(name, head, limits)  # refuses what is too large before all is unpacked
        return name, unpacked(name, stream, limits)
    text = unpacked(name, stream, limits)
    found = tar_members(name, text, limits)
    chosen = only_matrix(name, found, (".mtx",))
    return f"{name}, {chosen}", found[chosen]


def _header(name, text, limits):
    def wrong(line, words):
        return DataFileError(f"{name}: line {line}: {words}")

    stream = io.BytesIO(text[:MAX_HEADER_BYTES])
    banner = stream.readline()
    words = banner.removeprefix(codecs.BOM_UTF8).decode("latin-1").lower().split()
    if not words or words[0] not in ("%%matrixmarket", "%matrixmarket"):
        raise wrong(1, f"must start with '%%MatrixMarket', got {_quote(banner)}; this is no Matrix Market file")
    if len(words) != 5:
        raise wrong(1, f"must have 5 words (%%MatrixMarket matrix FORMAT FIELD SYMMETRY), got {len(words)}")
    _, kind, layout, field, symmetry = words
    if kind != "matrix":
        raise wrong(1, f"object must be 'matrix', got {kind!r}")
    if layout not in PLACES:
        raise wrong(1, f"format must be 'coordinate' or 'array', got {layout!r}")
    if field == "double":
        field = "real"
    if field not in FIELDS:
        raise wrong(1, f"field must be one of {', '.join(FIELDS)}; got {field!r}")
    if symmetry not in SYMMETRIES:
        raise wrong(1, f"symmetry must be one of {', '.join(SYMMETRIES)}; got {symmetry!r}")
    if field == "pattern" and layout == "array":
        raise wrong(1, "a dense matrix has values, so its field cannot be 'pattern'")
    if field == "unsigned-integer" and symmetry == "skew-symmetric":
        raise wrong(1, "unsigned numbers have no signs, so they cannot be skew-symmetric; declare them as integer")
    number = 1
    while True:
        line = stream.readline()
        number += 1
        if not line:
            where = "the size line is missing" if stream.tell() < MAX_HEADER_BYTES else "the comments are too long"
            raise wrong(number, where)
        if line.strip() and not line.lstrip().startswith(b"%"):
            break
    if not line.endswith(b"\n") and stream.tell() >= MAX_HEADER_BYTES:
        raise wrong(number, "the line is too long")
    numbers, wanted = line.split(), _SIZES[layout]
    if len(numbers) != len(wanted) or not all(INTEGER.match(n) and len(n) < 20 for n in numbers):
        count = {2: "two", 3: "three"}[len(wanted)]
        raise wrong(number, f"must hold {count} whole numbers ({', '.join(wanted)}), got {_quote(line)}")
    rows, cols, *entries = map(int, numbers)
    if min(rows, cols, *entries) < 0:
        raise wrong(number, f"{' and '.join((', '.join(wanted[:-1]), wanted[-1]))} must be >= 0, got {_quote(line)}")
    if symmetry != "general" and rows != cols:
        raise wrong(number, f"a {symmetry} matrix must be square, got {rows:,} x {cols:,}")
    if max(rows, cols) > limits.side:
        raise wrong(
            number, f"at most {limits.side:,} rows and columns are read, got {rows:,} x {cols:,}; {limits.cure}"
        )
    if layout == "array":
        if 8 * rows * cols > limits.unpacked_bytes:
            most = f"dense matrices of at most {limits.unpacked_bytes:,} bytes are read"
            raise wrong(number, f"{most}, got {rows:,} x {cols:,} of 8 bytes; {limits.cure}")
        entries = [
            rows * cols if symmetry == "general" else rows * (rows + (-1 if symmetry == "skew-symmetric" else 1)) // 2
        ]
    elif entries[0] > limits.entries:
        raise wrong(number, f"at most {limits.entries:,} entries are read, got {entries[0]:,}; {limits.cure}")
    elif entries[0] and not (rows and cols):
        raise wrong(number, f"{entries[0]:,} entries do not fit into {rows:,} x {cols:,}")
    return Header(rows, cols, entries[0], layout, field, symmetry, number, stream.tell())


_SIZES = {"coordinate": ("rows", "columns", "entries"), "array": ("rows", "columns")}


def _check_lines(name, header, body):
    """Check the form of every line and the number of entries, before anything of the announced size is allocated."""
    end = LINES[header.layout, header.field].match(body).end()
    if end < len(body):
        number, line = header.lines + _count_lines(body[:end]) + 1, bytes(body[end : end + 200]).split(b"\n")[0]
        _explain_line(f"{name}: line {number}", header, line)
    lines = _count_lines(body)
    if lines == header.entries:
        return
    seen = 0
    for number, line in enumerate(io.BytesIO(body), start=header.lines + 1):
        seen += not line.isspace()
        if seen > header.entries:
            announced = f"the {header.entries:,} announced on line {header.lines}"
            raise DataFileError(f"{name}: line {number}: one entry more than {announced}")
    if seen < header.entries:
        announced = f"line {header.lines} announces {header.entries:,} entries"
        raise DataFileError(f"{name}: {announced}, the file ends after {seen:,}; it is cut off")


def _explain_line(where, header, line):
    """Raise for a line that is no entry."""
    words, places = line.split(), PLACES[header.layout]
    width = places + FIELDS[header.field]
    if words[0].startswith(b"%"):
        raise DataFileError(f"{where}: comments must stand before the size line (line {header.lines})")
    if len(words) != width:
        wanted = f"an entry of a {header.field} matrix has {width} number{'s' if width > 1 else ''}"
        raise DataFileError(f"{where}: {wanted}, got {_quote(line)}")
    for word, what in zip(words[:places], ("row", "column"), strict=False):
        if not INTEGER.match(word):
            raise DataFileError(f"{where}: {what} must be a whole number, got {_quote(word)}")
        if word[:1] == b"-":
            raise DataFileError(f"{where}: {what} must be at least 1, got {_quote(word)}")
    kind = "a whole number" if header.field in WHOLE else "a number"
    raise DataFileError(f"{where}: value must be {kind}, got {_quote(words[-1])}")


def _count_lines(body):
    pieces = (np.frombuffer(body[at : at + PIECE], dtype=np.uint8) for at in range(0, len(body), PIECE))
    return sum(int(np.count_nonzero(piece == 10)) for piece in pieces)


class _Joined:
    """Pieces of text as one stream, without a copy of them all."""

    def __init__(self, *pieces):
        self._pieces = [memoryview(piece) for piece in pieces]

    def read(self, size=-1):
        """Return the next bytes."""
        while self._pieces and not len(self._pieces[0]):
            del self._pieces[0]
        if not self._pieces:
            return b""
        first = self._pieces[0]
        end = len(first) if size is None or size < 0 else size
        self._pieces[0] = first[end:]
        return bytes(first[:end])


def _parse(name, header, body):
    """Return row and column indices from 0 and values, in the file's order, the symmetry left aside; or the array."""
    dense = header.layout == "array"
    if dense and 0 in (header.rows, header.cols):  # SciPy divides by zero
        return np.zeros((header.rows, header.cols))
    symmetry, size = (header.symmetry, "") if dense else ("general", f" {header.entries}")
    banner = f"%%MatrixMarket matrix {header.layout} {header.field} {symmetry}\n{header.rows} {header.cols}{size}\n"
    if re.search(rb"\+", body):  # SciPy refuses "+1"
        body = memoryview(re.sub(rb"(?<![eE])\+", b"", body))
    try:
        raw = scipy.io.mmread(_Joined(banner.encode(), body), spmatrix=False)
    except Exception as error:
        _find_outside(name, header, body)
        raise DataFileError(f"{name}: cannot be read: {shown(error)}") from None
    if dense:
        return raw
    rows, cols = raw.coords
    if rows.size != header.entries:
        raise DataFileError(f"{name}: announces {header.entries:,} entries, {rows.size:,} could be read")
    if rows.size and (min(rows.min(), cols.min()) < 0 or rows.max() >= header.rows or cols.max() >= header.cols):
        _find_outside(name, header, body)
    if header.symmetry == "skew-symmetric" and header.field == "integer" and (raw.data == -(2**63)).any():
        _find_outside(name, header, body)
    return rows, cols, raw.data


def _find_outside(name, header, body):
    """Raise for the first index outside the matrix or whole number outside 64 bits."""
    whole = WHOLE.get(header.field)
    if whole and header.symmetry == "skew-symmetric":
        whole = whole[1:]  # the mirrored entry must fit as well
    places = PLACES[header.layout]
    for number, line in _entry_lines(header, body):
        words = line.split()
        for word, size, what in zip(words[:places], (header.rows, header.cols), ("row", "column"), strict=False):
            if len(word.lstrip(b"+0")) > 19 or not 1 <= int(word) <= size:
                raise DataFileError(f"{name}: line {number}: {what} must be from 1 to {size:,}, got {_quote(word)}")
        value = words[-1]
        if whole and (len(value) > 30 or int(value.partition(b".")[0]) not in whole):
            least = "" if whole.start else " and not be negative"
            raise DataFileError(f"{name}: line {number}: value must fit into 64 bits{least}, got {_quote(value)}")


def _entry_lines(header, body):
    for number, line in enumerate(io.BytesIO(body), start=header.lines + 1):
        if not line.isspace():
            yield number, line


def _complete(name, header, rows, cols, values, limits):
    """Add the mirror image of a matrix that is not general."""
    if header.symmetry == "general":
        return rows, cols, values
    beside = rows != cols
    stored = len(rows) + int(np.count_nonzero(beside))
    if stored > limits.entries:
        raise DataFileError(f"{name}: at most {limits.entries:,} entries are read, got {stored:,}; {limits.cure}")
    mirrored = (np.concatenate((a, b[beside])) for a, b in ((rows, cols), (cols, rows)))
    return *mirrored, np.concatenate((values, _MIRRORED[header.symmetry](values[beside])))


_MIRRORED = {"symmetric": np.positive, "skew-symmetric": np.negative, "hermitian": np.conjugate}


def _quote(line):
    text = line[:60].decode("latin-1").strip()
    return repr(text + ("..." if len(line) > 60 else ""))
