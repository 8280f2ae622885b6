"""Densities of layers in words and numbers: headline, alternative texts, tables."""

import html
import math

import numpy as np

from widgets.figures.layer_density import AXES, DensityScene
from widgets.figures.layer_density_mask import stored

__all__ = [
    "density_words", "group_columns", "headline", "kept_words", "layer_columns", "mask_words", "network_words",
    "point_columns", "points_words", "triptych_html",
]  # fmt: skip


def headline(scene: DensityScene) -> str:
    """Return the sentences above the view, as HTML."""
    whole, kept = int(scene.sizes.sum()), int(scene.kept.sum())
    empty = int((scene.kept == 0).sum())
    text = (
        f"<b>{html.escape(scene.title)}</b>: {scene.scored} keeps {kept:,} of {whole:,} weights "
        f"(density {kept / max(whole, 1):.3g}), from {scene.density.min():.2g} to {scene.density.max():.2g} of a layer"
    )
    lost = f"{_layers(empty)} {'keeps' if empty == 1 else 'keep'} nothing"
    text += f"; <b>{lost}</b>. " if empty else ". "
    if scene.refused:
        text += f"<b>Nothing is cropped:</b> {html.escape(scene.refused)}"
    else:
        text += (
            f"Cropped to whole channels, <b>{int(scene.cropped_sizes.sum()):,} weights</b> stay in a dense net, which "
            f"uses {scene.used / max(scene.budget, 1e-9):.3f} of the budget of {scene.budget:,.0f} {scene.unit} "
            "(counted)."
        )
    return f"<div class='wb wb-headline' style='font-size:17px;padding:6px 4px'>{text}</div>"


def _layers(count):
    return "1 layer" if count == 1 else f"{count or 'no'} layers"


def density_words(scene: DensityScene) -> str:
    """Return the share of every layer that stays, pruned and cropped."""
    shares = scene.cropped_sizes / np.maximum(scene.sizes, 1)
    told = "; ".join(
        f"{name} {pruned:.3g}" + ("" if scene.refused else f", cropped {cropped:.3g}")
        for name, pruned, cropped in zip(scene.names, scene.density, shares, strict=True)
    )
    return f"{scene.title}, share of each layer that stays: {told}."


def kept_words(scene: DensityScene) -> str:
    """Return the weights that stay in every layer, and the water level."""
    told = "; ".join(f"{name} {kept:,}" for name, kept in zip(scene.names, scene.kept, strict=True))
    once, at_last = (_layers(int((kept == 0).sum())) for kept in (scene.once, scene.kept))
    rounds = f"{scene.rounds} rounds" if scene.rounds > 1 else "one round"
    return (
        f"Weights that stay after {rounds}: {told}. The water level is {scene.level:,.0f}. After one round {once} "
        f"would keep nothing, after {rounds} {at_last}."
    )


def network_words(scene: DensityScene) -> str:
    """Return the channels of every group, before and after."""
    if scene.refused:
        return f"Nothing is cropped: {scene.refused}"
    told = "; ".join(f"{name} {before} to {after}" for name, before, after, _ in scene.groups)
    return f"Channels before and after cropping: {told}."


def mask_words(scene: DensityScene, layer: str, kind: str, mask: np.ndarray) -> str:
    """Return one mask of a layer in words."""
    name = scene.names[scene.place(layer)]
    if kind == "cropped" and scene.refused:
        return f"{name}: nothing is cropped. {scene.refused}"
    outputs, inputs = stored(mask)
    kept = int(np.count_nonzero(mask))
    return (
        f"{name}, {kind}: {kept:,} of {mask.size:,} weights stay; {outputs} of {mask.shape[0]} output channels and "
        f"{inputs} of {mask.shape[1]} input channels hold one of them."
    )


