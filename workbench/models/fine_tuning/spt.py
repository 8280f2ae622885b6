"""SPT: a model tuned with low-rank paths, attention over few keys, and feed-forward layers of which tokens take a part.

`upgrade` puts the three into a reader's model, in the order of the paper: low-rank paths, routed feed-forward layers,
dense attention whose codebooks learn, sparse attention. The first has a merged form, so `adapt` knows it as "spt"; what
keys and blocks a token takes depends on the token, so the others have none.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, as_number
from workbench.models.fine_tuning.adapt import shared_copy
from workbench.models.fine_tuning.lora import LoRALinear
from workbench.models.fine_tuning.method import Applied, TuningMethod
from workbench.models.fine_tuning.routed_ffn import RoutedFFN
from workbench.models.fine_tuning.spt_attention import PQAttention, head_quantizer
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["FEED_FORWARD", "STAGES", "LoRAEmbedding", "SPTLinear", "Upgraded", "memory_model", "upgrade"]

STAGES = ("lora", "ffn", "warm_up", "mha")
WEIGHT = 0.01  # of the codebooks' loss
# First matrix, last matrix and gate of a feed-forward layer, as models name them below one module.
FEED_FORWARD = (
    ("fc1", "fc2", None), ("linear1", "linear2", None), ("lin1", "lin2", None), ("feed_in", "feed_out", None),
    ("intermediate.dense", "output.dense", None), ("up_proj", "down_proj", "gate_proj"), ("up", "down", "gate"),
)  # fmt: skip
ATTENTION_NAME = "sparse_workbench_spt"


class SPTLinear(LoRALinear):
    """LoRA as SPT tunes with it: A drawn from N(0, 1), B zero, and no factor.

    Parameters
    ----------
    base : the layer; frozen, and shared.
    r : rank.

    Source
    ------
    Gui et al. 2023, "SPT", the released code; after Hu et al. 2021.
    """

    def __init__(self, base: nn.Linear, r: int = 16):
        super().__init__(base, r)
        nn.init.normal_(self.A)


class LoRAEmbedding(nn.Module):
    """An embedding and a low-rank one beside it: rows of E + A B^T, A (tokens, r) from N(0, 1) and B (d, r) zero.

    Parameters
    ----------
    base : torch.nn.Embedding; frozen, and shared.
    r : rank.

    Source
    ------
    Gui et al. 2023, "SPT", the released code.
    """

    def __init__(self, base: nn.Embedding, r: int = 16):
        super().__init__()
        if type(base) is not nn.Embedding or base.max_norm is not None:
            raise TypeError(
                f"LoRAEmbedding: base must be a torch.nn.Embedding without max_norm, got {type(base).__name__}"
            )
        r = as_int(r, function="LoRAEmbedding", name="r", low=1)
        self.base, kind = base.requires_grad_(False), base.weight.dtype
        self.A = nn.Parameter(torch.randn(base.num_embeddings, r, dtype=kind))
        self.B = nn.Parameter(torch.zeros(base.embedding_dim, r, dtype=kind))

    @property
    def weight(self) -> torch.Tensor:
        """The frozen rows, for models that look at them."""
        return self.base.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map integers (...) to (..., d)."""
        return self.base(ids) + F.linear(F.embedding(ids, self.A), self.B)


