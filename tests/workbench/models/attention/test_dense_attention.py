"""Dense attention over allowed pairs: what is hidden adds nothing, whatever stands there."""

import math

import pytest
import torch

from workbench.models.attention.dense_attention import masked_attention, weighted_sum
from workbench.models.attention.performer import prefix_attention


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_a_hidden_token_reaches_nobody(part, value, assert_close):
    generator = torch.Generator().manual_seed(3)
    given = {name: torch.randn(1, 2, 20, 4, generator=generator, dtype=torch.float64) for name in "qkv"}
    allowed = torch.rand(20, 20, generator=generator) < 0.6
    allowed[4] = False
    wanted = masked_attention(*given.values(), allowed)
    given[part][0, 0, 9, 1] = value
    found = masked_attention(*given.values(), allowed)
    seen = allowed.tril()[:, 9] if part != "q" else torch.arange(20) == 9
    assert_close(found[0, 0][~seen], wanted[0, 0][~seen])
    assert found[0, 0, 4].eq(0).all()


def test_infinities_of_one_sign_stay_and_of_both_are_nan():
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    values = torch.tensor([[1.0, 2.0], [math.inf, 3.0], [-math.inf, math.nan]])
    found = weighted_sum(weights, values, weights > 0)
    torch.testing.assert_close(found, torch.tensor([[math.inf, 2.5], [math.nan, math.nan], [1.0, 2.0]]), equal_nan=True)


def test_prefix_attention_keeps_what_is_later_from_earlier_rows(assert_close):
    generator = torch.Generator().manual_seed(4)
    fq, fk, v = (torch.rand(1, 1, 30, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    wanted = prefix_attention(fq, fk, v, chunk=8)
    v[0, 0, 13] = math.nan
    found = prefix_attention(fq, fk, v, chunk=8)
    assert_close(found[0, 0, :13], wanted[0, 0, :13])
    assert found[0, 0, 13:].isnan().all()
