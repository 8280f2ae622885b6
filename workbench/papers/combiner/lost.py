"""What patterns lose of the attention of real heads, and how far Combiner's rows are from the true ones."""

import numpy as np
import torch

from workbench.data import text
from workbench.models.attention.combiner import PATTERNS, effective_attention, sparse_counterpart_mask, support
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.language import minilm
from workbench.paper import row


def lost(size, seed, report):
    """Count true attention outside the direct pairs, and how far Combiner's rows are from the true ones, untrained."""
    layers, windows, tokens = {"tiny": (1, 1, 64), "small": (6, 1, 256), "full": (6, 4, 256)}[size]
    model = minilm.load()
    documents = "\n\n".join(document.text for document in text.documents("documentation"))
    ids = model.windows(documents[: 24 * tokens * windows], tokens)[:windows]
    part, found = round(tokens**0.5), {}
    for place, (window, layer) in enumerate((w, n) for w in ids for n in range(layers)):
        report(place / (windows * layers), f"layer {layer}")
        q, k, _ = model.qkv(window[None], layer)
        true = attention_weights(q, k)
        for pattern in PATTERNS:
            direct = torch.as_tensor(support(pattern, tokens, part)["direct"])
            alone = torch.as_tensor(sparse_counterpart_mask(pattern, tokens, part))
            ours = effective_attention(q, k, pattern=pattern, seg_len=part)
            masked = attention_weights(q, k, allowed=alone)
            for quantity, value in (
                ("attention outside the direct pairs", (true * ~direct).sum(-1).mean()),
                ("attention outside the sparse pattern", (true * ~alone).sum(-1).mean()),
                ("L1 distance of Combiner's rows", (ours - true).abs().sum(-1).mean()),
                ("L1 distance of the sparse pattern's rows", (masked - true).abs().sum(-1).mean()),
            ):
                found.setdefault((pattern, quantity), []).append(float(value))
    return [
        row(quantity, float(np.mean(values)), "fraction" if "outside" in quantity else "number", "measured",
            input="MiniLM, read causally", tokens=tokens, segment=part, pattern=pattern)
        for (pattern, quantity), values in found.items()
    ]  # fmt: skip
