"""Opens a file of data, plain or compressed, from a path or from uploaded bytes, and never unpacks without bound.

Compressed text is unpacked as a stream that stops at the limit. The lists of archives are read here, not by `tarfile`
and `zipfile` alone: what they declare about their members is compared with the limits and with the bytes that are
there before a single member is unpacked.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from workbench.data.limits import Limits

__all__ = [
    "DataFileError",
    "is_tar",
    "is_zip",
    "only_matrix",
    "opened",
    "read_member",
    "shown",
    "tar_members",
    "unpacked",
    "zip_members",
]

PIECE = 2**20
XZ_MEMORY_BYTES = 2**27  # its dictionary is as large as the header says; `xz -9` needs 65 MiB
TAR_BLOCK = 512
SHOWN = 80


class DataFileError(ValueError):
    """A file that cannot be read, or is too large; the message names the file, what is wrong and often the cure."""


@contextmanager
def opened(source, limits: Limits, name: str | None = None) -> Iterator[tuple[str, IO[bytes]]]:
    """Open a path or bytes; give the name for error messages and a stream at its start.

    Parameters
    ----------
    source : path, or the bytes of a file.
    name : what to call it; the file's own name unless given.

    Raises
    ------
    DataFileError : larger than ``limits.file_bytes``.
    FileNotFoundError, IsADirectoryError, PermissionError : the path cannot be opened.
    TypeError : source is neither path nor bytes.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, size, stream = name or "uploaded file", len(source), io.BytesIO(source)
    elif isinstance(source, (str, Path)):
        path = Path(source)
        name, stream = name or path.name, path.open("rb")
        size = path.stat().st_size
    else:
        raise TypeError(f"a file must be given as a path or bytes, got {type(source).__name__}")
    with stream:
        if size > limits.file_bytes:
            most = f"the limit is {limits.file_bytes:,}"
            raise DataFileError(f"{shown(name)}: {size:,} bytes, {most}; {limits.cure}")
        yield shown(name), stream


def shown(text) -> str:
    """Return what a file calls something, or another library's words about it, as one line of moderate length."""
    line = "".join(c if c.isprintable() else "?" for c in str(text))
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


def unpacked(name: str, stream: IO[bytes], limits: Limits, at_most: int | None = None) -> bytes | bytearray:
    """Return the content, decompressed where it is compressed by gzip, bzip2 or xz.

    Parameters
    ----------
    at_most : return no more than that many bytes, and do not unpack more; all of it unless given.

    Raises
    ------
    DataFileError : damaged, or longer than ``limits.unpacked_bytes``.
    """
    stream.seek(0)
    head = stream.read(6)
    stream.seek(0)
    method = next((method for magic, method in _COMPRESSED.items() if head.startswith(magic)), None)
    if method is None:
        return stream.read(-1 if at_most is None else at_most)
    kind, unpack = method
    try:
        return _bounded(name, unpack(stream), limits, at_most)
    except _DAMAGED as error:
        if "Memory usage limit" in str(error):
            told = f"takes more than {XZ_MEMORY_BYTES:,} bytes of memory to unpack; pack it with a smaller dictionary"
            raise DataFileError(f"{name}: {told}") from None
        raise DataFileError(f"{name}: the {kind} data are damaged or cut off ({shown(error)})") from None


def _bounded(name, stream, limits, at_most=None):
    text = bytearray()
    while piece := stream.read(PIECE):
        text += piece
        if at_most is not None and len(text) >= at_most:
            return text[:at_most]
        if len(text) > limits.unpacked_bytes:
            most = f"unpacks to more than {limits.unpacked_bytes:,} bytes, which is the limit"
            raise DataFileError(f"{name}: {most}; {limits.cure}")
    return text


class _Xz(io.RawIOBase):
    """The unpacked bytes of an .xz or .lzma file; lzma's own file would take all the memory that a header asks for."""

    def __init__(self, packed):
        self._packed, self._unpacker = packed, self._new()

    @staticmethod
    def _new():
        return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)

    def read(self, size=PIECE):
        while True:
            if self._unpacker.eof:
                left = self._unpacker.unused_data or self._packed.read(PIECE)
                if not left.strip(b"\0"):
                    return b""
                self._unpacker = self._new()
            else:
                left = self._packed.read(PIECE) if self._unpacker.needs_input else b""
                if not left and self._unpacker.needs_input:
                    raise EOFError("the end is missing")
            if found := self._unpacker.decompress(left, size):
                return found


