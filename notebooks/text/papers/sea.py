# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'A linear attention that predicts where the attention would be, keeps
#       the best cells and is exact there.'
#     title: 'SEA: attention from an estimated mask'
#     thumbnail: 'record:timing/time?tokens=16384&method=dense, torch''s fused kernel|SEA, flat_csr'
# ---

# %% [markdown]
# # SEA: attention from an estimated mask
#
# H. Lee, J. Kim, J. Willette and S. J. Hwang, *SEA: Sparse Linear Attention with Estimated Attention Mask*, 2023,
# [arXiv 2310.01777](https://arxiv.org/abs/2310.01777).
#
# Linear attention is cheap but inexact, and it has no attention matrix to look at. SEA uses it to make an estimate:
# from its output a small network predicts *where* the real attention would be, and exact attention is computed there
# and nowhere else. In this notebook you train that estimator for one layer of a real encoder in a few seconds.
#
# Numbers carry a label: **counted** follows from structure, **measured** needed a clock or trained weights.
# Keep your changes in your own copy: `workbench copy sea`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench.app.notebook import claims, pictures, show, table
from workbench.models.attention.sea_training import cached_qkv

TOKENS, STEPS = {"tiny": (32, 2), "small": (128, 60), "full": (128, 180)}[os.environ.get("WORKBENCH_SIZE", "small")]
CELLS, KEYS = TOKENS // 4, 12


# %% [markdown]
# ## 1. The question
#
# Attention of one head over $T$ tokens is $A = \mathrm{softmax}(Q K^\top / \sqrt d)$: $T^2$ numbers, most of them
# close to zero. Here is a real one, from layer 3 of the sentence encoder MiniLM on text it has not seen.

# %%
q, k, v = cached_qkv("held_out", TOKENS, 1)  # layer 3 on a window of held-out text, (1, heads, T, d)
tuple(q.shape)

# %%
from workbench.models.attention.dense_attention import attention_weights

attention = attention_weights(q, k, causal=False)  # the teacher, (1, heads, T, T)
pictures({f"head {h}": attention[0, h] for h in (0, 4, 8)}, "Attention of three heads.", root=True)

# %% [markdown]
# (All pictures show square roots, so that small values can be seen. Rows are queries, columns are keys.)
#
# How few keys per query would be enough, if we knew which? Sort each row, and add up its largest weights:

# %%
mass = attention.sort(-1, descending=True).values.cumsum(-1).mean((0, 1, 2)).numpy()
table(
    ["keys per query", *(k for k in (1, 4, 12, 24))],
    [["share of attention (measured)", *(f"{mass[k - 1]:.0%}" for k in (1, 4, 12, 24))]],
)

# %% [markdown]
# A tenth of the keys hold most of the attention. But to *know* which ones, one would compute all of $Q K^\top$ first,
# and that is the cost we wanted to save. **Can a network predict the mask without ever building a $T \times T$
# matrix?**

# %% [markdown]
# ## 2. The picture
#
# SEA's estimate is a matrix of fixed width: for each query a row of $W$ cells, however long the text is. A cell stands
# for a run of neighbouring keys. Let us train the estimator against the encoder's own attention, and look at each stage
# of one head.

# %% workbench={"step": "Training the estimator"}
from workbench.models.attention.sea_stages import stages
from workbench.models.attention.sea_training import trained


def look(steps, keys=KEYS, group="causal_batch"):
    estimator = trained(TOKENS, CELLS, steps)
    estimator.k, estimator.group = keys, group  # a budget may be turned after training
    return stages(estimator, q, k, v, head=8)


seen = look(STEPS)
pictures(
    {"positions V_I": seen.position, "linear attention": seen.mixed, "estimate": seen.estimate},
    "Positions stretched to the text, the output of the linear attention, and the estimate made from it.",
    root=True,
)

# %%
pictures(
    {"chosen cells": seen.cells, "keys covered": seen.allowed, "true attention": seen.attention},
    "Chosen cells, the keys that they cover, and the teacher's attention.",
    root=True,
)

