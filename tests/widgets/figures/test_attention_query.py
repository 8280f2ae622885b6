"""The picture of one query's pixels: rings stand where a fused key's pixels are, for the pointer, too."""

import numpy as np

from widgets.figures.attention_query import QueryMaps, query_maps_figure


def test_rings_follow_the_key():
    rows, columns = 4, 6
    picture = np.zeros((rows, columns, 3), np.uint8)
    weights = np.full((rows, columns), 1 / 24)
    maps = {"maps": {"all": weights, "fused": weights}, "keys_met": {"all": 24, "fused": 4}}
    maps |= {"reach": {"all": 1.0, "fused": 0.5}}
    sources = tuple(np.array([k, k + 13]) for k in range(4))
    keys = np.full((2, 2), 0.25)
    shown = QueryMaps(row=8, picture=picture, **maps, fused="fused", keys=keys, place=3, sources=sources)
    figure = query_maps_figure(shown)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["the picture", "all<br>24 keys, 100.0% of the pixels", "fused<br>4 keys, 50.0% of the pixels",
                      "the 4 keys of fused"]  # fmt: skip
    preview = figure.layout.meta["preview"]
    assert figure.data[preview["curve"]].z.shape == (2, 2) and preview["columns"] == 2
    for trace in preview["traces"]:
        np.testing.assert_array_equal((figure.data[trace].x, figure.data[trace].y), preview["points"][3])
    assert preview["points"] == [[[k, k + 1], [0, 2]] for k in range(4)]
    axes = [figure.data[trace].xaxis for trace in preview["traces"]]
    assert axes == [figure.data[0].xaxis, figure.data[2].xaxis]
