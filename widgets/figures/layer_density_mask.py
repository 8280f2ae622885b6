"""One layer's weights three times: those that a pruner keeps, as many at random places, and whole channels."""

import numpy as np

from widgets.figures.layer_density import DensityScene
from widgets.theme import PALETTE, Theme, colour_map

__all__ = ["KINDS", "mask_picture", "stored", "three_masks"]

KINDS = (("scored", "Scored"), ("shuffled", "Shuffled"), ("cropped", "Cropped"))
SHADES = 9
MOST_SIDE = 256  # cells of a picture; larger layers are drawn by blocks of channels


def three_masks(scene: DensityScene, layer: str, seed: int) -> dict[str, np.ndarray]:
    """Return the masks bool (outputs, inputs, kernel places) of a layer, by kind; cropped is empty if nothing is.

    Parameters
    ----------
    layer : name; the largest one where there is none of it.
    seed : of the shuffling.
    """
    at = scene.place(layer)
    mask = scene.masks[at]
    shuffled = np.random.default_rng(seed).permutation(mask.reshape(-1)).reshape(mask.shape)
    cropped = np.zeros(mask.shape, bool)
    if scene.is_cropped:
        inputs, outputs = scene.cropped[at]
        cropped[:outputs, : min(inputs, mask.shape[1])] = True
    return {"scored": mask, "shuffled": shuffled, "cropped": cropped}


def stored(mask: np.ndarray) -> tuple[int, int]:
    """Return how many outputs of a mask keep a weight, and how many inputs."""
    return int(mask.any(axis=(1, 2)).sum()), int(mask.any(axis=(0, 2)).sum())


def mask_picture(mask: np.ndarray, title: str, words: str, theme: Theme = "light") -> dict:
    """Return what `CellImage.show` takes: a cell for each pair of channels, the darker the more of its places stay.

    Parameters
    ----------
    mask : bool (outputs, inputs, kernel places). Where a side is above 256, a cell stands for a block of channels.
    """
    outputs, inputs, places = mask.shape
    share = mask.sum(axis=2) / max(places, 1)
    step = max(1, -(-max(share.shape, default=1) // MOST_SIDE))
    if step > 1:
        rows, columns = np.arange(0, outputs, step), np.arange(0, inputs, step)
        sums = np.add.reduceat(np.add.reduceat(share, rows, axis=0), columns, axis=1)
        counts = np.outer(np.diff([*rows, outputs]), np.diff([*columns, inputs]))
        share = sums / counts
    shades = [tuple(int(x) for x in colour_map(theme)[round(i * 255 / SHADES)]) for i in range(SHADES + 1)]
    palette = [PALETTE[theme]["plot"], *("#{:02x}{:02x}{:02x}".format(*shade) for shade in shades[1:])]
    names = ["no weight stays", *[""] * (SHADES - 1), "all weights stay"]
    return {
        "cells": np.ceil(share * SHADES - 1e-9).astype(np.uint8),
        "palette": palette,
        "names": names,
        "shape": (outputs, inputs),
        "axes": ("output channel", "input channel"),
        "title": title,
        "alt": words,
    }