@dataclass(kw_only=True, eq=False)
class Upgraded:
    """A model that SPT was put into.

    Parameters
    ----------
    model : to be trained and used like the one that it came from, whose frozen weights it shares. What is trained asks
        for gradients: low-rank paths, normalisations, routers and codebooks.
    stages : what it has, of `STAGES`.
    lora, ffn, attention : the modules put in, by name.
    """

    model: nn.Module
    stages: tuple[str, ...] = ()
    lora: dict[str, nn.Module] = field(default_factory=dict)
    ffn: dict[str, RoutedFFN] = field(default_factory=dict)
    attention: dict[str, PQAttention] = field(default_factory=dict)

    def parameters(self) -> list[nn.Parameter]:
        """Return all that is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def attend(self, q, k, v, layer: int = 0) -> torch.Tensor:
        """Attend in a layer of a model that takes its attention as an argument: ``model(ids, attention=up.attend)``."""
        return list(self.attention.values())[layer](q, k, v)

    def auxiliary_loss(self, weight: float = WEIGHT) -> torch.Tensor | float:
        """Return what the last pass of training adds to the loss: ``weight`` times that of the codebooks, and the
        routers' balance; to be called once for each pass."""  # fmt: skip
        weight = as_number(weight, function="Upgraded.auxiliary_loss", name="weight", low=0)
        total: torch.Tensor | float = 0.0
        for attention in self.attention.values():
            total = total + weight * attention.quantization_loss()
        for ffn in self.ffn.values():
            total = total + ffn.balance_loss()
        return total

    @torch.no_grad()
    def init_codebooks(self, run: Callable[[], object], iters: int = 8, *, seed: int = 0) -> None:
        """Place the codewords among the queries and keys of real inputs (ours; SPT draws them from N(0, 1)).

        Parameters
        ----------
        run : () -> anything, runs the model on real inputs.
        iters, seed : of `ProductQuantizer.init_kmeans`.

        Raises
        ------
        ValueError : no attention was upgraded, or ``run`` did not reach one of them.
        """
        if not self.attention:
            raise ValueError(
                'Upgraded.init_codebooks: the model has no upgraded attention; upgrade it with "warm_up" or "mha"'
            )
        for attention in self.attention.values():
            attention.seen = []
        try:
            run()
            for name, attention in self.attention.items():
                if not attention.seen:
                    raise ValueError(f"Upgraded.init_codebooks: run did not reach the attention of {name!r}")
                attention.quantizer.init_kmeans(torch.cat(attention.seen), iters, seed=seed)
        finally:
            for attention in self.attention.values():
                attention.seen = None