# %% [markdown]
# The two rows of pictures show, from left to right:
#
# 1. In the **positional identity** $V_I$, token number $c$ has values near one around position $c$ and near zero
#    elsewhere. Used as values of an attention, it gives an output that tells *which positions* were attended.
# 2. A **linear attention** (Performer) over $[V_I \mid V]$ costs $O(T)$. The left half of its output is an approximate
#    attention matrix, the right half an approximate output.
# 3. A small convolutional decoder, with the heads as channels, makes the **estimate** of it: $W$ cells per query.
# 4. The best cells are **chosen**, 5. **stretched** to the keys they cover, and 6. exact attention is computed there.
#
# **First insight: a matrix of $T \times W$ cells is enough to describe a mask of $T \times T$ pairs.** How good is it?

# %%
untrained = look(0)
shares = {"before training": untrained, f"after {STEPS} steps": seen}
table(
    ["estimator", "share of attention covered (measured)", "keys per query (measured)"],
    [[n, f"{s.coverage_by_head.mean():.1%}", f"{s.keys_by_head.mean():.1f}"] for n, s in shares.items()],
)

# %% [markdown]
# ## 3. The formula and its reference
#
# **Which cell does a key belong to?** Of $L$ keys, key $j$ has its middle at $(j + \frac12)/L$ of the row:
#
# $$\mathrm{col}(j) = \left\lfloor \frac{j + 1/2}{L}\, W \right\rfloor$$
#
# (the real one subtracts a tiny number first, so that ties fall to the left).


# %%
def col(length, width):
    return np.floor((np.arange(length) + 0.5) / length * width - 1e-4).astype(int)


col(10, 4)

# %%
from workbench.models.attention.sea import column_of_key

assert all((col(n, 32) == column_of_key(n, 32).numpy()).all() for n in (32, 47, 128, 1000))

# %% [markdown]
# **How many cells?** The budget is $k$ keys per query and head. A cell covers $L/W$ keys, so a query may keep $kW/L$
# cells per head. What matters is *which cells are ranked together*. If the cells of all heads of a query are ranked in
# one list, with $H$ times the budget, a head with a few large cells gets more of them than one with a flat row.


# %%
def choose(rows, keys, length):  # rows: (H, W), the estimate of one query for every head
    heads, width = rows.shape
    count = max(1, round(heads * keys * width / length))
    best = np.argsort(-rows.ravel(), kind="stable")[:count]
    return np.isin(np.arange(rows.size), best).reshape(rows.shape)


# %%
from workbench.models.attention.sea import grouped_topk

sea = trained(TOKENS, CELLS, STEPS)  # the estimator from section 2
with torch.no_grad():
    out = sea(q, k, v)
lengths = torch.tensor([TOKENS])
cells = grouped_topk(out.est, KEYS, lengths, "causal_batch")
assert all((choose(out.est[0, :, i].numpy(), KEYS, TOKENS) == cells[0, :, i].numpy()).all() for i in range(TOKENS))
cells[0].sum((1, 2)).tolist()  # cells per head: not equal

# %% [markdown]
# **What is computed?** Softmax over the kept keys only, scaled by a learned $s_\mathrm{prob}$ per query, and mixed by
# $s_\mathrm{mix}$ with an average of all values, weighted by what the estimate says of each cell:
#
# $$C = s_\mathrm{mix}\, s_\mathrm{prob}\, p\, V + (1 - s_\mathrm{mix})\, \bar{w} V,
# \qquad p = \mathrm{softmax}_{\text{kept}}(Q K^\top / \sqrt d)$$


# %%
def reference(head):
    allowed = cells[0, head].numpy()[:, col(TOKENS, CELLS)]  # stretch: every key takes the value of its cell
    scores = q[0, head].numpy() @ k[0, head].numpy().T / np.sqrt(q.shape[-1])
    p = np.where(allowed, np.exp(scores - scores.max()), 0)
    p = p / np.maximum(p.sum(1, keepdims=True), 1e-30)  # a row that keeps nothing gives zeros
    average = out.est[0, head].numpy().mean(0)[col(TOKENS, CELLS)]
    s_prob, s_mix = (s[0, head].numpy() for s in out.scales)
    return (s_mix * s_prob * p + (1 - s_mix) * average) @ v[0, head].numpy()


