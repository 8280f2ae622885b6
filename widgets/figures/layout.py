"""Parts of layouts that hold on a narrow page: a title at the left of the pane, and a legend below the plot."""

__all__ = ["LEGEND_BELOW", "title_at_left"]

LEGEND_BELOW = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "xref": "container",
                "traceorder": "normal"}  # fmt: skip


def title_at_left(text: str, below: str = "") -> dict:
    """Return a title that begins at the left of the pane, where a page that scrolls the plot shows it first.

    Parameters
    ----------
    text : the title.
    below : a second line in smaller letters.
    """
    second = f"<br><span style='font-size:13px'>{below}</span>" if below else ""
    return {"text": text + second, "x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 8}}
