"""What SynFlow keeps of every layer before any training, over its rounds, and how well widths meet a budget."""

from workbench.models.compression.channel_graph import channel_groups
from workbench.models.compression.pai_scores import layerwise_density, pai_masks
from workbench.models.compression.precropping import precrop, synexp_widths, uniform_widths, water_level
from workbench.paper import row
from workbench.papers.precropping.cases import INVERTED, RESIDUAL
from workbench.papers.precropping.inputs import SETTINGS, net

LEVEL_DENSITY, COLLAPSE_DENSITY = 0.03, 0.01
ROUNDS = {"tiny": (1, 3), "small": (1, 10, 100), "full": (1, 2, 5, 10, 20, 50, 100)}
SEEDS = {"tiny": 1, "small": 1, "full": 3}
BUDGETS = {"tiny": (0.3,), "small": (0.1, 0.5), "full": (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)}
WAYS = {
    "PreCrop, tied": lambda graph, densities, budget, kind: precrop(graph, densities, budget, budget_kind=kind),
    "PreCrop by SynExp": lambda graph, densities, budget, kind: synexp_widths(graph, budget, budget_kind=kind),
    "uniform width": lambda graph, densities, budget, kind: uniform_widths(graph, budget, budget_kind=kind),
}


def structure(size, seed, report):
    """Count what stays of every layer at initialisation; no net is trained."""
    setting, rows = SETTINGS[size], []
    for i in range(SEEDS[size]):
        part = report.part(i, SEEDS[size], f"seed {seed + i}")
        rows += _level(setting, seed + i, part.part(0, 3, "kept of every layer"))
        rows += _collapse(setting, seed + i, ROUNDS[size], part.part(1, 3, "rounds"))
        rows += _budgets(setting, seed + i, BUDGETS[size], part.part(2, 3, "budgets"))
    return rows


def _masks(spec, seed, density, rounds):
    return pai_masks(spec.build(seed), "synflow", density, rounds, input_shape=spec.image)


def _level(setting, seed, report):
    """Return what SynFlow keeps of every layer, beside the water level of the same budget."""
    spec = net(RESIDUAL, setting)
    report(0.0, f"density {LEVEL_DENSITY}")
    masks = _masks(spec, seed, LEVEL_DENSITY, setting.rounds)
    sizes = {name: mask.numel() for name, mask in masks.items()}
    level = water_level(list(sizes.values()), LEVEL_DENSITY * sum(sizes.values()))
    rows = [row("water level of the budget", level, "parameters", "counted", seed=seed, density=LEVEL_DENSITY)]
    for name, mask in masks.items():
        labels = {"layer": name, "size": sizes[name], "seed": seed, "density": LEVEL_DENSITY}
        rows.append(row("weights kept of a layer", int(mask.sum()), "parameters", "counted", **labels))
        rows.append(row("weights below the water level", min(sizes[name], level), "parameters", "counted", **labels))
    return rows


def _collapse(setting, seed, rounds, report):
    """Return how many layers are left without a weight, by rounds of SynFlow."""
    spec, rows = net(RESIDUAL, setting), []
    for i, count in enumerate(rounds):
        report(i / len(rounds), f"{count} rounds")
        kept = [int(mask.sum()) for mask in _masks(spec, seed, COLLAPSE_DENSITY, count).values()]
        labels = {"rounds": count, "seed": seed, "density": COLLAPSE_DENSITY}
        rows.append(row("layers without a weight", kept.count(0), "number", "counted", **labels))
        rows.append(row("weights in the emptiest layer", min(kept), "parameters", "counted", **labels))
    return rows


def _budgets(setting, seed, budgets, report):
    """Return the share of its budget that every way of cropping uses."""
    rows = []
    for i, name in enumerate((RESIDUAL, INVERTED)):
        spec = net(name, setting)
        graph = channel_groups(spec)
        for j, density in enumerate(budgets):
            report((i + j / len(budgets)) / 2, f"{name} net, density {density}")
            densities = layerwise_density(_masks(spec, seed, density, setting.rounds))
            for kind in ("params", "flops"):
                budget = density * graph.count(graph.widths, kind)
                for way, widths in WAYS.items():
                    labels = {"net": name, "density": density, "budget": kind, "cropping": way, "seed": seed}
                    try:
                        used = graph.count(graph.widths | widths(graph, densities, budget, kind), kind) / budget
                    except ValueError:
                        continue  # one channel a group is above the budget
                    rows.append(row("share of the budget used", used, "fraction", "counted", **labels))
    return rows
