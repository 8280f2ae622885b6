"""What a pixel of a photograph reads under FaViT's groups, joined to the view."""

import numpy as np

from widgets.figures.image_attention import ImageReading, ImageScene
from widgets.views.image_attention import ImageAttentionView
from workbench.models.favit_windows import window_source_index
from workbench.papers.favit import KNOBS, SIDE, run, sample


class PixelView(ImageAttentionView):
    """The view with this paper's knobs."""

    knobs = KNOBS


def pixel_view(**state) -> PixelView:
    """Return the view in any state of its knobs."""
    return PixelView(
        scene,
        recipe_lines=lambda words: (
            f"from workbench.papers.favit import view\nshown = view({words}).wait()\n"
            "maps = shown.arrays(shown.scene)\nshown"
        ),
        **state,
    )


def scene(state, progress=lambda fraction, step: None) -> ImageScene:
    """Fill the view's scene: FaSA's window groups come last, with their key grids and the chosen key's pixels."""
    given = sample(**state)
    progress(0.4, "attention of the query")
    full, swin, fine, coarse, summary = run(given, **state)
    found = [ImageReading(r.name, r.heat, r.reached, r.keys, r.products) for r in (full, swin, summary)]
    for r, dilation in ((fine, 1), (coarse, state["dilation"])):
        sources = None
        if 0 <= state["key"] < r.keys:
            pixels = np.unique(window_source_index(SIDE, SIDE, state["window"], dilation)[:, state["key"]].numpy())
            sources = np.stack([pixels // SIDE, pixels % SIDE], 1)
        found.append(ImageReading(r.name, r.heat, r.reached, r.keys, r.products, r.weights, sources))
    return ImageScene(given.title, given.rgb, (state["row"], state["column"]), tuple(found), state["key"])
