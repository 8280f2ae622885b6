"""PBS-Attn on the explorer's inputs: what is shown is what the method computes, and settings reach it."""

import numpy as np
import pytest

from workbench.explorers.attention.method import methods
from workbench.explorers.attention.source import load_input, sources
from workbench.models.attention.pbs_attn import computed_density, pbs_attention

METHOD = methods()["pbs_attn"]
SETTINGS = {knob.key: knob.default for knob in METHOD.knobs} | {"block": 16, "segment_blocks": 4, "choose": "threshold"}
CAUSAL = [key for key, source in sources().items() if source.causal]


@pytest.mark.parametrize("source", CAUSAL)
def test_every_causal_input_shows_the_density_that_is_computed(source):
    given = load_input(source, tokens=256)
    seen = METHOD.trace(given, SETTINGS | {"threshold": 0.5})
    _, mask = pbs_attention(given.q, given.k, given.v, block_size=16, segment_size=64, threshold=0.5)
    assert given.causal and seen.density == computed_density(mask)
    assert not np.triu(seen.allowed, 1).any()


def test_settings_reach_the_method():
    given = load_input("heavy", tokens=512, seed=3)
    assert not np.array_equal(given.q, load_input("heavy", tokens=512, seed=4).q)
    at = {tau: METHOD.trace(given, SETTINGS | {"threshold": tau}).density for tau in (0.2, 0.9)}
    assert at[0.2] < at[0.9]
    assert METHOD.trace(given, SETTINGS | {"permute": "none"}).order.tolist() == list(range(512))
