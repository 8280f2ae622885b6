"""The bar of a view: progress and Cancel, errors, export, copy link; and the bridge to the page's address and theme."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

from widgets import theme

_HERE = Path(__file__).parent
ALL = "all"


class Toolbar(anywidget.AnyWidget):
    """What every view offers around its picture.

    Parameters
    ----------
    receive : ``receive(message)`` gets ``{"type": "cancel" | "export" | "address" | "page", ...}`` from the browser.

    Attributes
    ----------
    stale : what of the view still shows earlier settings and is dimmed: "" for nothing, `ALL`, or a part's CSS class.
    """

    _esm = theme.LATE + (_HERE / "toolbar.js").read_text(encoding="utf-8")
    _css = theme.css() + (_HERE / "toolbar.css").read_text(encoding="utf-8")

    title = traitlets.Unicode("").tag(sync=True)
    kind = traitlets.Unicode("").tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    stale = traitlets.Unicode("").tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    step = traitlets.Unicode("").tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    query = traitlets.Unicode("").tag(sync=True)
    owned = traitlets.List(traitlets.Unicode()).tag(sync=True)
    link_base = traitlets.Unicode("").tag(sync=True)
    exports = traitlets.List(traitlets.Unicode()).tag(sync=True)
    recipe = traitlets.Unicode("").tag(sync=True)

    def __init__(self, receive: Callable[[dict], None], **kwargs):
        self._hand_over = receive
        super().__init__(**kwargs)
        self.on_msg(self._receive)

    def download(self, filename: str, mime: str, content: bytes) -> None:
        """Have the browser save ``content``; the bytes travel over the widget's own connection."""
        self.send({"type": "download", "filename": filename, "mime": mime}, [content])

    def close(self) -> None:
        """Take the bar off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._hand_over = None
        super().close()

    def _receive(self, _, content, buffers):
        if self._hand_over is not None:
            self._hand_over(content)