def triptych_html(scene: DensityScene, layer: str, masks: dict[str, np.ndarray]) -> str:
    """Return what a dense kernel has to multiply for each mask, and what nets so made reached, as a table."""
    at = scene.place(layer)
    rows = ""
    for kind, mask in masks.items():
        outputs, inputs = stored(mask)
        needed = outputs * inputs * mask.shape[2]
        rows += (
            f"<tr><th>{kind}</th><td>{int(np.count_nonzero(mask)):,}</td><td>{needed:,}</td>"
            f"<td>{needed / max(mask.size, 1):.3g}</td>{_outcome(scene, kind)}</tr>"
        )
    head = "<tr><th>mask</th><th>weights that stay</th><th>smallest dense layer (weights)</th><th>share</th>"
    caption = f"{html.escape(scene.names[at])}: what a dense kernel still multiplies (counted)"
    if scene.outcomes:
        density = next(iter(scene.outcomes.values())).density
        head += "<th>net: accuracy</th><th>net: time (ms)</th>"
        caption += f", and whole nets of density {density:.3g} with such masks, trained (measured; {scene.recorded})"
    head += "</tr>"
    return f"<table class='wb wb-numbers'><caption>{caption}</caption>{head}{rows}</table>"


def _outcome(scene, kind):
    if not scene.outcomes:
        return ""
    point = scene.outcomes.get(kind)
    time_ms = None if point is None else point.time_ms
    accuracy = "" if point is None else f"{point.accuracy:.3f}"
    return f"<td>{accuracy}</td><td>{'' if time_ms is None else f'{time_ms:.3g}'}</td>"


def points_words(scene: DensityScene, axis: str) -> str:
    """Return the trained nets in words."""
    found = [point for point in scene.points if axis == AXES[0][0] or point.time_ms is not None]
    if not found:
        return "No net of this family has been trained and recorded."
    told = "; ".join(
        f"{point.name} at density {point.density:.3g} {point.accuracy:.3f}"
        + ("" if point.time_ms is None else f", {point.time_ms:.3g} ms")
        + (" (trained here)" if point.here else "")
        for point in found
    )
    return f"Test accuracy over {dict(AXES)[axis]} (measured; {scene.recorded}): {told}."


def layer_columns(scene: DensityScene) -> dict[str, np.ndarray]:
    """Return the numbers of every layer, as columns."""
    columns = {
        "name": np.array(scene.names),
        "weights": scene.sizes,
        "stay, pruned": scene.kept,
        "stay after one round": scene.once,
        "density": scene.density,
        "water level": np.minimum(scene.sizes, scene.level),
    }
    if scene.refused:
        return columns
    return columns | {
        "stay, cropped": scene.cropped_sizes,
        "inputs": scene.channels[:, 0],
        "inputs, cropped": scene.cropped[:, 0],
        "outputs": scene.channels[:, 1],
        "outputs, cropped": scene.cropped[:, 1],
    }


def group_columns(scene: DensityScene) -> dict[str, np.ndarray]:
    """Return the channels of every group, as columns."""
    names, before, after, streams = zip(*scene.groups, strict=True) if scene.groups else ((), (), (), ())
    return {
        "group": np.array(names, dtype=str),
        "channels": np.array(before, np.int64),
        "cropped to": np.array(after, np.int64),
        "residual stream": np.array(["yes" if stream else "no" for stream in streams], dtype=str),
    }


def point_columns(scene: DensityScene) -> dict[str, np.ndarray]:
    """Return the trained nets, as columns."""
    points = scene.points
    return {
        "name": np.array([point.name for point in points], dtype=str),
        "density asked for": np.array([point.density for point in points]),
        "test accuracy": np.array([point.accuracy for point in points]),
        "worst seed": np.array([point.low for point in points]),
        "best seed": np.array([point.high for point in points]),
        "seeds": np.array([point.seeds for point in points], np.int64),
        "weights that stay": np.array([point.parameters for point in points]),
        "time (ms)": np.array([math.nan if point.time_ms is None else point.time_ms for point in points]),
        "source": np.array(["here" if point.here else "recorded" for point in points], dtype=str),
    }
