"""A bar for each activity of each tile, where and as long as it runs."""

from widgets.figures.pipeline import PipelineScene, pipeline_alt, pipeline_figure

SCENE = PipelineScene(
    bars=(("load", 0, 0.0, 6.0), ("multiply", 0, 6.0, 10.0), ("load", 1, 6.0, 12.0)), unit="cycles", kind="modelled"
)


def test_bars_lie_where_the_activities_run():
    (bars,) = pipeline_figure(SCENE).data
    assert list(bars.base) == [0, 6, 6] and list(bars.x) == [6, 4, 6]
    assert list(bars.y) == ["load", "multiply", "load"] and list(bars.text) == ["0", "0", "1"]
    assert bars.marker.color[0] == bars.marker.color[1] != bars.marker.color[2]
    assert "modelled" in pipeline_figure(SCENE, theme="dark").layout.xaxis.title.text


def test_alternative_text():
    assert SCENE.end == 12
    assert pipeline_alt(SCENE) == "2 tiles in 12 cycles; the longest activity is 'load', for 100% of the time."
    assert pipeline_alt(PipelineScene(bars=(), unit="cycles", kind="modelled")) == "A pipeline without activities."
