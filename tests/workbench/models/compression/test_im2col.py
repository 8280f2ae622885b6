"""Convolutions as sparse products against torch's own, over strides, paddings, dilations and odd sizes."""

import pytest
import torch
from torch import nn

from workbench.models.compression.crop_networks import MobileSpec, ResNetSpec
from workbench.models.compression.im2col import SparseConv2d, columns, run_sparse
from workbench.models.compression.pai_scores import masked, pai_masks

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), ((3, 2), (2, 1), (0, 2), 1), (3, 1, 2, 2), (5, 3, 0, 1)],
)
@pytest.mark.parametrize("n", (1, 3))
def test_products_are_convolutions(kernel, stride, padding, dilation, n, assert_close):
    layer = nn.Conv2d(3, 4, kernel, stride, padding, dilation)
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) < 0.3)
        layer.weight[1] = 0  # an output of zeros
        x = torch.randn(n, 3, 9, 7)
        assert_close(SparseConv2d.from_conv(layer)(x).numpy(), layer(x).numpy())


def test_columns_are_those_of_unfold():
    x = torch.arange(2 * 2 * 3 * 4, dtype=torch.float32).view(2, 2, 3, 4)
    found, (n, h, w) = columns(x, (2, 2))
    want = nn.functional.unfold(x, 2).transpose(0, 1).reshape(8, -1)
    assert (n, h, w) == (2, 2, 3) and torch.equal(torch.from_numpy(found), want)


@pytest.mark.parametrize("spec", (ResNetSpec(), MobileSpec()))
def test_a_masked_net_gives_the_same_logits(spec, assert_close):
    model = spec.build(0).eval()
    masks = pai_masks(model, "magnitude", 0.2)
    x = torch.randn(5, *spec.image)
    with torch.no_grad():
        assert_close(run_sparse(model, masks)(x).numpy(), masked(model, masks).eval()(x).numpy())
        assert_close(run_sparse(model)(x).numpy(), model(x).numpy())


def test_what_cannot_be_unrolled_is_refused():
    for layer in (nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(1, 1, 3, padding="same"),
                  nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")):  # fmt: skip
        with pytest.raises(ValueError, match="no groups and zeros"):
            SparseConv2d.from_conv(layer)
    with pytest.raises(KeyError, match="layer 3"):
        run_sparse(nn.Sequential(nn.Conv2d(1, 1, 1)), {"3": torch.ones(1)})
