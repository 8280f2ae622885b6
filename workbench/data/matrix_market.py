"""Reads Matrix Market files, plain, gzipped or as the SuiteSparse collection packs them, from a path or uploaded bytes.

SciPy's reader does the parsing. Everything around it is checked here first, so that a malformed file gets a sentence
with the line's number, no size in a header makes us allocate, and no compressed file unpacks without bound.
"""

import gzip
import io
import itertools
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io
import scipy.sparse as sp

MAX_FILE_BYTES = 2**28
MAX_TEXT_BYTES = 2**30
MAX_ENTRIES = 2**27
MAX_SIDE = 2**27
MAX_HEADER_BYTES = 2**20
FIELDS = {"real": 3, "integer": 3, "pattern": 2}  # numbers per entry line
SYMMETRIES = ("general", "symmetric", "skew-symmetric")
INTEGER = re.compile(rb"[+-]?\d+\Z")
_INDICES = rb"[ \t]*+\+?+\d++[ \t]++\+?+\d++"
_REAL = rb"[ \t]++[+-]?+(?:(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?+\d++)?+|(?i:nan|inf(?:inity)?+))"
_VALUES = {"real": _REAL, "integer": rb"[ \t]++[+-]?+\d++", "pattern": b""}
# Possessive throughout, so that a line that does not match costs no backtracking.
LINES = {field: re.compile(rb"(?:(?:" + _INDICES + value + rb")?+[ \t\r]*+\n)*+") for field, value in _VALUES.items()}


class MatrixMarketError(ValueError):
    """A file that is no readable Matrix Market matrix; the message names the file, the line and what is wrong."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its entries.

    Parameters
    ----------
    rows, cols, entries : the size line; ``entries`` counts lines, so half of a symmetric matrix.
    field : "real", "integer" or "pattern".
    symmetry : "general", "symmetric" or "skew-symmetric".
    lines : lines up to and including the size line.
    offset : where the entries start, in bytes of the unpacked text.
    """

    rows: int
    cols: int
    entries: int
    field: str
    symmetry: str
    lines: int
    offset: int


def read_header(source, max_file_bytes=MAX_FILE_BYTES) -> Header:
    """Read and check only the header of a Matrix Market file; parameters and errors as for `read_matrix_market`."""
    name, raw = _open(source, max_file_bytes)
    with raw:
        text = _unpack(name, raw, MAX_HEADER_BYTES, whole=False)
        if _is_archive(text):
            name, text = _member(name, _unpack(name, raw, MAX_TEXT_BYTES, whole=True))
    return _header(name, text)


def read_matrix_market(source, max_file_bytes=MAX_FILE_BYTES, max_text_bytes=MAX_TEXT_BYTES):
    """Read a sparse matrix from a Matrix Market file.

    Parameters
    ----------
    source : path of an ``.mtx``, ``.mtx.gz`` or SuiteSparse ``.tar.gz`` file, or its bytes; recognised by content.
    max_file_bytes : largest file, as it is stored.
    max_text_bytes : largest text after unpacking.

    Returns
    -------
    csr_array, float64, canonical: indices sorted, entries of equal position summed, explicit zeros kept. Symmetric and
    skew-symmetric files are completed, patterns get ones.

    Raises
    ------
    MatrixMarketError (a ValueError) : anything wrong in the file, with its line. Complex and dense files are refused.
    FileNotFoundError, IsADirectoryError, PermissionError : the path cannot be opened.
    TypeError : source is neither path nor bytes.
    """
    name, raw = _open(source, max_file_bytes)
    with raw:
        text = _unpack(name, raw, max_text_bytes, whole=True)
    if _is_archive(text):
        name, text = _member(name, text)
    header = _header(name, text)
    body = memoryview(text if text.endswith(b"\n") else text + b"\n")[header.offset :]
    _check_lines(name, header, body)
    rows, cols, values = _parse(name, header, body)
    rows, cols, values = _complete(name, header, body, rows, cols, values)
    matrix = sp.coo_array((values, (rows, cols)), shape=(header.rows, header.cols)).tocsr()
    matrix.sum_duplicates()
    return matrix


def _open(source, max_file_bytes):
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, size, raw = "uploaded file", len(source), io.BytesIO(source)
    elif isinstance(source, (str, Path)):
        path = Path(source)
        name, raw = path.name, path.open("rb")
        size = path.stat().st_size
    else:
        raise TypeError(f"read_matrix_market: source must be a path or bytes, got {type(source).__name__}")
    if size > max_file_bytes:
        raw.close()
        raise MatrixMarketError(f"{name}: {size:,} bytes, the limit is {max_file_bytes:,}; take a smaller matrix")
    return name, raw


