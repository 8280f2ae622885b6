"""The largest tensor, counted by hand."""

import pytest
import torch

from workbench.machines.tensor_memory import largest_tensor_bytes


@pytest.mark.parametrize("dtype, size", [(torch.float32, 4), (torch.float64, 8), (torch.bool, 1), (torch.int64, 8)])
def test_bytes_are_elements_times_the_bytes_of_one(dtype, size):
    assert largest_tensor_bytes(lambda: torch.zeros(3, 5, dtype=dtype)) == 15 * size


def test_the_largest_counts_wherever_it_is_made():
    def run():
        x = torch.zeros(10)
        y = x[:, None] * x  # 10 x 10, gone when this returns
        return y.sum()

    assert largest_tensor_bytes(run) == 400


def test_every_tensor_of_a_result_counts():
    x = torch.arange(6.0)
    assert largest_tensor_bytes(lambda: torch.sort(x)) == 6 * 8  # values in float32, places in int64
    assert largest_tensor_bytes(lambda: torch.split(x * x, 3)) == 6 * 4


def test_inputs_their_views_and_writing_in_place_do_not_count():
    x = torch.zeros(100, 100)

    def run():
        x.T[::2].add_(1)
        x[0].expand(1000, 100).view(1000, 10, 10).unbind(1)
        return torch.zeros(2).add_(x[0, :2], alpha=2)

    assert largest_tensor_bytes(run) == 8
    assert largest_tensor_bytes(lambda: x.T) == largest_tensor_bytes(lambda: None) == 0
    y = torch.zeros(100, 100)
    assert largest_tensor_bytes(lambda: torch.add(x, 1, out=y)) == 0


def test_a_copy_of_a_view_counts_and_so_does_all_memory_behind_one_that_is_made():
    x = torch.zeros(100, 100)
    assert largest_tensor_bytes(lambda: x.T[:3].contiguous()) == 3 * 100 * 4
    assert largest_tensor_bytes(lambda: (x + 1)[0, :1]) == 100 * 100 * 4
    assert largest_tensor_bytes(lambda: torch.empty_strided((2, 2), (100, 1))) == 102 * 4  # rows lie 100 apart


def test_the_backward_pass_is_seen():
    x = torch.zeros(1, 8, requires_grad=True)
    forward = largest_tensor_bytes(lambda: x.expand(50, 8).sum())
    assert forward == 4
    assert largest_tensor_bytes(lambda: (x * 1).expand(50, 8).sin().sum().backward()) == 50 * 8 * 4
    weights = torch.zeros(20, 8, requires_grad=True)
    assert largest_tensor_bytes(lambda: weights[0].sum()) == 4
    assert largest_tensor_bytes(lambda: weights[0].sum().backward()) == 20 * 8 * 4  # the gradient, all of it
