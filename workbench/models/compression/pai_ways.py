"""The ways to prune a net before its training that are compared: scored masks, their controls, and cropped channels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from kernels.check import as_int, as_number, check_choice
from workbench.models.compression.channel_graph import ChannelGraph, Spec, channel_groups
from workbench.models.compression.crop import build_cropped
from workbench.models.compression.pai_scores import layerwise_density, pai_masks, random_masks, shuffle_masks
from workbench.models.compression.precropping import preconfig, precrop, synexp_widths, uniform_widths

__all__ = ["WAYS", "Prepared", "prepare"]

AGAIN = 7919  # added to the seed where something is drawn a second time


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A net ready for its training.

    Parameters
    ----------
    model : the net.
    masks : the weights that stay, by layer; empty for a dense net.
    widths : channels of the groups that were cropped; empty for a net of full width.
    """

    model: nn.Module
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Setting:
    spec: Spec
    graph: ChannelGraph
    model: nn.Module
    density: float
    loader: list[tuple[Tensor, Tensor]]
    seed: int
    rounds: int

    @property
    def budget(self):
        return self.density * self.graph.count(self.graph.widths)

    def masks(self, method="synflow", **how):
        rounds = {"rounds": self.rounds} if method == "synflow" else {}
        return pai_masks(self.model, method, self.density, loader=self.loader, seed=self.seed, **rounds, **how)

    def cropped(self, widths):
        model = build_cropped(self.spec, widths, graph=self.graph, seed=self.seed)
        return Prepared(model=model, widths=widths)

    def densities(self):
        return layerwise_density(self.masks())


def _scored(method):
    return lambda of: Prepared(model=of.model, masks=of.masks(method))


WAYS: dict[str, Callable[[_Setting], Prepared]] = {
    "SynFlow": _scored("synflow"),
    "SynFlow, shuffled": lambda of: Prepared(model=of.model, masks=shuffle_masks(of.masks(), of.seed + AGAIN)),
    "SynFlow, weights drawn again": lambda of: Prepared(model=of.spec.build(of.seed + AGAIN), masks=of.masks()),
    "random at SynFlow's densities": lambda of: Prepared(
        model=of.model, masks=random_masks(of.model, of.densities(), of.seed + 2 * AGAIN)
    ),
    "uniform density": lambda of: Prepared(model=of.model, masks=random_masks(of.model, of.density, of.seed + AGAIN)),
    "SNIP": _scored("snip"),
    "GraSP": _scored("grasp"),
    "magnitude": _scored("magnitude"),
    "PreCrop, tied": lambda of: of.cropped(precrop(of.graph, of.densities(), of.budget)),
    "PreCrop, inner": lambda of: of.cropped(precrop(of.graph, of.densities(), of.budget, mode="inner")),
    "PreCrop by SynExp": lambda of: of.cropped(synexp_widths(of.graph, of.budget)),
    "PreConfig": lambda of: of.cropped(preconfig(of.graph, of.densities(), of.budget)),
    "uniform width": lambda of: of.cropped(uniform_widths(of.graph, of.budget)),
}


def prepare(
    spec: Spec,
    way: str,
    density: float,
    *,
    loader: list[tuple[Tensor, Tensor]],
    seed: int = 0,
    rounds: int = 100,
) -> Prepared:
    """Prune or crop a net before its training, to a share of the weights of its convolutions and linear layers.

    Parameters
    ----------
    spec : the net before pruning.
    way : one of `WAYS`.
    density : share of the weights, in (0, 1].
    loader : batches (inputs, labels) for scores that need data.
    seed : of the initial weights and of whatever is drawn; what is drawn again has another.
    rounds : of SynFlow.

    Returns
    -------
    Prepared.

    Raises
    ------
    ValueError : an unknown way, or a budget that is infeasible in it.
    """
    check_choice(way, tuple(WAYS), function="prepare", name="way")
    density = as_number(density, function="prepare", name="density", low=0, high=1)
    setting = _Setting(
        spec=spec,
        graph=channel_groups(spec),
        model=spec.build(seed),
        density=density,
        loader=loader,
        seed=as_int(seed, function="prepare", name="seed", low=0),
        rounds=rounds,
    )
    return WAYS[way](setting)
