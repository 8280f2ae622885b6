r"""A feed-forward layer whose hidden neurons fall into blocks, of which a router picks a few for every token.

.. math:: c_i = 2 \sigma(x W_R^T + b_R)_i, \qquad
          h_i = \mathrm{act}\bigl(c_i (x W_{1,i}^T + b_{1,i}) + (x A_1^T) B_{1,i}^T\bigr), \qquad
          y = b_2 + \sum_{i\ \mathrm{picked}} c_i\, h_i W_{2,i}^T + (h_i A_{2,i}^T) B_2^T

The coefficient multiplies what is frozen, before the activation and again at the end, and never the low-rank path; at
sigma(0) it is 1, the layer as it was. A gated layer scales gate and value alike. Tokens are gathered block by block, so
that products stay dense and no product is formed for a block that was not picked.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, as_number, check_choice
from workbench.models.fine_tuning.lora import LoRALinear, check_base

__all__ = ["ACTIVATIONS", "RoutedFFN"]

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
}  # fmt: skip


class LowRank(nn.Module):
    """The two thin matrices of one linear map, A (r, n) drawn from N(0, 1) and B (m, r) zero."""

    def __init__(self, n: int, m: int, r: int, dtype=torch.float32):
        super().__init__()
        self.A, self.B = nn.Parameter(torch.randn(r, n, dtype=dtype)), nn.Parameter(torch.zeros(m, r, dtype=dtype))


class RoutedFFN(nn.Module):
    """A feed-forward layer that takes ``active`` of its ``n_blocks`` blocks for each token.

    Parameters
    ----------
    d, d_ff : width of the stream, and of the hidden layer, which ``n_blocks`` divides.
    n_blocks, active : G, and how many of them a token goes through.
    act : one of `ACTIVATIONS`.
    d_lora : rank of the low-rank paths; 0 for none, and then the coefficient is left out too, so that the router gets
        no gradient, as in the released code.
    balance : weight of the loss that evens out the load, see `balance_loss`; 0, as published, for none.
    gated : whether a third matrix gates the hidden layer, act(gate) * value, as in LLaMA.
    bias : whether both matrices have one.

    Source
    ------
    Gui et al. 2023, "SPT", section 5 and the released code. ``balance`` is ours, after Fedus et al. 2021.
    """

    layers: Any  # of `torch.nn.Linear` by part: fc1, fc2 and, of a gated one, gate
    lora: Any  # of `LowRank` by part

    def __init__(self, d: int, d_ff: int, n_blocks: int = 4, active: int = 2, act: str = "relu", d_lora: int = 0,
                 balance: float = 0.0, *, gated: bool = False, bias: bool = True):  # fmt: skip
        super().__init__()
        name = "RoutedFFN"
        d, d_ff = (as_int(x, function=name, name=what, low=1) for x, what in ((d, "d"), (d_ff, "d_ff")))
        layers = {"fc1": nn.Linear(d, d_ff, bias=bias), "fc2": nn.Linear(d_ff, d, bias=bias)}
        if gated:
            layers["gate"] = nn.Linear(d, d_ff, bias=bias)
        self._make(layers, n_blocks, active, act, d_lora, balance)

    @classmethod
    def from_pretrained(cls, fc1: nn.Module, fc2: nn.Module, gate: nn.Module | None = None, *, n_blocks: int = 4,
                        active: int = 2, act: str = "relu", d_lora: int = 0, balance: float = 0.0):  # fmt: skip
        """Make one of the layers of a model, which are shared and frozen.

        Parameters
        ----------
        fc1, fc2, gate : torch.nn.Linear (d to d_ff, d_ff to d, and d to d_ff), or `LoRALinear` of them with the rank
            ``d_lora`` and a factor of 1, whose matrices are taken over.
        n_blocks, active, act, d_lora, balance : as of the class.

        Raises
        ------
        TypeError : no linear layers. ValueError : shapes that do not fit.
        """
        given = {"fc1": fc1, "fc2": fc2} | ({} if gate is None else {"gate": gate})
        bases: dict[str, Any] = {
            name: each.base if isinstance(each, LoRALinear) else each for name, each in given.items()
        }
        for base in bases.values():
            check_base(base, "RoutedFFN.from_pretrained")
        (d_ff, d), shapes = bases["fc1"].weight.shape, {name: tuple(b.weight.shape) for name, b in bases.items()}
        if shapes["fc2"] != (d, d_ff) or shapes.get("gate", (d_ff, d)) != (d_ff, d):
            raise ValueError(f"RoutedFFN.from_pretrained: fc2 must turn fc1 around and gate equal it, got {shapes}")
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._make({name: base.requires_grad_(False) for name, base in bases.items()}, n_blocks, active, act, d_lora,
                   balance)  # fmt: skip
        for name, each in given.items():
            if isinstance(each, LoRALinear):
                if made.d_lora != each.A.shape[0] or each.scale != 1:
                    raise ValueError(
                        f"RoutedFFN.from_pretrained: {name} has rank {each.A.shape[0]} and factor {each.scale:g}, "
                        f"wanted {made.d_lora} and 1"
                    )
                made.lora[name].A, made.lora[name].B = each.A, each.B
        return made

    def _make(self, layers, n_blocks, active, act, d_lora, balance):
        name, (d_ff, d) = "RoutedFFN", layers["fc1"].weight.shape
        self.n_blocks = as_int(n_blocks, function=name, name="n_blocks", low=1)
        if d_ff % self.n_blocks:
            raise ValueError(f"{name}: d_ff must be a multiple of n_blocks={self.n_blocks}, got {d_ff}")
        self.active = as_int(active, function=name, name="active", low=1, high=self.n_blocks)
        check_choice(act, ACTIVATIONS, function=name, name="act")
        self.act, self.d_lora = act, as_int(d_lora, function=name, name="d_lora", low=0)
        self.balance = as_number(balance, function=name, name="balance", low=0)
        self.layers, kind = nn.ModuleDict(layers), layers["fc1"].weight.dtype
        self.router = nn.Linear(d, self.n_blocks, dtype=kind)
        sizes = {part: (layer.in_features, layer.out_features) for part, layer in layers.items()}
        self.lora = nn.ModuleDict(
            {part: LowRank(n, m, self.d_lora, kind) for part, (n, m) in sizes.items()} if self.d_lora else {}
        )
        self._loss: torch.Tensor | None = None
        self._shared: tuple[Any, ...] = ()  # of the parts that stand in a model's own places: input and routing

    @property
    def gated(self) -> bool:
        """Whether a third matrix gates the hidden layer."""
        return "gate" in self.layers

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coefficients c (tokens, G) and which blocks are picked, bool (tokens, G), for x (tokens, d).

        Of equal probabilities that of the lower block is the larger one. Without low-rank paths c is 1.
        """
        probability = torch.sigmoid(self.router(x))
        order = probability.detach().sort(dim=-1, descending=True, stable=True).indices[:, : self.active]
        picked = torch.zeros_like(probability, dtype=torch.bool).scatter_(1, order, True)
        if self.balance and self.training:
            share = picked.to(probability.dtype).mean(0) / self.active
            self._loss = self.balance * self.n_blocks * (share * probability.mean(0)).sum()
        return 2 * probability if self.d_lora else torch.ones_like(probability), picked

    def balance_loss(self) -> torch.Tensor | float:
        """Return the loss of the last forward pass in training, G sum_i (share of tokens)_i (mean probability)_i times
        ``balance``, and forget it."""  # fmt: skip
        found, self._loss = self._loss, None
        return 0.0 if found is None else found

    @torch.no_grad()
    def router_load(self, x: torch.Tensor) -> torch.Tensor:
        """Return the share of the tokens of x (..., d) that each block takes, (G,); their sum is ``active``."""
        return self.route(x.reshape(-1, x.shape[-1]))[1].to(x.dtype).mean(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., d) to the same shape."""
        flat = x.reshape(-1, x.shape[-1])
        c, picked = self.route(flat)
        act, thin = ACTIVATIONS[self.act], self._thin_inputs(flat)
        y = self._start(flat)
        for i in range(self.n_blocks):
            at = picked[:, i].nonzero()[:, 0]
            rows, scale = flat[at], c[at, i, None]
            value = self._inner("fc1", i, rows, scale, thin, at)
            hidden = act(self._inner("gate", i, rows, scale, thin, at)) * value if self.gated else act(value)
            y = y.index_add(0, at, self._outer(i, hidden, scale))
        return y.view(x.shape)

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the same with every block of every token, scaled and masked: what the forward pass must equal."""
        flat = x.reshape(-1, x.shape[-1])
        c, picked = self.route(flat)
        scale, seen = ((y.repeat_interleave(self._size, 1)) for y in (c, picked))

        def inner(part):
            base, thin = self.layers[part](flat), 0.0
            if self.d_lora:
                thin = flat @ self.lora[part].A.T @ self.lora[part].B.T
            return scale * base + thin

        act = ACTIVATIONS[self.act]
        hidden = (act(inner("gate")) * inner("fc1") if self.gated else act(inner("fc1"))) * seen
        y = F.linear(scale * hidden, self.layers["fc2"].weight, self.layers["fc2"].bias)
        if self.d_lora:
            y = y + hidden @ self.lora["fc2"].A.T @ self.lora["fc2"].B.T
        return y.view(x.shape)

    def in_place(self) -> dict[str, nn.Module]:
        """Return modules to stand where a model has the layers, with the model's own activation between them.

        Returns
        -------
        "fc1", "fc2" and, of a gated one, "gate". The first ones give (..., d_ff) with zeros in the blocks that were not
        picked, which an activation with act(0) = 0 keeps; the last one reads the picked blocks alone.
        """
        made: dict[str, nn.Module] = {part: _Inner(self, part) for part in self.layers if part != "fc2"}
        return made | {"fc2": _Outer(self)}

    # Parts ------------------------------------------------------------------------------------------------------------
    @property
    def _size(self):
        return self.layers["fc1"].out_features // self.n_blocks

    def _block(self, i):
        return slice(i * self._size, (i + 1) * self._size)

    def _thin_inputs(self, flat):
        return {part: F.linear(flat, thin.A) for part, thin in self.lora.items() if part != "fc2"}

    def _start(self, flat):
        """Return what y begins with: the last bias, once for each token."""
        bias, width = self.layers["fc2"].bias, self.layers["fc2"].out_features
        return flat.new_zeros(len(flat), width) if bias is None else bias.expand(len(flat), -1)

    def _inner(self, part, i, rows, scale, thin, at):
        """Return what block i holds before the activation, for the rows that go through it."""
        layer, where = self.layers[part], self._block(i)
        found = scale * F.linear(rows, layer.weight[where], None if layer.bias is None else layer.bias[where])
        return found + F.linear(thin[part][at], self.lora[part].B[where]) if self.d_lora else found

    def _outer(self, i, hidden, scale):
        """Return what block i adds to its tokens."""
        found = scale * F.linear(hidden, self.layers["fc2"].weight[:, self._block(i)])
        if not self.d_lora:
            return found
        thin = self.lora["fc2"]
        return found + F.linear(F.linear(hidden, thin.A[:, self._block(i)]), thin.B)

    def _routing(self, x):
        """Return the routing of an input that several parts are handed, computed once."""
        if not self._shared or self._shared[0] is not x:
            flat = x.reshape(-1, x.shape[-1])
            self._shared = (x, flat, *self.route(flat))
        return self._shared[1:]

    def __getstate__(self):
        """Leave out what belongs to one forward pass, which cannot be copied."""
        return super().__getstate__() | {"_loss": None, "_shared": ()}


