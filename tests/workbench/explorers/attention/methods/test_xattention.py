"""What XAttention's knobs do: threshold, stride, sampler, and the direction in which the input is read."""

import pytest

from workbench.explorers.attention.explorer import view_class
from workbench.explorers.attention.method import methods
from workbench.explorers.attention.source import load_input

SETTINGS = {knob.key: knob.default for knob in view_class().knobs} | {"block": 16, "stride": 8}


def trace(given, **settings):
    return methods()["xattention"].trace(given, SETTINGS | settings)


def test_knobs_reach_the_method():
    given = load_input("minilm", tokens=128, layer=1, head=1)
    assert trace(given, threshold=1.0).density == 1
    assert trace(given, stride=4).cost.before == 2 * trace(given).cost.before
    assert (trace(given, sampler="diagonal").read != trace(given).read).any()


@pytest.mark.parametrize("source, causal", [("minilm", False), ("lm", True), ("slash", True)])
def test_blocks_of_causal_and_of_bidirectional_inputs(source, causal):
    seen = trace(load_input(source, tokens=128), stride=4, threshold=0.8)
    assert seen.keep.shape == (8, 8) and 0 < seen.density < 1 and seen.coverage > 0.5
    assert seen.causal == causal