def _is_archive(text):
    return text[257:262] == b"ustar"


def _member(name, text):
    """Return the name and bytes of the matrix in an archive: ``thing/thing.mtx``, or the only .mtx file there is."""
    try:
        with tarfile.open(fileobj=io.BytesIO(text), mode="r:") as tar:
            files = [member for member in tar if member.isfile() and member.name.endswith(".mtx")]
            named = [member for member in files if _is_named_as_its_folder(PurePosixPath(member.name))]
            chosen = named if len(named) == 1 else files
            if len(chosen) != 1:
                found = ", ".join(member.name for member in files) or "none"
                raise MatrixMarketError(f"{name}: must hold one .mtx file, holds {found}; unpack it and give one file")
            return f"{name}, {chosen[0].name}", tar.extractfile(chosen[0]).read()
    except (tarfile.TarError, EOFError) as error:
        raise MatrixMarketError(f"{name}: the archive is damaged or cut off ({error})") from None


def _is_named_as_its_folder(path):
    return path.stem == path.parent.name


def _unpack(name, raw, limit, whole):
    """Return at most ``limit`` bytes of text; a longer text is an error when the whole was asked for."""
    raw.seek(0)
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    stream = gzip.GzipFile(fileobj=raw) if packed else raw
    try:
        text = stream.read(limit + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MatrixMarketError(f"{name}: the gzip data are damaged or cut off ({error})") from None
    if len(text) > limit and whole:
        raise MatrixMarketError(f"{name}: more than {limit:,} bytes of text, which is the limit; take a smaller matrix")
    return text


def _header(name, text):
    def wrong(line, words):
        return MatrixMarketError(f"{name}: line {line}: {words}")

    stream = io.BytesIO(text[:MAX_HEADER_BYTES])
    banner = stream.readline()
    words = banner.decode("latin-1").lower().split()
    if not words or words[0] != "%%matrixmarket":
        raise wrong(1, f"must start with '%%MatrixMarket', got {_quote(banner)}; this is no Matrix Market file")
    if len(words) != 5:
        raise wrong(1, f"must have 5 words (%%MatrixMarket matrix FORMAT FIELD SYMMETRY), got {len(words)}")
    _, kind, layout, field, symmetry = words
    if kind != "matrix":
        raise wrong(1, f"object must be 'matrix', got {kind!r}")
    if layout == "array":
        raise wrong(1, "format 'array' holds a dense matrix; only sparse ('coordinate') files are read")
    if layout != "coordinate":
        raise wrong(1, f"format must be 'coordinate', got {layout!r}")
    if field == "complex" or symmetry == "hermitian":
        raise wrong(1, "complex matrices are not supported; give real, integer or pattern values")
    if field == "double":
        field = "real"
    if field not in FIELDS:
        raise wrong(1, f"field must be one of {', '.join(FIELDS)}; got {field!r}")
    if symmetry not in SYMMETRIES:
        raise wrong(1, f"symmetry must be one of {', '.join(SYMMETRIES)}; got {symmetry!r}")
    if field == "pattern" and symmetry == "skew-symmetric":
        raise wrong(1, "a pattern has no signs, so it cannot be skew-symmetric")
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
    numbers = line.split()
    if len(numbers) != 3 or not all(INTEGER.match(n) and len(n) < 20 for n in numbers):
        raise wrong(number, f"must hold three whole numbers (rows, columns, entries), got {_quote(line)}")
    rows, cols, entries = map(int, numbers)
    if min(rows, cols, entries) < 0:
        raise wrong(number, f"rows, columns and entries must be >= 0, got {_quote(line)}")
    if max(rows, cols) > MAX_SIDE:
        raise wrong(number, f"at most {MAX_SIDE:,} rows and columns are read, got {rows:,} x {cols:,}")
    if entries > MAX_ENTRIES:
        raise wrong(number, f"at most {MAX_ENTRIES:,} entries are read, got {entries:,}")
    if entries > rows * cols:
        raise wrong(number, f"{entries:,} entries do not fit into {rows:,} x {cols:,}")
    if symmetry != "general" and rows != cols:
        raise wrong(number, f"a {symmetry} matrix must be square, got {rows:,} x {cols:,}")
    return Header(rows, cols, entries, field, symmetry, number, stream.tell())


def _check_lines(name, header, body):
    """Check the form of every line and the number of entries, before anything of the announced size is allocated."""
    end = LINES[header.field].match(body).end()
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
            raise MatrixMarketError(f"{name}: line {number}: one entry more than {announced}")
    if seen < header.entries:
        announced = f"line {header.lines} announces {header.entries:,} entries"
        raise MatrixMarketError(f"{name}: {announced}, the file ends after {seen:,}; it is cut off")


def _explain_line(where, header, line):
    """Raise for a line that is no entry."""
    words, width = line.split(), FIELDS[header.field]
    if words[0].startswith(b"%"):
        raise MatrixMarketError(f"{where}: comments must stand before the size line (line {header.lines})")
    if len(words) != width:
        wanted = f"an entry of a {header.field} matrix has {width} numbers"
        raise MatrixMarketError(f"{where}: {wanted}, got {_quote(line)}")
    for word, what in zip(words, ("row", "column"), strict=False):
        if not INTEGER.match(word):
            raise MatrixMarketError(f"{where}: {what} must be a whole number, got {_quote(word)}")
        if word[:1] == b"-":
            raise MatrixMarketError(f"{where}: {what} must be at least 1, got {_quote(word)}")
    kind = "a whole number" if header.field == "integer" else "a number"
    raise MatrixMarketError(f"{where}: value must be {kind}, got {_quote(words[-1])}")


def _count_lines(body):
    return int(np.count_nonzero(np.frombuffer(body, dtype=np.uint8) == 10))


def _parse(name, header, body):
    """Return row and column indices from 0 and values, in the file's order, the symmetry left aside."""
    banner = f"%%MatrixMarket matrix coordinate {header.field} general\n{header.rows} {header.cols} {header.entries}\n"
    text = bytes(body)
    if b"+" in text:  # SciPy refuses "+1"
        text = re.sub(rb"(?<![eE])\+", b"", text)
    try:
        raw = scipy.io.mmread(io.BytesIO(banner.encode() + text), spmatrix=False)
    except Exception as error:
        _find_outside(name, header, body)
        raise MatrixMarketError(f"{name}: cannot be read: {error}") from None
    rows, cols = raw.coords
    if rows.size != header.entries:
        raise MatrixMarketError(f"{name}: announces {header.entries:,} entries, {rows.size:,} could be read")
    if rows.size and (min(rows.min(), cols.min()) < 0 or rows.max() >= header.rows or cols.max() >= header.cols):
        _find_outside(name, header, body)
    return rows, cols, raw.data.astype(np.float64)


def _find_outside(name, header, body):
    """Raise for the first index outside the matrix or integer outside 64 bits."""
    for number, line in _entry_lines(header, body):
        words = line.split()
        for word, size, what in zip(words, (header.rows, header.cols), ("row", "column"), strict=False):
            if len(word.lstrip(b"+0")) > 19 or not 1 <= int(word) <= size:
                raise MatrixMarketError(f"{name}: line {number}: {what} must be from 1 to {size:,}, got {_quote(word)}")
        if header.field == "integer" and (len(words[2]) > 30 or not -(2**63) <= int(words[2]) < 2**63):
            raise MatrixMarketError(f"{name}: line {number}: value must fit into 64 bits, got {_quote(words[2])}")


def _entry_lines(header, body):
    for number, line in enumerate(io.BytesIO(body), start=header.lines + 1):
        if not line.isspace():
            yield number, line


def _complete(name, header, body, rows, cols, values):
    """Add the mirror image of a symmetric or skew-symmetric matrix."""
    if header.symmetry == "general":
        return rows, cols, values
    sign = -1.0 if header.symmetry == "skew-symmetric" else 1.0
    wrong = np.flatnonzero((cols > rows) | ((cols == rows) & (values != 0)) if sign < 0 else cols > rows)
    if wrong.size:
        k = int(wrong[0])
        place = "on or above" if sign < 0 else "above"
        number, _ = next(itertools.islice(_entry_lines(header, body), k, None))
        raise MatrixMarketError(
            f"{name}: line {number}: entry ({rows[k] + 1}, {cols[k] + 1}) lies {place} the diagonal; a "
            f"{header.symmetry} file lists the part below it"
        )
    below = rows != cols
    mirrored = (np.concatenate((a, b[below])) for a, b in ((rows, cols), (cols, rows)))
    return *mirrored, np.concatenate((values, sign * values[below]))


def _quote(line):
    text = line[:60].decode("latin-1").strip()
    return repr(text + ("..." if len(line) > 60 else ""))
