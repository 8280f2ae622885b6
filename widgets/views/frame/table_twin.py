"""The picture in words and as a table: caption from the data, and a paged plain table that screen readers walk."""

from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets

from widgets import theme

_HERE = Path(__file__).parent
PAGE_ROWS = 25


class TableTwin(anywidget.AnyWidget):
    """Caption and data table of a view; the rows of one page travel, and only once a reader opens the table."""

    _esm = theme.LATE + (_HERE / "table_twin.js").read_text(encoding="utf-8")
    _css = theme.css() + (_HERE / "table_twin.css").read_text(encoding="utf-8")

    caption = traitlets.Unicode("").tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    page = traitlets.Int(0).tag(sync=True)
    total = traitlets.Int(0).tag(sync=True)
    page_rows = traitlets.Int(PAGE_ROWS).tag(sync=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._columns: Sequence[str] = ()
        self._all_rows: Sequence[Sequence] = ()
        self._open = False
        self.on_msg(self._receive)

    def show(self, columns: Sequence[str], rows: Sequence[Sequence], caption: str) -> None:
        """Replace caption and table."""
        self._columns, self._all_rows = columns, rows
        with self.hold_sync():
            self.caption = caption
            self.total = len(rows)
            self._send_page(min(self.page, max(0, (len(rows) - 1) // PAGE_ROWS)))

    def close(self) -> None:
        """Take the table off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._all_rows = ()
        super().close()

    def _send_page(self, page: int) -> None:
        self.page = page
        if not self._open:
            return
        with self.hold_sync():
            self.columns = [str(c) for c in self._columns]
            rows = self._all_rows[page * PAGE_ROWS : (page + 1) * PAGE_ROWS]
            self.rows = [[cell_words(value) for value in row] for row in rows]

    def _receive(self, _, content, buffers):
        if content.get("type") == "page":
            self._open = bool(content.get("open", True))
            last = max(0, (len(self._all_rows) - 1) // PAGE_ROWS)
            self._send_page(min(max(0, int(content.get("page", 0))), last))


def cell_words(value) -> str:
    """Return a cell as it is read: numbers of six digits, thousands apart."""
    if isinstance(value, float) or type(value).__name__.startswith("float"):
        return f"{value:.6g}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return str(value)
    return f"{int(value):,}"


class ColumnRows(Sequence):
    """Rows of equally long columns, made when asked for."""

    def __init__(self, columns):
        self._columns = columns

    def __len__(self):
        return len(self._columns[0]) if self._columns else 0

    def __getitem__(self, at):
        if isinstance(at, slice):
            return list(zip(*(column[at].tolist() for column in self._columns), strict=True))
        return tuple(column[at].item() for column in self._columns)
