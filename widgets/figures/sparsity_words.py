"""A sparsity pattern in words: the table of its statistics, and alternative texts of its plots."""

import html

import numpy as np


def statistics_rows(scene):
    """Yield (name, value) of what is known of the part shown."""
    s = scene.statistics
    lengths = s.row_lengths
    m, n = s.shape
    yield "rows", m
    yield "columns", n
    yield "entries (nnz)", s.nnz
    yield "density", s.density
    yield "bandwidth", s.bandwidth
    yield "profile", s.profile
    if s.symmetric_share == s.symmetric_share:
        yield "symmetric share", s.symmetric_share
    if m:
        yield "entries per row, mean", float(lengths.mean())
        yield "entries per row, median", float(np.median(lengths))
        yield "entries per row, largest", int(lengths.max())
        yield "empty rows", int((lengths == 0).sum())
    if scene.duplicates:
        yield "duplicate entries summed", scene.duplicates


def statistics_html(scene):
    """Return the same as a table."""
    r0, r1, c0, c1 = scene.region
    whole = scene.region == (0, scene.source.shape[0], 0, scene.source.shape[1])
    about = "Whole matrix" if whole else f"Brushed: rows {r0} to {r1 - 1}, columns {c0} to {c1 - 1}"
    cells = ""
    for name, value in statistics_rows(scene):
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value
        cells += f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(shown)}</td></tr>'
    return f'<table class="wb wb-numbers"><caption>{html.escape(about)} (counted)</caption>{cells}</table>'


def lengths_words(lengths):
    """Return what the bars of row lengths show."""
    top = int(np.argmax(lengths.rows))
    first, last = lengths.first[top], lengths.last[top]
    span = f"{first}" if first == last else f"{first} to {last}"
    return f"Bars of rows by entries per row; most rows, {lengths.rows[top]:,}, have {span} entries."


def blocks_words(blocks):
    """Return what the lines over block size show."""
    found = np.flatnonzero(blocks.sizes == blocks.chosen)
    if not found.size:
        return f"Lines over block size; blocks of {blocks.chosen} do not divide the mask."
    i = int(found[0])
    return (
        f"Lines over block size; at {blocks.chosen} a share of {blocks.kept_share[i]:.3g} of the blocks is kept, "
        f"with density {blocks.fill[i]:.3g} inside."
    )
