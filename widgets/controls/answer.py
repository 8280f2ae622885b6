"""A question with a field to answer it in, and what is told of the answer."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

from widgets import theme

_HERE = Path(__file__).parent


class AnswerField(anywidget.AnyWidget):
    """A question, the reader's input, a text field, buttons to have the answer checked and to get a hint.

    Parameters
    ----------
    checked : ``checked(text)`` -> what to tell of an answer, as HTML.
    hinted : ``hinted()`` -> one more hint, as HTML.
    question : what is asked, with the precision that is wanted.
    how : how an answer is typed.
    given : the reader's input as text, folded away; "" for none.
    lines : height of the field in lines; Enter starts a new line in a field of several, and has one of a single line
        checked. 0 for no field, where an answer cannot be typed.
    """

    _esm = theme.LATE + (_HERE / "answer.js").read_text(encoding="utf-8")
    _css = theme.css() + (_HERE / "answer.css").read_text(encoding="utf-8")

    question = traitlets.Unicode("").tag(sync=True)
    how = traitlets.Unicode("").tag(sync=True)
    given = traitlets.Unicode("").tag(sync=True)
    lines = traitlets.Int(1).tag(sync=True)
    told = traitlets.Unicode("").tag(sync=True)
    answered = traitlets.Int(0).tag(sync=True)

    def __init__(self, checked: Callable[[str], str], hinted: Callable[[], str], **kwargs):
        self._checked, self._hinted = checked, hinted
        super().__init__(**kwargs)
        self.on_msg(self._receive)

    def close(self) -> None:
        """Take the field off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._checked = self._hinted = None
        super().close()

    def _receive(self, _, content, buffers):
        kind, text = content.get("type"), content.get("text")
        if self._checked is None or self._hinted is None:  # closed meanwhile
            return
        with self.hold_sync():
            if kind == "hint":
                self.told = self._hinted()
            elif kind == "answer" and isinstance(text, str):
                self.told = self._checked(text)
            self.answered += 1
