"""Small tables of facts as accessible HTML, in the colours of the theme."""

import html
from collections.abc import Sequence

_STYLE = (
    "<style>.wb-facts{overflow-x:auto;padding:4px}.wb-facts table{border-collapse:collapse;font-size:15px}"
    ".wb-facts caption{text-align:left;font-weight:600;font-size:16px;padding:4px 0}"
    ".wb-facts th,.wb-facts td{text-align:left;padding:3px 16px 3px 0;border-bottom:1px solid var(--wb-line);"
    "vertical-align:top}.wb-facts tbody th{min-width:14em;font-weight:400}"
    ".wb-facts td{font-variant-numeric:tabular-nums}"
    ".wb-facts .wb-shown{color:var(--wb-accent)}</style>"
)


def fact_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], shown: int | None = None) -> str:
    """Return the table as HTML text; the first cell of each row heads it.

    Parameters
    ----------
    caption : what the table holds.
    columns : column names.
    rows : texts, one per column.
    shown : column to point out, in colour and in words.
    """

    def cell(tag, text, column, scope=""):
        mark = " class='wb-shown'" if column == shown else ""
        return f"<{tag}{scope}{mark}>{html.escape(text)}</{tag}>"

    names = [f"{name} (shown)" if c == shown else name for c, name in enumerate(columns)]
    head = "".join(cell("th", name, c, " scope='col'") for c, name in enumerate(names))
    body = "".join(
        "<tr>"
        + cell("th", row[0], 0, " scope='row'")
        + "".join(cell("td", t, c) for c, t in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    label = html.escape(caption, quote=True)
    return (
        f"{_STYLE}<div class='wb wb-facts' tabindex='0' role='region' aria-label='{label}'><table><caption>{label}"
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def short_number(value: float) -> str:
    """Return a number as a table shows it: four digits, or all that stand before the point."""
    whole = abs(value) >= 1000 or (float(value).is_integer() and abs(value) >= 10)
    return f"{value:,.0f}" if whole else f"{value:.4g}"
