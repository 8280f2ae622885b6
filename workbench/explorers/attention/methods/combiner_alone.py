"""The sparse pattern that a Combiner variant starts from, and nothing else: what Combiner is compared with."""

import torch

from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from workbench.explorers.attention import cost
from workbench.explorers.attention.curves import of_segments
from workbench.explorers.attention.knobs import PATTERN, SEGMENT_TOKENS
from workbench.explorers.attention.method import Method
from workbench.models.attention.combiner import sparse_counterpart_mask
from workbench.models.attention.dense_attention import attention_weights


def _trace(given, s):
    t, d = given.q.shape[2:]
    allowed = sparse_counterpart_mask(s["pattern"], t, s["segment_tokens"])
    attention = attention_weights(given.q, given.k)[0, 0]
    return AttentionTrace(
        method=f"Sparse pattern alone ({s['pattern'].replace('_', ' ')})",
        t=t,
        causal=True,
        cost=attention_cost(t=t, d=d, causal=True, allowed=allowed),
        coverage=float((attention * torch.as_tensor(allowed)).sum() / attention.sum()),
        attention=attention.numpy(),
        effective=attention_weights(given.q, given.k, allowed=allowed)[0, 0].numpy(),
        allowed=allowed,
    )


def _refuse(s, source):
    if source and not source.causal:
        return "The sparse patterns alone are defined for causal attention: choose a causal input."
    return None


METHOD = Method(
    key="combiner_alone",
    title="Combiner's sparse pattern alone",
    knobs=(PATTERN, SEGMENT_TOKENS),
    trace=_trace,
    curves=of_segments,
    runs=cost.run_pairs,
    longest=1024,
    refuse=_refuse,
    only_compared=True,
)
