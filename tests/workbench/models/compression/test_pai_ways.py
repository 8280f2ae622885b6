"""Every way to prune before training keeps to the budget, and controls change only what they are meant to change."""

import pytest
import torch

from workbench.models.compression.channel_graph import channel_groups
from workbench.models.compression.crop import count_params
from workbench.models.compression.crop_networks import ResNetSpec
from workbench.models.compression.pai_scores import layerwise_density
from workbench.models.compression.pai_ways import WAYS, prepare

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = ResNetSpec(streams=(8, 12), inner=(8, 12), strides=(1, 2))
LOADER = [(torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10)]


def ready(way, density=0.3, **how):
    return prepare(SPEC, way, density, loader=LOADER, rounds=5, **how)


@pytest.mark.parametrize("way", WAYS)
def test_budgets_are_kept(way):
    found = ready(way)
    budget = 0.3 * channel_groups(SPEC).count(channel_groups(SPEC).widths)
    kept = sum(int(m.sum()) for m in found.masks.values()) or count_params(found.model, every=False)
    assert 0.85 * budget <= kept <= budget + 5  # masks round each layer's count
    assert bool(found.masks) != bool(found.widths) and found.model(LOADER[0][0]).shape == (16, 10)


def test_controls_share_the_counts_of_layers_and_differ_in_places_or_weights():
    scored, shuffled, drawn, again = (
        ready(way)
        for way in ("SynFlow", "SynFlow, shuffled", "random at SynFlow's densities", "SynFlow, weights drawn again")
    )
    for control in (shuffled, drawn):
        assert layerwise_density(control.masks) == pytest.approx(layerwise_density(scored.masks))
        assert not torch.equal(control.masks["blocks.0.conv1"], scored.masks["blocks.0.conv1"])
        assert torch.equal(control.model.stem.weight, scored.model.stem.weight)
    assert not torch.equal(shuffled.masks["blocks.0.conv1"], drawn.masks["blocks.0.conv1"])
    assert torch.equal(again.masks["blocks.0.conv1"], scored.masks["blocks.0.conv1"])
    assert not torch.equal(again.model.stem.weight, scored.model.stem.weight)


def test_ways_differ_from_each_other():
    masks = {way: ready(way).masks["blocks.1.conv1"] for way in ("SynFlow", "SNIP", "GraSP", "magnitude")}
    names = list(masks)
    assert not any(torch.equal(masks[a], masks[b]) for i, a in enumerate(names) for b in names[i + 1 :])
    widths = [ready(way).widths for way in ("PreCrop, tied", "PreCrop by SynExp", "uniform width", "PreCrop, inner")]
    assert len({tuple(sorted(each.items())) for each in widths}) == 4


def test_bad_ways_and_budgets_are_refused():
    with pytest.raises(ValueError, match="way"):
        ready("SynFlaw")
    with pytest.raises(ValueError, match="infeasible"):
        ready("uniform width", 0.001)
    with pytest.raises(ValueError, match="density"):
        ready("SynFlow", 0.0)
