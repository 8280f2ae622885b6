"""Windows that do not overlap, as in Swin: as many keys per query as fused ones, all of them near."""

import numpy as np
import torch

from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from workbench.explorers.attention.knobs import WINDOW
from workbench.explorers.attention.method import Method
from workbench.models.attention.dense_attention import attention_weights


def _trace(given, s):
    rows, columns = given.grid
    y, x = np.divmod(np.arange(rows * columns), columns)
    window = (y // s["window"]) * columns + x // s["window"]
    allowed = window[:, None] == window
    attention = attention_weights(given.q, given.k, causal=False)[0, 0]
    t, d = given.q.shape[2:]
    return AttentionTrace(
        method="Windows (Swin)",
        t=t,
        causal=False,
        cost=attention_cost(t=t, d=d, causal=False, allowed=allowed),
        coverage=float((attention * torch.as_tensor(allowed)).sum() / attention.sum()),
        attention=attention.numpy(),
        effective=attention_weights(given.q, given.k, causal=False, allowed=allowed)[0, 0].numpy(),
        allowed=allowed,
        facts={"keys per query (counted)": f"{s['window'] ** 2}, fewer at the border"},
    )


METHOD = Method(
    key="windows",
    title="Windows (Swin)",
    knobs=(WINDOW,),
    trace=_trace,
    causal=False,
    pictures=True,
    only_compared=True,
)