assert np.allclose(reference(8), out.context[0, 8], atol=1e-5)

# %% [markdown]
# The bracket in the last line of `reference` is an **attention matrix**, so one can still inspect which keys were
# attended. Its rows need not add up to one.
#
# **How does the estimator learn?** Choosing the best cells has no gradient. So the estimate is trained directly: its
# *scores*, stretched to $T$ keys and put through a softmax, should be the teacher's attention (a divergence and a
# squared error), and the layer's output should be the teacher's output.

# %% [markdown]
# ## 4. The fast form
#
# At inference no $T \times T$ array may exist. So the chosen cells are turned into a sparse matrix at once: one row per
# query, all heads side by side, column $= \text{head} \cdot T + \text{key}$. Ranking over the heads of a query gives
# all rows (nearly) the same length, which parallel hardware needs to be fast.

# %%
from workbench.models.attention.sea import cells_to_flat_csr, expand_cells, flat_csr_to_dense

flat = cells_to_flat_csr(cells, lengths)
assert (flat_csr_to_dense(flat) == expand_cells(cells, lengths).numpy()).all()
row_lengths = flat.row_nnz[0]
f"{flat.indptr[-1]:,} scores instead of {q.shape[1] * TOKENS**2:,}; {row_lengths.min()} to {row_lengths.max()} a row"

# %% [markdown]
# Three kernels then compute on that pattern: sampled products (`sddmm`), a softmax over the entries of each head
# (`csr_softmax`), and a sparse times dense product (`spmm`). The result is the same:

# %%
sea.backend = "flat_csr"
with torch.no_grad():
    fast = sea(q, k, v)
sea.backend = "dense"
assert torch.allclose(fast.context, out.context, atol=1e-5)
assert torch.equal(fast.cells, out.cells)
assert np.allclose(seen.effective @ v[0, 8].numpy(), out.context[0, 8], atol=1e-5)  # the matrix remakes the output

# %% [markdown]
# ## 5. Play
#
# The explorer below uses a *trained* estimator that ships with the workbench: this layer, 32 cells, 180 steps.
# *Estimate of the attention* offers earlier steps of the same training, and the *oracle*, the teacher's own attention
# averaged into cells. The oracle shows what the width and the budget cost, apart from any training.
#
# 1. Change *Estimate of the attention* from untrained to 180 steps. When do the diagonal and the first key appear?
# 2. Choose *output of the linear attention* as the left picture. Its left half says which positions each query attends
#    to. Do the rows differ? And those of head 5? The button *What the linear attention contributes* explains it.
# 3. Rank the cells over each query instead of over all heads of a query. Does this head gain keys, or lose them?
# 4. Change the keys per query from 4 to 64. How fast does the coverage rise, and how far below the oracle's curve is
#    it?
# 5. Choose the oracle's estimate and lower *Cells per estimated row* to 8. Which structures remain, which are blurred?
# 6. Compare with XAttention, and match the densities by its threshold. Which method covers more on this head?

# %%
from workbench.papers import get

get("sea").view(tokens=max(64, TOKENS), head=8)

# %% [markdown]
# Now use *your* estimator, and change $k$ without training again.

# %%
turned = {keys: look(STEPS, keys=keys) for keys in (3, 6, 12, 24)}
table(
    ["keys per query", *turned],
    [["covered (measured)", *(f"{s.coverage_by_head.mean():.0%}" for s in turned.values())]],
)

# %% [markdown]
# One estimator, trained for 12 keys, works for all of them. What does its estimate depend on? Hide the output of the
# linear attention from the decoder, so that only the values are left to it:

# %%
from workbench.models.attention.sea_training import without_linear_pass

weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
with torch.no_grad():
    masks = {"as trained": out.mask, "without the linear attention": without_linear_pass(sea)(q, k, v).mask}
table(
    ["estimate", "covered (measured)"],
    [[name, f"{float((weights * mask).sum() / weights.sum()):.1%}"] for name, mask in masks.items()],
)

