"""A Gantt chart of activities that work on one tile after the other."""

from dataclasses import dataclass

import plotly.graph_objects as go

from widgets.theme import CATEGORIES, template

__all__ = ["PipelineScene", "pipeline_alt", "pipeline_figure"]


@dataclass(frozen=True, kw_only=True)
class PipelineScene:
    """What runs when.

    Parameters
    ----------
    bars : (activity, tile, start, stop) each.
    unit : of start and stop.
    kind : "modelled" or "measured".
    """

    bars: tuple[tuple[str, int, float, float], ...]
    unit: str
    kind: str

    @property
    def end(self) -> float:
        """When the last activity stops."""
        return max((bar[3] for bar in self.bars), default=0.0)


def pipeline_figure(scene: PipelineScene, *, theme="light", height=300) -> go.Figure:
    """Draw a row for each activity; colours and numbers tell the tiles apart."""
    colours = CATEGORIES[theme]
    figure = go.Figure(layout={"template": template(theme), "height": height, "barmode": "overlay"})
    figure.add_bar(
        base=[start for _, _, start, _ in scene.bars],
        x=[stop - start for _, _, start, stop in scene.bars],
        y=[activity for activity, *_ in scene.bars],
        text=[str(tile) for _, tile, *_ in scene.bars],
        hovertext=[f"{what}, tile {tile}: {a:,.0f} to {b:,.0f} {scene.unit}" for what, tile, a, b in scene.bars],
        hoverinfo="text",
        orientation="h",
        marker={"color": [colours[tile % len(colours)] for _, tile, *_ in scene.bars]},
        textposition="inside",
        showlegend=False,
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title=f"{scene.unit} ({scene.kind}); numbers are tiles")
    return figure


def pipeline_alt(scene: PipelineScene) -> str:
    """Say in words how long it takes and what is busy longest."""
    if not scene.bars:
        return "A pipeline without activities."
    busy: dict[str, float] = {}
    for activity, _, start, stop in scene.bars:
        busy[activity] = busy.get(activity, 0.0) + stop - start
    longest = max(busy, key=lambda activity: busy[activity])
    tiles = len({tile for _, tile, *_ in scene.bars})
    share = f", for {busy[longest] / scene.end:.0%} of the time" if scene.end else ""
    return f"{tiles} tiles in {scene.end:,.0f} {scene.unit}; the longest activity is {longest!r}{share}."
