"""Time of training and of inference: dense, masked, run by sparse products, and cropped, with one thread."""

import copy

import torch

import kernels
from workbench.machines.stopwatch import measure
from workbench.models.compression.crop import count_flops, count_params
from workbench.models.compression.im2col import run_sparse
from workbench.models.compression.masked_training import train
from workbench.models.compression.pai_ways import prepare
from workbench.paper import row
from workbench.papers.precropping.cases import DENSITIES
from workbench.papers.precropping.inputs import SCORED, SETTINGS, data, net

DENSE, MASKED, SPARSE, CROPPED = "dense", "masked", "masked, by sparse products", "cropped"
ROUNDS = {"tiny": 1, "small": 3, "full": 9}
BATCHES = {"tiny": (8,), "small": (64,), "full": (1, 64, 360)}
TRAINED = {"tiny": 16, "small": 256, "full": 512}  # examples of the epoch that is timed
TOLERANCE = 1e-4


def speed(size, seed, report):
    """Time an epoch and an inference of every form of each net, interleaved; outputs are compared first."""
    before = kernels.get_num_threads(), torch.get_num_threads()
    kernels.set_num_threads(1)
    torch.set_num_threads(1)
    try:
        return _timed(size, seed, report)
    finally:
        kernels.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def _timed(size, seed, report):
    setting, rows = SETTINGS[size], []
    parts = data(setting)
    how = {"loader": [tuple(each[:SCORED] for each in parts["training"])], "seed": seed, "rounds": setting.rounds}
    cases = [(name, density) for name, densities in DENSITIES.items() for density in densities]
    for i, (name, density) in enumerate(cases):
        part, spec = report.part(i, len(cases), f"{name} net, density {density}"), net(name, setting)
        part(0.0, "pruning and cropping")
        masked, cropped = (prepare(spec, way, density, **how) for way in ("SynFlow", "PreCrop, tied"))
        labels = {"net": name, "density": density, "threads": 1, "rounds": ROUNDS[size]}
        part(0.1, "training")
        rows += _epochs(spec.build(seed), masked, cropped, parts["training"], size, labels)
        nets = {DENSE: spec.build(seed), MASKED: masked.model, CROPPED: cropped.model}
        rows += [each for form, model in nets.items() for each in _counts(model, spec, labels | {"form": form})]
        part(0.6, "inference")
        rows += _inferences(nets, masked, parts["test"][0], size, labels)
    return rows


def _counts(model, spec, labels):
    flops = count_flops(model, spec.image)
    return [
        row("multiply-adds of an example", flops, "multiply-adds", "counted", **labels),
        row("parameters in the model", count_params(model), "parameters", "counted", **labels),
    ]


def _epochs(dense, masked, cropped, digits, size, labels):
    some = tuple(each[: TRAINED[size]] for each in digits)
    runs = {
        form: lambda model=model, masks=masks: train(copy.deepcopy(model), some, masks, epochs=1)
        for form, model, masks in (
            (DENSE, dense, {}), (MASKED, masked.model, masked.masks), (CROPPED, cropped.model, {})
        )
    }  # fmt: skip
    times = measure(runs, rounds=ROUNDS[size])
    return [_row("time of an epoch", timing, labels, form=form, batch=64) for form, timing in times.items()]


@torch.no_grad()
def _inferences(nets, masked, pictures, size, labels):
    nets = {form: model.eval() for form, model in nets.items()}
    sparse = run_sparse(masked.model, masked.masks)
    for layer, mask in masked.masks.items():
        nets[MASKED].get_submodule(layer).weight.mul_(mask)
    nets = nets | {SPARSE: sparse}
    worst = float((sparse(pictures) - nets[MASKED](pictures)).abs().max() / nets[MASKED](pictures).abs().max())
    if not worst <= TOLERANCE:
        raise ValueError(f"speed: the sparse products' logits are off by {worst:.1e} of the largest")
    rows = []
    for batch in BATCHES[size]:
        some = pictures[:batch]

        def run(model, some=some):
            with torch.no_grad():
                return model(some)

        times = measure({form: lambda model=model: run(model) for form, model in nets.items()}, rounds=ROUNDS[size])
        rows += [_row("time of an inference", timing, labels, form=form, batch=batch) for form, timing in times.items()]
    return rows


def _row(quantity, timing, labels, **more):
    spread = round(1e3 * timing.spread_s, 4)
    return row(quantity, 1e3 * timing.median_s, "ms", "measured", **labels, **more, spread_ms=spread)