_COMPRESSED = {
    b"\x1f\x8b": ("gzip", lambda packed: gzip.GzipFile(fileobj=packed)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", _Xz),
    b"\x5d\x00\x00": ("lzma", _Xz),
}
_DAMAGED = (gzip.BadGzipFile, OSError, EOFError, zlib.error, lzma.LZMAError)


# Archives ------------------------------------------------------------------------------------------------------------
def is_zip(stream: IO[bytes]) -> bool:
    """Tell whether a stream holds a zip archive, such as an .npz file; it is left at its start."""
    stream.seek(0)
    head = stream.read(4)
    stream.seek(0)
    return head in (b"PK\x03\x04", b"PK\x05\x06")


def zip_members(name: str, stream: IO[bytes], limits: Limits) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Open a zip archive; return it and its files by name, after checking all that it declares about them.

    Raises
    ------
    DataFileError : damaged, too many members, more bytes declared than ``limits.unpacked_bytes``, an encrypted member,
        or one that is compressed in a way whose memory has no bound.
    """
    if _count(stream, b"PK\x01\x02") > limits.members:  # before the list is read, which takes memory for each
        raise DataFileError(
            f"{name}: holds more than {limits.members:,} files, which is the limit; give the matrix alone"
        )
    try:
        archive = zipfile.ZipFile(stream)
    except Exception as error:  # zipfile follows what the bytes say, and stumbles in many ways
        raise DataFileError(f"{name}: the zip archive is damaged or cut off ({shown(error)})") from None
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    declared = sum(member.file_size for member in members)
    if declared > limits.unpacked_bytes:
        most = f"declares {declared:,} bytes unpacked, the limit is {limits.unpacked_bytes:,}"
        raise DataFileError(f"{name}: {most}; {limits.cure}")
    for member in members:
        if member.flag_bits & 1:
            raise DataFileError(f"{name}: {shown(member.filename)} is encrypted; save it without a password")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
            raise DataFileError(f"{name}: {shown(member.filename)} is compressed in a rare way; save it with deflate")
    return archive, {member.filename: member for member in members}


def read_member(
    name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: Limits, at_most: int | None = None
) -> bytearray:
    """Return one file of a zip archive, or its first ``at_most`` bytes; never more than it declares."""
    try:
        with archive.open(member) as stream:
            return _bounded(name, stream, limits, at_most)
    except DataFileError:
        raise
    except Exception as error:  # as above
        raise DataFileError(f"{name}: {shown(member.filename)} is damaged or cut off ({shown(error)})") from None


def _count(stream, wanted):
    stream.seek(0)
    found, before = 0, b""
    while piece := stream.read(PIECE):
        found += (before + piece).count(wanted)
        before = piece[1 - len(wanted) :]
    stream.seek(0)
    return found


def is_tar(content) -> bool:
    """Tell whether unpacked content is a tar archive."""
    return bytes(content[257:262]) == b"ustar"


def tar_members(name: str, content, limits: Limits) -> dict[str, memoryview]:
    """Return the plain files of a tar archive in memory by name, uncopied.

    Raises
    ------
    DataFileError : damaged, too many members, a member that says it is larger than the archive, or one that is no
        plain file: links, devices, sparse files.
    """
    view, at, found, long_name = memoryview(content), 0, {}, ""
    for _ in range(3 * limits.members + 1):  # a long name takes two more headers
        header = bytes(view[at : at + TAR_BLOCK])
        if not header.strip(b"\0"):
            return found
        size, kind = _tar_size(name, header), header[156:157]
        place = long_name or _tar_name(header)
        body = view[at + TAR_BLOCK : at + TAR_BLOCK + size]
        if len(body) < size:
            raise DataFileError(
                f"{name}: {shown(place)} declares {size:,} bytes, the archive ends before; it is cut off"
            )
        at += TAR_BLOCK + -(-size // TAR_BLOCK) * TAR_BLOCK
        long_name = ""
        if kind in (b"x", b"g"):
            long_name = _pax_path(name, bytes(body[: 16 * TAR_BLOCK]))
        elif kind == b"L":
            long_name = bytes(body[: 16 * TAR_BLOCK]).rstrip(b"\0").decode("utf-8", "replace")
        elif kind in (b"0", b"\0"):
            found[place] = body
        elif kind != b"5":
            what = "a sparse file" if kind == b"S" else "no plain file"
            raise DataFileError(f"{name}: {shown(place)} is {what}; pack the matrix itself")
        if len(found) > limits.members:
            break
    raise DataFileError(f"{name}: holds more than {limits.members:,} files, which is the limit; give the matrix alone")


def _tar_size(name, header):
    try:
        checksum = int(header[148:156].strip(b"\0 ") or b"0", 8)
        size = int(header[124:136].strip(b"\0 ") or b"0", 8)
    except ValueError:
        checksum, size = -1, -1  # also a size in base 256, which files of 8 GB and more have
    if len(header) < TAR_BLOCK or size < 0 or checksum != sum(header) - sum(header[148:156]) + 8 * 32:
        raise DataFileError(f"{name}: the archive is damaged or cut off; pack it again")
    return size


def _tar_name(header):
    prefix, stem = (header[a:b].partition(b"\0")[0].decode("utf-8", "replace") for a, b in ((345, 500), (0, 100)))
    return f"{prefix}/{stem}" if prefix and header[257:263] == b"ustar\0" else stem


def _pax_path(name, records):
    if b"GNU.sparse" in records:
        raise DataFileError(f"{name}: holds a sparse file; pack the matrix itself")
    path = records.partition(b" path=")[2].partition(b"\n")[0]
    return path.decode("utf-8", "replace")


def only_matrix(name: str, found: dict, endings: tuple[str, ...]) -> str:
    """Return which member of an archive is the matrix: ``thing/thing.mtx``, or the only one of its kind."""
    files = [place for place in found if place.lower().endswith(endings)]
    named = [place for place in files if PurePosixPath(place).stem == PurePosixPath(place).parent.name]
    chosen = named if len(named) == 1 else files
    if len(chosen) != 1:
        held = ", ".join(map(shown, files[:5])) or "none"
        raise DataFileError(
            f"{name}: must hold one {' or '.join(endings)} file, holds {held}; unpack it and give one file"
        )
    return chosen[0]
