"""A file from the reader's disk, in pieces, never more than a stated size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anywidget
import traitlets

from widgets import theme

LIMIT_BYTES = 64_000_000

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class UploadField:
    """What a view is told of a file field that it shows; parameters as for `Upload`."""

    label: str
    endings: Sequence[str]
    received: Callable[[str, bytes], None]
    limit_bytes: int = LIMIT_BYTES


class Upload(anywidget.AnyWidget):
    """A labelled file field; refuses in the browser what is too large, before a byte travels.

    What the page says is not believed: a piece is taken where the last one ended and while all of them stay within the
    limit, which the page cannot change. Anything else ends the transfer, and what had come is dropped.

    Parameters
    ----------
    label : what the field is for; what is taken and how much is added to it.
    endings : file endings offered.
    limit_bytes : largest file.
    received : ``received(file name, bytes)`` is called when a file is here.
    """

    _esm = theme.LATE + (_HERE / "upload.js").read_text(encoding="utf-8")
    _css = theme.css()

    label = traitlets.Unicode().tag(sync=True)
    accept = traitlets.Unicode().tag(sync=True)
    limit_bytes = traitlets.Int().tag(sync=True)
    refused = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        label: str,
        endings: Sequence[str],
        limit_bytes: int,
        received: Callable[[str, bytes], None],
        **kwargs,
    ):
        label = f"{label}, up to {limit_bytes / 1e6:g} MB"
        super().__init__(label=label, accept=",".join(endings), limit_bytes=limit_bytes, **kwargs)
        self._limit = limit_bytes  # the trait only tells the page; a page may set it to anything
        self._received = received
        self._so_far = bytearray()
        self.on_msg(self._receive)

    @classmethod
    def of(cls, field: UploadField, uploaded: Callable[[Callable, str, bytes], None]) -> "Upload":
        """Return a field whose files go to ``uploaded(field.received, file name, bytes)``, which tells errors."""
        return cls(field.label, field.endings, field.limit_bytes, partial(uploaded, field.received))

    def close(self) -> None:
        """Take the field off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._received, self._so_far = None, bytearray()
        super().close()

    def _receive(self, _, content, buffers):
        if content.get("type") != "piece" or self._received is None:
            return
        at, size = content.get("at"), content.get("size")
        piece = memoryview(buffers[0]).cast("B") if buffers else memoryview(b"")
        if at == 0:
            self._so_far, self.refused = bytearray(), ""
        expected = type(at) is int and type(size) is int and at == len(self._so_far) and len(piece) + at <= size
        if not expected or size > self._limit or not (piece or size == 0):
            self._so_far = bytearray()
            self.refused = f"The file was not taken: it must come whole and have at most {self._limit / 1e6:g} MB."
            return
        self._so_far += piece
        if len(self._so_far) == size:
            data, self._so_far = bytes(self._so_far), bytearray()
            self._received(str(content.get("name", "file")), data)
