"""From a dense model to one that runs on sparse int8 kernels: calibrate, prune to blocks, distil, quantise."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.check import as_int, as_number
from kernels.masks.blocks import block_prune_mask
from workbench.models.sparse_inference.block_pruned import BlockPruner, block_sparsity
from workbench.models.sparse_inference.recovery import Forward, Loss, Report, learn_from, refit
from workbench.models.sparse_inference.sparse_linear import SparseLinear, replace_linear
from workbench.models.sparse_inference.statistics import gather_statistics, input_ranges, linear_layers

__all__ = ["compress", "prune_blocks_at_once", "prune_while_distilling", "quantise"]

RAMP = 0.6  # of the training steps: the masks change until then, and stay afterwards


def compress(
    model: nn.Module,
    batches: Sequence[Any],
    *,
    sparsity: float = 0.8,
    block: tuple[int, int] = (4, 1),
    steps: int = 0,
    rate: float = 1e-4,
    loss: Loss | None = None,
    forward: Forward | None = None,
    layers: Iterable[str] | None = None,
    least_sparsity: float = 0.7,
    report: Report = lambda fraction, step: None,
) -> nn.Module:
    """Return a copy of a model whose linear layers are block-sparse and run on int8 kernels.

    Without training steps the blocks go at once, by |w| times the norm of their inputs, and the weights that stay are
    fitted anew to the batches (`refit`). With ``steps`` the blocks go gradually while the copy learns to give what the
    dense model gives, which keeps more of it at high sparsity.

    Parameters
    ----------
    model : any module with torch.nn.Linear layers; left as it is.
    batches : calibration data, what ``model(batch)`` takes; also the data of the training steps, in turn.
    sparsity : share of the blocks that go, in [0, 1).
    block : (br, bc) of `SparseLinear.from_linear`.
    steps, rate : training steps and the highest learning rate.
    loss : ``loss(copy, model, batch)`` -> scalar tensor; None for the mean squared difference of the outputs.
    forward : ``forward(model, batch)`` in place of ``model(batch)``.
    layers : names; None for those that `linear_layers` chooses.
    least_sparsity : a layer whose blocks are less sparse stays a dense torch layer, which is faster there.
    report : ``report(fraction, step)`` as the work goes on.

    Returns
    -------
    nn.Module to put in the model's place, for inference. `workbench.models.layer_files` keeps it in a file.

    Raises
    ------
    ValueError : no batches, a layer that blocks do not divide, or numbers out of range.

    Examples
    --------
    ``fast = compress(model, batches, sparsity=0.8, steps=300)``

    Source
    ------
    Shen et al. 2023: gradual pruning to constant blocks with distillation, then quantisation after training.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("compress: batches is empty; give at least one batch of calibration data")
    names = list(linear_layers(model, layers))
    if as_int(steps, function="compress", name="steps", low=0):
        how = {"sparsity": sparsity, "block": block, "steps": steps, "rate": rate, "forward": forward}
        how |= {"loss": loss, "layers": names, "report": lambda fraction, step: report(0.95 * fraction, step)}
        pruned = prune_while_distilling(model, batches, **how)
    else:
        report(0.0, "prune")
        pruned = prune_blocks_at_once(model, batches, sparsity=sparsity, block=block, forward=forward, layers=names)
        report(0.3, "fit the weights that stay")
        known = gather_statistics(model, batches, layers=linear_layers(model, names), forward=forward)
        pruned = refit(pruned, model, known)
    report(0.95, "quantise")
    return quantise(
        pruned, batches, block=block, forward=forward, layers=names, least_sparsity=least_sparsity
    )  # fmt: skip


def prune_blocks_at_once(model, batches, *, sparsity, block=(4, 1), forward=None, layers=None) -> nn.Module:
    """Return a copy whose blocks of the least |w| times norm of the inputs are 0; arguments of `compress`."""
    pruned = copy.deepcopy(model)
    found = linear_layers(pruned, layers)
    statistics = gather_statistics(model, batches, layers=linear_layers(model, layers), forward=forward)
    with torch.no_grad():
        for name, layer in found.items():
            norm = np.sqrt(np.diag(statistics[name].gram)).astype(np.float32)
            worth = np.abs(layer.weight.numpy()) * norm
            layer.weight.mul_(torch.from_numpy(block_prune_mask(worth, sparsity, block=block)))
    return pruned


def prune_while_distilling(
    model, batches, *, sparsity, steps, block=(4, 1), criterion="snip_momentum", rate=1e-4, loss=None, forward=None,
    layers=None, seed=0, report: Report = lambda fraction, step: None,
) -> nn.Module:  # fmt: skip
    """Return a copy that was pruned gradually while it learnt to give what the model gives.

    Arguments of `compress` and `recover`; ``criterion`` of `BlockPruner`, with which ``block=(1, 1)`` and "movement"
    are movement pruning. The masks change over the first 60 per cent of the steps, and stay afterwards.
    """
    rate = as_number(rate, function="prune_while_distilling", name="rate", above=0)
    pupil = copy.deepcopy(model)
    pruner = BlockPruner(
        pupil, block=block, target=sparsity, schedule="cubic", criterion=criterion, end=max(1, round(RAMP * steps)),
        frequency=max(1, steps // 100), layers=layers,
    )  # fmt: skip
    how = {"loss": loss, "forward": forward, "layers": list(pruner.layers), "seed": seed, "report": report}
    return learn_from(model, pupil, batches, pruner.step, steps=steps, rate=rate, **how)


def quantise(
    model, batches, *, block=(4, 1), forward=None, layers=None, least_sparsity=0.7
) -> nn.Module:  # fmt: skip
    """Return a copy whose layers that are sparse enough run on int8 kernels, their input ranges those of the batches.

    Arguments of `compress`; the blocks that are 0 already are the ones that go.
    """
    least = as_number(least_sparsity, function="compress", name="least_sparsity", low=0, high=1)
    given = linear_layers(model, layers)
    ranges = input_ranges(model, batches, layers=given, forward=forward)
    made: Mapping[str, nn.Module] = {
        name: SparseLinear.from_linear(layer, block=block, low=ranges[name][0], high=ranges[name][1])
        for name, layer in given.items()
        if block_sparsity(layer.weight, block) >= least
    }
    return replace_linear(copy.deepcopy(model).eval(), made)
