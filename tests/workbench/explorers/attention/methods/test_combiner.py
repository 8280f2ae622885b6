"""Combiner on the explorer's inputs: every source can be run, and every pattern is another matrix."""

import numpy as np
import pytest

from workbench.explorers.attention.knobs import PATTERN
from workbench.explorers.attention.method import methods
from workbench.explorers.attention.source import load_input, sources
from workbench.models.attention.combiner import combiner_attention

METHOD = methods()["combiner"]
CAUSAL = [key for key, source in sources().items() if source.causal]


@pytest.mark.parametrize("source", CAUSAL)
def test_every_causal_input_gives_every_earlier_pair_weight(source):
    given = load_input(source, tokens=64)
    seen = METHOD.trace(given, {"pattern": "fixed", "segment_tokens": 8})
    lower = np.tri(64, dtype=bool)
    assert given.causal and (seen.effective[lower] > 0).all() and (seen.effective[~lower] == 0).all()


def test_every_pattern_is_another_matrix_and_that_of_the_method():
    given, found = load_input("heavy", tokens=64), []
    for pattern, _ in PATTERN.choices:
        effective = METHOD.trace(given, {"pattern": pattern, "segment_tokens": 8}).effective
        wanted = combiner_attention(given.q, given.k, given.v, pattern=pattern, seg_len=8)[0, 0].numpy()
        np.testing.assert_allclose(effective @ given.v[0, 0].numpy(), wanted, atol=1e-5)
        assert all(not np.allclose(effective, other) for other in found)
        found.append(effective)
