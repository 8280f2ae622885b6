"""A file from the reader's disk, in pieces, never more than a stated size."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

from widgets import theme

_HERE = Path(__file__).parent


class Upload(anywidget.AnyWidget):
    """A labelled file field; refuses in the browser what is too large, before a byte travels.

    Parameters
    ----------
    label : what the field is for.
    accept : file endings offered, comma-separated.
    limit_bytes : largest file.
    received : ``received(file name, bytes)`` is called when a file is here.
    """

    _esm = (_HERE / "upload.js").read_text(encoding="utf-8")
    _css = theme.css()

    label = traitlets.Unicode().tag(sync=True)
    accept = traitlets.Unicode().tag(sync=True)
    limit_bytes = traitlets.Int().tag(sync=True)

    def __init__(self, label: str, accept: str, limit_bytes: int, received: Callable[[str, bytes], None], **kwargs):
        super().__init__(label=label, accept=accept, limit_bytes=limit_bytes, **kwargs)
        self._received = received
        self._pieces: list[bytes] = []
        self.on_msg(self._receive)

    def close(self) -> None:
        """Take the field off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._received = None
        super().close()

    def _receive(self, _, content, buffers):
        if content.get("type") != "piece" or self._received is None:
            return
        if content["at"] == 0:
            self._pieces = []
        self._pieces.append(bytes(buffers[0]) if buffers else b"")
        so_far = sum(map(len, self._pieces))
        if so_far > self.limit_bytes:
            self._pieces = []
        elif so_far == content["size"]:
            data, self._pieces = b"".join(self._pieces), []
            self._received(str(content["name"]), data)
