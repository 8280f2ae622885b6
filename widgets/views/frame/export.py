"""Files made from a view: CSV, NPZ, a matrix, and one HTML page that needs no network."""

import base64
import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.io

from kernels.matrix_bytes import matrix_bytes
from widgets import theme
from widgets.views.frame.table_twin import cell_words

TABLE_ROWS_IN_HTML = 1000
MAX_SAVED = 5_000_000
LONGEST_STEM = 160  # bytes
RESERVED = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])(\.|$)", re.IGNORECASE)  # Windows' names of devices


def csv_bytes(columns: Sequence[str], rows: Sequence[Sequence]) -> bytes:
    """Return the table as UTF-8 CSV with a header line; floats in full precision, what is not a number left blank."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(map(_plain, row) for row in rows)
    return text.getvalue().encode()


def _plain(value):
    """Return a cell as CSV holds it."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return "" if isinstance(value, (float, np.floating)) and value != value else value


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the arrays as a compressed NPZ file."""
    content = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(content, **named)
    return content.getvalue()


def file_name(title: str, part: str, ending: str) -> str:
    """Return a name that every system takes for a file: letters, digits, points and dashes, not too many of them.

    Parameters
    ----------
    title, part : words for the name, of a view and of one of its pictures, or what a user calls a file; may be empty.
    ending : with its point.
    """
    stem = re.sub(r"[^\w.]+", "-", f"{title}-{part}").encode()[:LONGEST_STEM].decode(errors="ignore").strip("-. ")
    stem = f"file-{stem}" if RESERVED.match(stem) else stem
    return (stem or "file") + ending


def matrix_file(name: str, remark: str, matrix, ending: str) -> tuple[str, str, bytes]:
    """Return a sparse matrix as an export: file name made from ``name`` and ``remark``, MIME type, bytes.

    Raises
    ------
    ValueError : more than MAX_SAVED entries.
    """
    check_size(name, matrix)
    stem = re.sub(r"(\.(mtx|npz|npy|gz|bz2|xz|zip|tar))+$", "", name)
    mime = {".mtx": "text/plain", ".npz": "application/x-npz"}[ending]
    return file_name(stem, remark, ending), mime, matrix_bytes(matrix, ending)


def check_size(name: str, matrix) -> None:
    """Raise ValueError if a matrix has more entries than a page saves."""
    if matrix.nnz > MAX_SAVED:
        told = f"{name} has {matrix.nnz:,} entries; a page saves up to {MAX_SAVED:,}."
        raise ValueError(f"{told} Save it in a notebook.")


def html_bytes(view) -> bytes:
    """Return the view as one HTML page: figures that still zoom, pictures, words, table and the Python; offline."""
    colours = theme.PALETTE[view.theme]
    columns, rows = view.table(view.scene)
    head = "".join(f"<th scope=col>{html.escape(str(c))}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell_words(v))}</td>" for v in row) + "</tr>"
        for row in rows[:TABLE_ROWS_IN_HTML]
    )
    left_out = len(rows) - TABLE_ROWS_IN_HTML
    truncated = f"<p>{left_out:,} further rows are left out; the CSV export has them all.</p>" if left_out > 0 else ""
    style = (
        f"body{{font:16px/1.5 {theme.FONT};margin:2rem auto;max-width:70rem;padding:0 1rem;"
        f"color:{colours['ink']};background:{colours['paper']}}}img{{max-width:100%}}figure{{margin:0 0 1rem}}"
        f"figcaption{{color:{colours['muted']}}}"
        f"td,th{{text-align:left;padding:2px 12px 2px 0;border-bottom:1px solid {colours['line']}}}"
        "table{border-collapse:collapse}pre{overflow:auto}"
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{truncated}"
    page = (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{html.escape(view.title)}</title><style>{style}</style><h1>{html.escape(view.title)}</h1>"
        f"<p>{html.escape(view.alt_text(view.scene))} The pictures are {html.escape(view.kind)}.</p>"
        f"{''.join(_part_sections(view))}<h2>Settings</h2>{_settings(view)}"
        f"<h2>Data</h2>{table if len(rows) else '<p>There are no data to list.</p>'}"
        f"<h2>Python</h2><pre>{html.escape(view.recipe())}</pre></html>"
    )
    return page.encode()


def _settings(view):
    items = "".join(f"<li>{html.escape(label)}: {html.escape(value)}</li>" for label, value in view.settings() if value)
    return f"<ul>{items}</ul>"


def _part_sections(view):
    """Yield each part under its heading, with a caption; one that has nothing to show is a sentence."""
    with_library = True
    for name, widget in view.parts().items():
        heading, caption = _capitalised(getattr(widget, "title", "") or name), getattr(widget, "alt", "")
        shown = ""
        if widget.is_empty:
            caption = caption or "There is nothing to show."
        elif hasattr(widget, "png"):
            shown = _image(widget, caption or name)
        else:
            shown = plotly.io.to_html(widget.figure, include_plotlyjs=with_library, full_html=False, validate=False)
            with_library = False
        yield (
            f"<section><h2>{html.escape(heading)}</h2><figure>{shown}"
            f"<figcaption>{html.escape(_capitalised(caption))}</figcaption></figure></section>"
        )


def _image(widget, alt):
    try:
        content = widget.png(worded=False)
    except ValueError as nothing_in_view:
        return f"<p>{html.escape(str(nothing_in_view))}</p>"
    width = int.from_bytes(content[16:20], "big") // 2  # two pixels of the file are one on the page
    source = base64.b64encode(content).decode()
    return f'<img width="{width}" alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{source}">'


def _capitalised(words):
    return words[:1].upper() + words[1:]
