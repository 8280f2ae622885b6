"""A compressed cache in words and numbers: headline, alternative texts, tables."""

import html

import numpy as np

from widgets.figures.kv_cache.plots import LABELS
from widgets.figures.kv_cache.scene import METHODS, PARTS, PICTURES, CacheScene

__all__ = [
    "NAMES", "bytes_columns", "bytes_words", "channel_words", "corrections_columns", "drift_columns", "drift_words",
    "headline", "picture_columns", "picture_words", "spectrum_words", "timeline_words",
]  # fmt: skip

NAMES = {
    "exact": "Exact",
    "levels": "Levels",
    "low_rank": "Low rank",
    "sparse": "Outliers",
    "rest": "Error left",
}


def headline(scene: CacheScene) -> str:
    """Return the sentence above the view, as HTML."""
    total = sum(scene.bytes["both"].values())
    narrower = 1 - float(np.ptp(scene.after)) / max(float(np.ptp(scene.before)), 1e-30)
    filtered = f" The filter narrows channel {scene.channel} by <b>{narrower:.0%}</b>." if narrower > 0 else ""
    text = (
        f"<b>{html.escape(scene.title)}</b>, {scene.what} of head {scene.head}, {scene.tokens:,} tokens at "
        f"{scene.bits} bits: the quantiser alone is {scene.errors['quantiser']:.1%} off, with both corrections "
        f"<b>{scene.errors['both']:.1%}</b> ({scene.kind}), in {total / max(scene.plain_bytes, 1):.1%} of the bytes of "
        f"half precision (counted).{filtered}"
    )
    return f"<div class='wb wb-headline' style='font-size:17px;padding:6px 4px'>{text}</div>"


def picture_words(scene: CacheScene, name: str) -> str:
    """Return what one heat-map shows."""
    values = getattr(scene, name)
    size = float(np.linalg.norm(values)) / max(float(np.linalg.norm(scene.exact)), 1e-30)
    outliers = f", {np.count_nonzero(values):,} entries" if name == "sparse" else ""
    shape = f"{values.shape[0]:,} tokens by {values.shape[1]} channels"
    return f"{NAMES[name]}: {shape}, size {size:.3g} of the exact{outliers}."


def spectrum_words(scene: CacheScene) -> str:
    """Return what the spectrum shows."""
    energy = float((scene.spectrum**2).sum())
    if not energy:
        return "The quantiser made no error."
    share = float((scene.spectrum[: scene.rank] ** 2).sum()) / energy
    return (
        f"{len(scene.spectrum)} singular values of the error, from {scene.spectrum[0]:.3g} down to "
        f"{scene.spectrum[-1]:.3g}; the first {scene.rank} hold {share:.1%} of its energy ({scene.kind})."
    )


def channel_words(scene: CacheScene) -> str:
    """Return what the histogram of the channel shows."""
    low, high = float(scene.before.min()), float(scene.before.max())
    inner = float(scene.after.min()), float(scene.after.max())
    return (
        f"Values of channel {scene.channel} lie from {low:.3g} to {high:.3g}, without outliers from {inner[0]:.3g} to "
        f"{inner[1]:.3g} ({scene.kind})."
    )


def bytes_words(scene: CacheScene) -> str:
    """Return the bytes of every method."""
    told = "; ".join(f"{LABELS[method]} {sum(scene.bytes[method].values()):,} B" for method in METHODS)
    whole = f"half precision {scene.plain_bytes:,} B"
    return f"Bytes of the layer's cache with {scene.tokens:,} tokens (counted): {whole}; {told}."


def timeline_words(scene: CacheScene, tokens: int) -> str:
    """Return what the cache holds with so many tokens."""
    first, later, recent = scene.held(tokens)
    blocks = f"{later} later {'block' if later == 1 else 'blocks'} of {scene.buffer}"
    return f"{tokens:,} tokens: {first:,} of the prompt compressed together, {blocks}, and {recent} in the buffer."


def drift_words(scene: CacheScene) -> str:
    """Return how the error grows."""
    if not len(scene.drift.tokens):
        return "No token was decoded after the prompt."
    told = "; ".join(
        f"{LABELS[method]} {scene.drift.error[method][0]:.3g} to {scene.drift.error[method][-1]:.3g}"
        for method in METHODS
    )
    first, last = scene.drift.tokens[[0, -1]]
    return f"Relative error of attention's output with {first:,} and with {last:,} tokens ({scene.kind}): {told}."


def picture_columns(scene: CacheScene) -> dict[str, np.ndarray]:
    """Return every entry of the head, part by part, as columns."""
    tokens, channels = (x.ravel() for x in np.indices(scene.exact.shape))
    found = {"token": tokens, "channel": channels}
    return found | {name.replace("_", " "): getattr(scene, name).ravel().astype(float) for name in PICTURES}


def corrections_columns(scene: CacheScene) -> dict[str, np.ndarray]:
    """Return singular values and the channel before and after the filter, as columns of one length."""
    n = max(len(scene.spectrum), len(scene.before))

    def filled(values):
        return np.concatenate([np.asarray(values, float), np.full(n - len(values), np.nan)])

    return {
        "number": np.arange(1, n + 1),
        "singular value": filled(scene.spectrum),
        "channel, all entries": filled(scene.before),
        "channel, without outliers": filled(scene.after),
    }


def bytes_columns(scene: CacheScene) -> dict[str, np.ndarray]:
    """Return the bytes of every method by part, and its error, as columns."""
    columns = {"name": np.array([LABELS[method] for method in METHODS])}
    columns |= {f"{part} (B)": np.array([scene.bytes[method][part] for method in METHODS]) for part in PARTS}
    totals = np.array([sum(scene.bytes[method].values()) for method in METHODS])
    columns |= {"total (B)": totals, "share of half precision": totals / max(scene.plain_bytes, 1)}
    return columns | {"relative error of the head": np.array([scene.errors[method] for method in METHODS])}


def drift_columns(scene: CacheScene) -> dict[str, np.ndarray]:
    """Return the error of attention by tokens in the cache, as columns."""
    return {"tokens": scene.drift.tokens} | {LABELS[method]: scene.drift.error[method] for method in METHODS}
