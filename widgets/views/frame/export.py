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

TABLE_ROWS_IN_HTML = 1000
MAX_SAVED = 5_000_000


def csv_bytes(columns: Sequence[str], rows: Sequence[Sequence]) -> bytes:
    """Return the table as UTF-8 CSV with a header line; floats in full precision."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the arrays as a compressed NPZ file."""
    content = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(content, **named)
    return content.getvalue()


def matrix_file(name: str, remark: str, matrix, ending: str) -> tuple[str, str, bytes]:
    """Return a sparse matrix as an export: file name made from ``name`` and ``remark``, MIME type, bytes.

    Raises
    ------
    ValueError : more than MAX_SAVED entries.
    """
    if matrix.nnz > MAX_SAVED:
        told = f"{name} has {matrix.nnz:,} entries; a page saves up to {MAX_SAVED:,}."
        raise ValueError(f"{told} Save it in a notebook.")
    stem = re.sub(r"(\.(mtx|npz|npy|gz|bz2|xz|zip|tar))+$", "", name)
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "matrix"
    mime = {".mtx": "text/plain", ".npz": "application/x-npz"}[ending]
    return stem + remark + ending, mime, matrix_bytes(matrix, ending)


def html_bytes(view) -> bytes:
    """Return the view as one HTML page: figures that still zoom, pictures, words, table and the Python; offline."""
    colours = theme.PALETTE[view.theme]
    columns, rows = view.table(view.scene)
    head = "".join(f"<th scope=col>{html.escape(str(c))}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row) + "</tr>" for row in rows[:TABLE_ROWS_IN_HTML]
    )
    left_out = len(rows) - TABLE_ROWS_IN_HTML
    truncated = f"<p>{left_out:,} further rows are left out; the CSV export has them all.</p>" if left_out > 0 else ""
    caption = html.escape(view.alt_text(view.scene))
    style = (
        f"body{{font:16px/1.5 {theme.FONT};margin:2rem auto;max-width:70rem;padding:0 1rem;"
        f"color:{colours['ink']};background:{colours['paper']}}}img{{max-width:100%;image-rendering:pixelated}}"
        f"td,th{{text-align:left;padding:2px 12px 2px 0;border-bottom:1px solid {colours['line']}}}"
        "table{border-collapse:collapse}pre{overflow:auto}"
    )
    page = (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{html.escape(view.title)}</title><style>{style}</style><h1>{html.escape(view.title)}</h1>"
        f"<p>{html.escape(view.kind)}</p>{''.join(_picture_parts(view))}<p>{caption}</p>"
        f"<h2>Settings</h2>{_settings(view)}<h2>Data</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        f"</table>{truncated}<h2>Python</h2><pre>{html.escape(view.recipe())}</pre></html>"
    )
    return page.encode()


def _settings(view):
    items = ((view.knob(key).label, value) for key, value in view.state.items() if value != "")
    return "<ul>" + "".join(f"<li>{html.escape(k)}: {html.escape(str(v))}</li>" for k, v in items) + "</ul>"


def _picture_parts(view):
    with_library = True
    for name, widget in view.pictures().items():
        if hasattr(widget, "png"):
            image = base64.b64encode(widget.png()).decode()
            alt = html.escape(getattr(widget, "alt", "") or name, quote=True)
            yield f'<figure><img alt="{alt}" src="data:image/png;base64,{image}"></figure>'
        elif widget.figure is not None:
            yield plotly.io.to_html(widget.figure, include_plotlyjs=with_library, full_html=False, validate=False)
            with_library = False
