"""Accuracy of nets that were pruned or cropped before their training, all trained alike."""

from workbench.models.compression.crop import count_params
from workbench.models.compression.masked_training import accuracy, train
from workbench.models.compression.pai_ways import WAYS, Prepared, prepare
from workbench.paper import made_now, row
from workbench.papers.precropping.cases import DENSITIES, INVERTED, RESIDUAL
from workbench.papers.precropping.inputs import SCORED, SETTINGS, data, net

DENSE, RECONFIGURED = "dense", 0.8
INNER = "PreCrop, inner"
EVERY = tuple(way for way in WAYS if way not in (INNER, "PreConfig"))
PLAN = {  # which ways a net is trained in, by density
    RESIDUAL: {
        1.0: (DENSE,),
        RECONFIGURED: ("PreConfig", "uniform width"),
        0.1: (*EVERY, INNER),  # at the lower density the layers that "inner" leaves whole are above the budget
        0.03: EVERY,
    },
    INVERTED: {
        1.0: (DENSE,),
        0.25: ("SynFlow", "SynFlow, shuffled", "uniform density", "PreCrop, tied", "uniform width"),
    },
}
assert all(set(DENSITIES[name]) <= set(plan) for name, plan in PLAN.items())


def evidence(size, seed, report, keep=made_now):
    """Train every net in every way; all share the data, the epochs, the rate and, for a seed, the initial weights."""
    setting = SETTINGS[size]
    pieces = [
        {"net": name, "density": density, "training": way, "seed": seed + i}
        for i in range(setting.seeds)
        for name, plan in PLAN.items()
        for density, ways in plan.items()
        for way in ways
    ]
    rows = []
    for i, labels in enumerate(pieces):
        part = report.part(i, len(pieces), f"{labels['net']} net, {labels['training']}, seed {labels['seed']}")
        rows += keep(labels, lambda labels=labels, part=part: _trained(setting, labels, part))
    return rows


def _trained(setting, labels, report):
    spec, parts = net(labels["net"], setting), data(setting)
    loader = [tuple(each[:SCORED] for each in parts["training"])]
    if labels["training"] == DENSE:
        ready = Prepared(model=spec.build(labels["seed"]))
    else:
        how = {"loader": loader, "seed": labels["seed"], "rounds": setting.rounds}
        ready = prepare(spec, labels["training"], labels["density"], **how)
    train(
        ready.model,
        parts["training"],
        ready.masks,
        epochs=setting.epochs,
        seed=labels["seed"],
        report=report,
    )
    kept = sum(int(mask.sum()) for mask in ready.masks.values()) or count_params(ready.model, every=False)
    return [
        row("test accuracy", accuracy(ready.model, parts["test"]), "fraction", "measured", **labels),
        row("parameters kept", kept, "parameters", "counted", **labels),
        row("parameters in the model", count_params(ready.model), "parameters", "counted", **labels),
    ]