# %% [markdown]
# In this layer the trained estimator hardly uses the output of the linear attention. Most random features of its keys
# are at their lower bound of $10^{-4}$, so in most heads the linear attention gives nearly the same average to every
# query, and the decoder has learnt from the values. The card of the shipped estimators,
# `workbench/models/weights/sea_minilm.md`, measures the same on more text and at every step.
#
# Now compare the groups: each head has an equal share, or all heads (and queries) compete.

# %%
spent = {group: look(STEPS, group=group).keys_by_head for group in ("query", "causal_batch", "batch")}
figure = go.Figure([go.Bar(name=g, x=np.arange(len(x)), y=x) for g, x in spent.items()])
figure.update_layout(xaxis_title="head", yaxis_title="keys per query (measured)", height=340, barmode="group")
show(figure, "With a shared budget some heads take several times as many keys as others.")

# %% [markdown]
# **Second insight: where heads compete, they share one budget unequally.** The total is the same for all three groups.
# Heads whose estimate has a few large cells get more keys, heads with a flat estimate get fewer.
#
# In a *causal* model the same cell stands for other keys in each row, since the query at position $i$ sees $i + 1$
# keys. A column of cells becomes a wedge:

# %%
column = torch.zeros(1, 1, TOKENS, 8, dtype=torch.bool)
column[..., 2] = True
pictures(
    {
        "one column of cells": column[0, 0],
        "bidirectional": expand_cells(column, lengths)[0, 0],
        "causal": expand_cells(column, lengths, causal=True)[0, 0],
    },
    "A column of cells covers a wedge of keys in causal attention.",
)

# %% [markdown]
# ## 6. The experiment
#
# `workbench run sea` distils this layer three times from different starts, tries variants, distils every layer of a
# small causal language model, and times the sparse path. Beside SEA it trains a **Performer**: linear attention on the
# same features, whose queries, keys and values may change, with the same text, steps and learning rate. From here on
# this notebook reads the records it wrote.

# %%
from statistics import fmean

from workbench import record

found = record.read("sea", "distillation")["rows"]


def mean(rows, quantity, **labels):
    return fmean(r["value"] for r in rows if r["quantity"] == quantity and labels.items() <= r.items())


steps = sorted({r["step"] for r in found if "step" in r})
table(
    ["step (measured, held-out)", *steps],
    [
        [name, *(f"{mean(found, name, method='SEA', step=step):.3g}" for step in steps)]
        for name in ("coverage", "context error", "loss: estimate KL", "loss: estimate MSE", "loss: context MSE")
    ],
)

# %%
masks = ("random cells", "local window, first and last token", "SEA", "oracle cells", "oracle keys")
covered = {m: mean(found, "coverage", method=m, **({"step": steps[-1]} if m == "SEA" else {})) for m in masks}
figure = go.Figure(go.Bar(x=list(covered.values()), y=list(covered), orientation="h", texttemplate="%{x:.3f}"))
figure.update_layout(xaxis_title="share of attention at 12 keys per query (measured)", height=300)
show(figure, "SEA's mask covers several times what a random mask covers, about as much as a local window.")

# %% [markdown]
# The estimator knew nothing about text, and it learnt what a good hand-made mask contains: neighbours and the first
# token. Compare its bar with that of the local window, which is a strong baseline on this encoder. The oracle's two
# bars show how much could still be gained, and that rounding to cells costs little of it.

# %%
method = "SEA, k turned after training"
budgets = sorted({r["keys"] for r in found if r.get("method") == method})
table(
    ["k, turned after training (measured)", *budgets],
    [
        [name, *(f"{mean(found, name, method=method, keys=k):.3f}" for k in budgets)]
        for name in ("coverage", "context error")
    ],
)

# %%
cosines = {
    m: mean(found, "embedding cosine", method=m) for m in ("SEA", "Performer", masks[1], "random cells", "oracle keys")
}
errors = {
    "SEA": mean(found, "context error", method="SEA", step=steps[-1]),
    "Performer": mean(found, "context error", method="Performer", step=steps[-1]),
}
table(
    ["one layer replaced by (measured)", "cosine to the teacher's sentence embedding", "error of the layer's output"],
    [[m, f"{c:.3f}", f"{errors[m]:.2f}" if m in errors else ""] for m, c in cosines.items()],
)