def upgrade(
    model: nn.Module | Upgraded,
    stages: Iterable[str] = ("lora", "ffn", "mha"),
    *,
    d_lora: int = 16,
    n_blocks: int = 4,
    active: int = 2,
    act: str = "relu",
    balance: float = 0.0,
    sparse_coeff: int = 8,
    n_codewords: int = 16,
    d_codeword: int = 8,
    per_head: bool = False,
    check: dict[str, Any] | None = None,
    seed: int = 0,
    **how: Any,
) -> Upgraded:
    """Put SPT into a model.

    Parameters
    ----------
    model : left as it is, and its frozen weights are shared. Feed-forward layers are found by the names of
        `FEED_FORWARD`. Attention is replaced in transformers models that hand it over, and in models with ``layers``
        whose forward takes ``attention``, as the shipped `TinyLM`, which is then handed ``attention=upgraded.attend``;
        others are built with `SparseMHA`. What `upgrade` returned goes on to further stages, in place.
    stages : "lora", low-rank paths beside every linear layer and embedding; "ffn", routed feed-forward layers;
        "warm_up", dense attention whose codebooks learn; "mha", sparse attention.
    d_lora : rank of the low-rank paths.
    n_blocks, active, balance : of `RoutedFFN`. Its activation is the model's own, which must keep 0.
    act : only told to `RoutedFFN.reference`.
    sparse_coeff, how : of `PQAttention`.
    n_codewords, d_codeword, per_head : of the codebooks.
    check : inputs for a transformers model to try its attention with; made from ``input_ids`` unless given.
    seed : of all that is drawn; PyTorch's own generator is as before afterwards.

    Returns
    -------
    Upgraded.

    Raises
    ------
    ValueError : an unknown stage, a model without such layers, or sizes that do not fit.
    """
    wanted = tuple(stages)
    for stage in wanted:
        if stage not in STAGES:
            raise ValueError(f"upgrade: stages must be some of {', '.join(STAGES)}; got {stage!r}")
    up = model if isinstance(model, Upgraded) else Upgraded(model=_frozen(model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "lora" in wanted and "lora" not in up.stages:
            up.lora |= _put_lora(up.model, d_lora)
        if "ffn" in wanted and "ffn" not in up.stages:
            rank = d_lora if up.lora else 0
            settings = {"n_blocks": n_blocks, "active": active, "act": act, "balance": balance, "d_lora": rank}
            up.ffn |= _put_ffn(up, settings)
        if {"warm_up", "mha"} & set(wanted):
            if not up.attention:
                how |= {"sparse_coeff": sparse_coeff}
                books = {"n_codewords": n_codewords, "d_codeword": d_codeword, "per_head": per_head}
                up.attention |= _put_attention(up.model, how, books, check)
            for attention in up.attention.values():
                attention.sparse = "mha" in wanted
    up.stages = tuple(stage for stage in STAGES if stage in up.stages or stage in wanted)
    return up


def memory_model(
    n, d, h, L, G=4, active=2, *, d_ff=None, M=None, E=16, batch=1, causal=True, itemsize=4
) -> dict[str, float]:
    """Count what one layer keeps for the backward pass, and its operations, dense and by SPT.

    Parameters
    ----------
    n, h, batch : tokens of a sample, heads, samples.
    d : width of a head; the stream has h d numbers.
    L : keys of a query, from 1 to n.
    G, active : blocks of the feed-forward layer, and how many a token takes.
    d_ff : width of the hidden layer; 4 h d unless given.
    M, E : parts of a vector and codewords; M is d / 8 unless given.
    causal : whether early queries see fewer than L keys.
    itemsize : bytes of a number.

    Returns
    -------
    Bytes: "dense_attention" (scores and weights) and "dense_weights" (weights alone), "sparse_values" and
    "sparse_indices" of all n L slots, int32; "row_starts", int64; "codes"; "hidden_dense" and "hidden_routed", one copy
    of the hidden layer.
    Counts: "slots", "entries" (what `fixed_degree_csr` stores). Ratio: "values_ratio", dense weights to sparse values.
    Operations: "scores_dense_flops", "encode_flops", "match_compares" (of bytes), "scores_sparse_flops",
    "ffn_dense_flops", "ffn_routed_flops" (router included).

    Raises
    ------
    TypeError, ValueError : no integers, or out of range.

    Source
    ------
    Gui et al. 2023, "SPT", sections 4 and 5.
    """
    name = "memory_model"
    n, d, h = (as_int(x, function=name, name=what, low=1) for x, what in ((n, "n"), (d, "d"), (h, "h")))
    L, G = as_int(L, function=name, name="L", low=1, high=n), as_int(G, function=name, name="G", low=1)
    active = as_int(active, function=name, name="active", low=1, high=G)
    batch, itemsize = (
        as_int(x, function=name, name=what, low=1) for x, what in ((batch, "batch"), (itemsize, "itemsize"))
    )
    width = as_int(4 * h * d if d_ff is None else d_ff, function=name, name="d_ff", low=1)
    M = as_int(max(1, d // 8) if M is None else M, function=name, name="M", low=1)
    E = as_int(E, function=name, name="E", low=1)
    if width % G:
        raise ValueError(f"{name}: d_ff must be a multiple of G={G}, got {width}")
    heads, tokens = batch * h, batch * n
    slots, pairs = heads * n * L, heads * (n * (n + 1) // 2 if causal else n * n)
    entries = slots - heads * (L * (L - 1) // 2 if causal else 0)
    ffn = 4 * tokens * h * d * width
    return {
        "dense_attention": 2 * heads * n * n * itemsize,
        "dense_weights": heads * n * n * itemsize,
        "sparse_values": slots * itemsize,
        "sparse_indices": 4 * slots,
        "row_starts": 8 * (heads * n + 1),
        "codes": 2 * heads * n * M,
        "hidden_dense": tokens * width * itemsize,
        "hidden_routed": tokens * width * active // G * itemsize,
        "slots": slots,
        "entries": entries,
        "values_ratio": n / L,
        "scores_dense_flops": 2 * heads * n * n * d,
        "encode_flops": 4 * heads * n * E * d,
        "match_compares": pairs * M,
        "scores_sparse_flops": 2 * entries * d,
        "ffn_dense_flops": ffn,
        "ffn_routed_flops": ffn * active // G + 2 * tokens * h * d * G,
    }


# How each part finds its place ----------------------------------------------------------------------------------------
def _frozen(model):
    """Return a copy with the weights of a model, of which only normalisations are trained, and own their weights."""
    copied = shared_copy(model)
    for module in copied.modules():
        if "norm" in type(module).__name__.lower():
            for name, p in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(p.detach().clone()))
    return copied


def _put_lora(model, rank):
    made: dict[str, nn.Module] = {}
    inside = [name for name, module in model.named_modules() if isinstance(module, RoutedFFN | PQAttention)]
    for name, module in list(model.named_modules()):
        if any(name.startswith(f"{each}.") for each in inside):
            continue
        if isinstance(module, nn.Linear):
            made[name] = SPTLinear(module, rank)
        elif type(module) is nn.Embedding:
            made[name] = LoRAEmbedding(module, rank)
    if not made:
        raise ValueError("upgrade: the model has no torch.nn.Linear or Embedding to put a low-rank path beside")
    replace_linear(model, made)
    return made


def _put_ffn(up, settings):
    made, model = {}, up.model
    for name, module in list(model.named_modules()):
        for first, last, gate in FEED_FORWARD:
            parts = {"fc1": first, "fc2": last} | ({"gate": gate} if gate else {})
            found = {part: _at(module, where) for part, where in parts.items()}
            if not all(isinstance(each, nn.Linear | LoRALinear) for each in found.values()):
                continue
            routed = RoutedFFN.from_pretrained(**found, **settings)
            prefix = f"{name}." if name else ""
            replace_linear(model, {prefix + parts[part]: each for part, each in routed.in_place().items()})
            for part in parts.values():
                up.lora.pop(prefix + part, None)
            made[name or "model"] = routed
            break
    if not made:
        known = "; ".join(f"{first}, {last}" for first, last, _ in FEED_FORWARD)
        raise ValueError(f"upgrade: the model has no feed-forward layer of two linear ones named {known}")
    return made


def _put_attention(model, how, books, check):
    if hasattr(model, "_can_set_attn_implementation"):
        return _put_into_transformers(model, how, books, check)
    takes = "attention" in inspect.signature(model.forward).parameters
    if not (takes and hasattr(model, "layers") and hasattr(model, "config")):
        raise ValueError(
            f"upgrade: {type(model).__name__} is no transformers model, nor does its forward take attention; build its "
            "attention with SparseMHA.from_pretrained, and leave mha out of stages"
        )
    heads, width = model.config.heads, model.config.width
    made = {f"layers.{i}": _attention(width // heads, heads, how, books, model) for i in range(len(model.layers))}
    model.spt = nn.ModuleList(made.values())
    return made


def _put_into_transformers(model, how, books, check):
    from workbench.models import drop_in

    found: dict[int, tuple[nn.Module, torch.Size]] = {}

    def look(call, module):
        found[id(module)] = (module, call.q.shape)
        return call.dense()

    drop_in.use_sparse_attention(model, "dense", check=check)  # refuses a model that does more than softmax of q . k
    drop_in.register(f"{ATTENTION_NAME}_look", look, by_module=True)
    drop_in.register(ATTENTION_NAME, _attend, by_module=True)
    training = model.training
    model.set_attn_implementation(f"{ATTENTION_NAME}_look")
    with torch.no_grad():
        model.eval()(**(drop_in.short_batch(model) if check is None else check))
    model.train(training).set_attn_implementation(ATTENTION_NAME)
    made = {}
    for name, module in model.named_modules():
        if id(module) in found:
            _, h, _, d = found[id(module)][1]
            made[name] = _attention(d, h, how, books, model)
    for name, each in made.items():
        model.get_submodule(name).spt = each
    return made


def _attend(call, module):
    return module.spt(call.q, call.k, call.v, causal=call.causal, scale=call.scale, attn_mask=call.attn_mask)


def _attention(d, heads, how, books, model):
    kind = next(model.parameters()).dtype
    quantizer = head_quantizer(d, heads, **books, dtype=torch.float64 if kind == torch.float64 else torch.float32)
    return PQAttention(quantizer, **how)


def _at(module, path):
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


def _apply(model, layers, **knobs):
    made: dict[str, nn.Module] = {name: SPTLinear(layer, **knobs) for name, layer in layers.items()}
    replace_linear(model, made)
    return Applied(layers=made)


METHOD = TuningMethod(
    key="spt", title="SPT's LoRA", apply=_apply, knobs={"r": 16}, source="Gui et al. 2023, arXiv 2312.10365"
)