class _Inner(nn.Module):
    """The first matrix, or the gate, of a routed layer at its place in a model; the first matrix owns the layer."""

    def __init__(self, routed: RoutedFFN, part: str):
        super().__init__()
        self.part, self._layer = part, (routed,)  # in a tuple it is no submodule
        if part == "fc1":
            self.routed_layer = routed

    @property
    def routed(self) -> RoutedFFN:
        """The whole layer."""
        return self._layer[0]

    def forward(self, x):
        """Map (..., d) to (..., d_ff)."""
        flat, c, picked = self.routed._routing(x)
        width = self.routed.layers[self.part].out_features
        thin = {self.part: F.linear(flat, self.routed.lora[self.part].A)} if self.routed.d_lora else {}
        blocks = []
        for i in range(self.routed.n_blocks):
            at = picked[:, i].nonzero()[:, 0]
            found = self.routed._inner(self.part, i, flat[at], c[at, i, None], thin, at)
            blocks.append(flat.new_zeros(len(flat), found.shape[1]).index_copy(0, at, found))
        return torch.cat(blocks, 1).view(*x.shape[:-1], width)


class _Outer(nn.Module):
    """The last matrix of a routed layer at its place in a model; it reads what the first one decided."""

    def __init__(self, routed: RoutedFFN):
        super().__init__()
        self._layer = (routed,)

    @property
    def routed(self) -> RoutedFFN:
        """The whole layer."""
        return self._layer[0]

    def forward(self, hidden):
        """Map (..., d_ff) to (..., d)."""
        routed = self.routed
        if not routed._shared:
            raise RuntimeError("RoutedFFN: the last matrix was called before the first one; call them in turn")
        flat, c, picked = routed._shared[1:]
        routed._shared = ()
        rows = hidden.reshape(len(flat), -1)
        y = routed._start(flat)
        for i in range(routed.n_blocks):
            at = picked[:, i].nonzero()[:, 0]
            y = y.index_add(0, at, routed._outer(i, rows[at, routed._block(i)], c[at, i, None]))
        return y.view(*hidden.shape[:-1], y.shape[1])