# %% [markdown]
# The next table is about a whole **causal language model**: every layer is distilled on its own and then replaced.

# %%
causal = record.read("sea", "causal")["rows"]
names = (
    "bits per byte, one layer replaced",
    "bits per byte, all layers replaced",
    "perplexity per token, all layers replaced",
)
methods = list(dict.fromkeys(r["method"] for r in causal))
table(["attention (measured)", *names], [[m, *(f"{mean(causal, n, method=m):.3f}" for n in names)] for m in methods])

# %% [markdown]
# The next tables show **variants**, trained for fewer steps:

# %%
ablations = record.read("sea", "ablations")["rows"]
variants = list(dict.fromkeys(r["variant"] for r in ablations if "variant" in r))
table(
    ["variant (measured)", "coverage", "error of the output"],
    [[n, *(f"{mean(ablations, q, variant=n):.3f}" for q in ("coverage", "context error"))] for n in variants],
)

# %%
groups = ("query", "head", "causal_batch", "batch")
table(
    ["estimate (measured)", *groups],
    [
        [e, *(f"{mean(ablations, 'coverage by group', estimate=e, group=g):.3f}" for g in groups)]
        for e in ("trained", "oracle")
    ],
)

# %% [markdown]
# The last picture shows the **time** at a fixed number of cells and keys:

# %%
timing = record.read("sea", "timing")["rows"]
figure = go.Figure()
for method in dict.fromkeys(r["method"] for r in timing):
    points = [(r["tokens"], r["value"]) for r in timing if r["quantity"] == "time" and r["method"] == method]
    figure.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], name=method, mode="lines+markers")
figure.update_layout(height=380, legend={"orientation": "h", "y": -0.3})
figure.update_xaxes(type="log", title="tokens").update_yaxes(type="log", title="ms (measured)")
show(figure, "The sparse path grows with the length, dense attention with its square.")

# %% [markdown]
# Compare the slopes first, then the heights. The claim is about the slope: when the length doubles, SEA's time doubles.
# The height is the cost of the estimator. SEA is soon faster than a dense attention that writes out its matrix. A fused
# kernel, which never writes it, is hard to beat at short lengths, so SEA pays off only where its line is crossed.

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
claims("sea")

# %% [markdown]
# *published* values were read in the paper, its authors' repository or public notes that quote it, which the second
# column names; those *from memory* could not be checked.
#
# What differs: the paper trains the whole model, 10,000 steps and more, together with the task; here the model stays
# frozen and each layer's estimator learns alone, for a few minutes in all. So its queries and keys are the teacher's,
# and the two losses between student and teacher scores are zero from the start. The Performer beside it learns from the
# teacher's output alone, since it has no attention matrix; its random features stay as they were drawn.
#
# Left out: low-rank adapters, training layer by layer with the task's loss, choosing more cells than needed and
# thinning them (`k_oversample`), and the authors' GPU kernels. Padding is kept out of the estimate; the released code
# leaves it in (`mask_padded_keys=False`).

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("sea/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** Given are the numbers of heads, cells, tokens, and keys per query. How many cells does one query get over all
# its heads?

# %%
from workbench.app.exercises import check, given, hint

given("sea/budget")

# %%
answer = ...
check("sea/budget", answer)

# %% [markdown]
# **2.** Which keys does this cell cover? Answer with a pair, first and last.

# %%
given("sea/span")

# %%
answer = ...
check("sea/span", answer)

# %% [markdown]
# **3.** Four heads' rows of the estimate for one query, and the cells to keep in all. Which ones, if the heads compete?

# %%
est, count = given("sea/group")
est, count

# %%
answer = ...
check("sea/group", answer)

# %% [markdown]
# **4.** For one query of a bidirectional layer, whose tokens are a multiple of its cells: what does its row of the
# effective attention matrix add up to?

# %%
given("sea/row-sum")

# %%
answer = ...
check("sea/row-sum", answer)

# %% [markdown]
# **5.** Count numbers per head: the estimate and the kept scores on one side, the whole attention matrix on the other.
# From how many tokens on is SEA's side smaller?

# %%
given("sea/memory")

# %%
answer = ...
check("sea/memory", answer)

# %%
hint("sea/memory")
