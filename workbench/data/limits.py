"""How large a file may be: the one place for every limit of what is read, for visitors of a page and for Python.

A page is open to people who share one machine, so what they upload is held to `VISITOR`. Who opens a path in Python
of their own has the machine to themselves and gets `LIBRARY`, or passes limits of their own.
"""

from dataclasses import dataclass

__all__ = ["LIBRARY", "VISITOR", "Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that is read. Everything is compared with what headers declare before anything is unpacked.

    Parameters
    ----------
    file_bytes : the file as it is stored.
    unpacked_bytes : all that it unpacks to, and all arrays that it holds.
    entries : entries stored for a sparse matrix; the mirrored half of a symmetric file counts as well.
    side : rows, and columns.
    members : files in an archive.
    cure : what a reader can do whose file is too large, as the end of a sentence.
    """

    file_bytes: int
    unpacked_bytes: int
    entries: int
    side: int
    members: int
    cure: str


LIBRARY = Limits(
    file_bytes=2**28,
    unpacked_bytes=2**30,
    entries=2**27,
    side=2**27,
    members=1000,
    cure="take a smaller matrix, or pass higher limits",
)
VISITOR = Limits(
    file_bytes=64_000_000,
    unpacked_bytes=100_000_000,
    entries=5_000_000,
    side=2_000_000,
    members=100,
    cure="open it in a notebook of your own, where the limits are higher",
)
