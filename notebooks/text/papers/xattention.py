# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'Block-sparse attention that finds the blocks worth computing by sampling
#       one antidiagonal of every tile.'
#     title: 'XAttention: finding the blocks that matter'
#     thumbnail: 'record:samplers/mass kept, a quarter of the
#       blocks?block=32&stride=8&sampler=antidiagonal|random|diagonal|mean_pool'
# ---

# %% [markdown]
# # XAttention: finding the blocks that matter
#
# R. Xu, G. Xiao, H. Huang, J. Guo, S. Han, *XAttention: Block Sparse Attention with Antidiagonal Scoring*, 2025,
# [arXiv 2503.16428](https://arxiv.org/abs/2503.16428).
#
# Attention over a long prompt computes every pair of tokens, and nearly all of the result is close to zero. The blocks
# that are not could be computed alone, *if one knew which they are*. By the end you will have seen why sampling one
# antidiagonal of every tile is a good way to find out, and one kind of line that even the antidiagonal misses.
#
# Numbers carry a label. **counted** follows from structure, **measured** needed a clock or trained weights.
# Keep your changes in your own copy: `workbench copy xattention`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go

from workbench.app.notebook import claims, pictures, show, table

TOKENS = {"tiny": 128, "small": 256, "full": 256}[os.environ.get("WORKBENCH_SIZE", "small")]


# %% [markdown]
# ## 1. The question
#
# Here is one head of a sentence encoder, on a page of Python's documentation. Row $i$ holds the attention of token $i$
# to every other token, and every row sums to 1. The right picture shows the same, summed over blocks of 16 x 16.

# %%
from kernels.masks.block_scores import true_block_mass
from workbench.explorers.attention.source import load_input
from workbench.models.attention.dense_attention import attention_weights

BLOCK = 16
given = load_input("minilm", tokens=TOKENS, layer=1, head=0)
q, k, v = (x.numpy() for x in (given.q, given.k, given.v))
attention = attention_weights(given.q, given.k, causal=False)[0, 0].numpy()
mass = true_block_mass(q, k, block_size=BLOCK, causal=False)
pictures({"attention (square root)": np.sqrt(attention), "mass per block": mass[0, 0]}, "Attention has thin lines.")

# %% [markdown]
# There are two kinds of thin lines. A *vertical* is a key that all queries attend to. A *slash* is a fixed distance at
# which all queries attend back or ahead. Most of the square is empty. How much of the attention lies in the best
# quarter of each row's blocks?

# %%
from kernels.masks.block_select import select_blocks


def covered(keep):
    return float((mass * keep).sum() / mass.sum())


quarter = mass.shape[3] // 4
best = select_blocks(mass, causal=False, method="topk", k=quarter)
f"the best quarter of the blocks holds {covered(best):.0%} of the attention (measured)"

# %% [markdown]
# A kernel that computes only those blocks does a quarter of the work. But we found them by computing everything first.
# **The question: how to find them without computing the logits $QK^\top$?**

# %% [markdown]
# ## 2. The picture
#
# Divide the logits into tiles of $S \times S$ and *sample only some entries of each tile*. Which ones? Here are three
# ways to sample $S$ of the $S^2$ entries, so that every row and every column of the tile is sampled exactly once.

# %%
from kernels.masks.block_scores import lines_read

S = 8
lines = {mode: lines_read(S, mode=mode, seed=1) for mode in ("antidiagonal", "diagonal", "random")}
pictures(lines, "Three ways to sample eight of the 64 entries of a tile.", height=260)

# %% [markdown]
# Now compare them with the lines that we want to find. A vertical crosses every tile from top to bottom, so each of the
# three ways meets it once. A slash runs from the upper left to the lower right, *parallel to the diagonal*. If its
# distance is not a multiple of $S$, the diagonal never meets it. The antidiagonal crosses it.


# %%
def met(distance, width, mode, t=64):
    query, key = np.indices((t, t))
    slash = (query - key >= distance) & (query - key < distance + width)
    return int((slash * np.tile(lines_read(S, mode=mode, seed=1), (t // S, t // S))).sum())


distances = range(8, 20)
table(
    ["entries of the slash that are sampled (counted)", *distances],
    [
        [f"{mode}, width {width}", *(met(d, width, mode) for d in distances)]
        for width in (1, 2)
        for mode in ("antidiagonal", "diagonal", "random")
    ],
)

# %% [markdown]
# Compare the rows of the table.
#
# - The **diagonal** meets the distances 8 and 16 and none between them.
# - The **antidiagonal** meets every slash of width 2. **First insight: at the same cost, the direction of the sampled
#   line decides what is found.**
# - But look at its first row: of slashes of width 1 it misses every *even* distance. The entries that it samples have
#   $(i \bmod S) + (j \bmod S) = S - 1$, so $i - j$ is always odd when $S$ is even. **Second insight: "crosses every
#   slash" needs slashes of width 2.** In real attention, lines are seldom that thin.

# %% [markdown]
# ## 3. The formula and its reference
#
# Add the sampled logits of each tile. With $i, j$ counting tiles,
#
# $$\text{tile}_{ij} = \frac{1}{S \sqrt d} \sum_{t=0}^{S-1} q_{iS + S-1-t} \cdot k_{jS+t}$$
#
# is the mean of the scaled logits on the antidiagonal. The softmax of each row of tiles, added over the tiles of a
# block, is the estimate of the block's attention. As a reference, slowly:


# %%
def tiles_reference(q, k, stride):
    n, d = len(q) // stride, q.shape[1]
    found = np.zeros((n, n))
    for i, j, t in np.ndindex(n, n, stride):
        found[i, j] += q[i * stride + stride - 1 - t] @ k[j * stride + t] / (stride * np.sqrt(d))
    return found


def blocks_reference(q, k, block, stride):
    weights = np.exp(tiles_reference(q, k, stride))
    weights /= weights.sum(axis=1, keepdims=True)
    n, per_block = len(q) // block, block // stride
    return weights.reshape(n, per_block, n, per_block).sum(axis=(1, 3))


# %% [markdown]
# Work one case out on paper: four tokens, $d = 1$, $q = (1, 2, 3, 4)$, $k = (1, 0, 0, 1)$, and $S = 2$. The tile of
# queries 2, 3 and keys 0, 1 is $(q_3 k_0 + q_2 k_1) / 2 = (4 + 0)/2$. Work out one more before you run the cell.

# %%
tiny_q, tiny_k = np.array([[1.0], [2], [3], [4]]), np.array([[1.0], [0], [0], [1]])
tiles_reference(tiny_q, tiny_k, stride=2)

# %% [markdown]
# Then blocks are chosen. **Take the blocks of a row from the largest score down, until they reach the wanted share
# $\tau$.** In a causal model two blocks are always kept: the first (the *sink*) and the one on the diagonal. They count
# towards the share.


# %%
def select_reference(row, share):
    kept, so_far = [], 0.0
    for block in np.argsort(-row, kind="stable"):
        if so_far >= share * row.sum():
            break
        kept.append(int(block))
        so_far += row[block]
    return sorted(kept)


select_reference(np.array([0.1, 0.5, 0.05, 0.3, 0.05]), share=0.75)

# %% [markdown]
# ## 4. The fast form
#
# The sum of $S$ dot products is one dot product of length $S d$. So put the $S$ keys of a tile side by side, the $S$
# queries too but *backwards*, and the whole map is **one matrix product with $S$ times fewer rows and columns**.

# %%
from kernels.masks.block_scores import antidiagonal_reshape, xattn_block_scores

q_groups, k_groups = antidiagonal_reshape(q.astype(float), k.astype(float), S)
fast = (q_groups @ k_groups.swapaxes(2, 3))[0, 0] / (S * np.sqrt(q.shape[3]))
assert np.allclose(fast, tiles_reference(q[0, 0].astype(float), k[0, 0].astype(float), S))
q.shape, q_groups.shape

# %%
from workbench.models.attention.xattention import scoring_multiply_adds

t, d = q.shape[2:]
scoring = scoring_multiply_adds(t, d, block_size=BLOCK, stride=S)
assert q_groups.size * k_groups.shape[2] == scoring
f"{scoring:,} multiply-adds instead of {t * t * d:,}: one {S}th (counted)"

# %% [markdown]
# The other steps are scores, selection, and attention over the kept blocks. Each is checked against its reference.

# %%
scores = xattn_block_scores(q, k, block_size=BLOCK, stride=S, causal=False)
assert np.allclose(scores[0, 0], blocks_reference(q[0, 0], k[0, 0], BLOCK, S), atol=1e-5)
keep = select_blocks(scores, 0.9, causal=False)
for row, kept in zip(scores[0, 0], keep[0, 0], strict=True):
    assert select_reference(row.astype(float), 0.9) == np.flatnonzero(kept).tolist()

# %%
import torch

from kernels.attention.block_sparse import block_sparse_attention
from workbench.models.attention.dense_attention import masked_attention
from workbench.models.attention.xattention import token_mask

out = block_sparse_attention(q, k, v, keep, block_size=BLOCK)
allowed = torch.from_numpy(token_mask(keep, t, block_size=BLOCK, causal=False))
expected = masked_attention(given.q, given.k, given.v, allowed, causal=False).numpy()
assert np.abs(out - expected).max() < 1e-5
f"{keep.mean():.0%} of the blocks, {covered(keep):.0%} of the attention (measured)"

# %%
pictures({"true mass": mass[0, 0], "estimate": scores[0, 0], "kept": keep[0, 0]}, "Truth, estimate, and what is kept.")

# %% [markdown]
# How good is the estimate? Every sampling pattern gets the same budget, a quarter of the blocks of each row. The
# *oracle* chooses by the true attention. *Mean pool* compares the means of queries and keys, which is the simplest
# idea.

# %%
from workbench.models.attention.xattention import block_scores


def at_a_quarter(mode):
    found = block_scores(q, k, block_size=BLOCK, stride=S, causal=False, mode=mode, seed=1)
    return covered(select_blocks(found, causal=False, method="topk", k=quarter))


modes = ("oracle", "antidiagonal", "diagonal", "random", "mean_pool")
table(
    ["sampler", "attention covered (measured)"],
    [[mode.replace("_", " "), f"{at_a_quarter(mode):.3f}"] for mode in modes],
)

# %% [markdown]
# One head proves nothing, so section 6 compares 72 of them.

# %% [markdown]
# ## 5. Play
#
# The left picture shows true attention, the right one what is computed. Turn any control.
#
# 1. The input below is a generated slash of width 2. Change *Sampling pattern* from antidiagonal to diagonal. What
#    happens to the blocks along the slash?
# 2. Choose *logits sampled for the estimate* as the right picture. Zoom in until you see single entries.
# 3. Choose *MiniLM encoder* as input and go through its layers. Which heads need few blocks, which need many?
# 4. Set the stride to 1. What is the estimate then, and what does it cost?

# %%
from workbench.papers import get

get("xattention").view(input="slash", tokens=512, head=4, stride=8, threshold=0.4, right="keep")

# %% [markdown]
# One picture shows the trade-off: each point is a threshold, with its density and its coverage.


# %%
def curve(mode):
    found = block_scores(q, k, block_size=BLOCK, stride=S, causal=False, mode=mode, seed=1)
    keeps = [select_blocks(found, tau, causal=False) for tau in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)]
    x, y = [keep.mean() for keep in keeps], [covered(keep) for keep in keeps]
    return go.Scatter(x=x, y=y, name=mode.replace("_", " "), mode="lines+markers")


figure = go.Figure([curve(mode) for mode in modes])
figure.update_layout(xaxis_title="density", yaxis_title="attention covered (measured)", height=360)
show(figure, "Coverage over density for five samplers; the oracle lies above all.")

# %% [markdown]
# ## 6. The experiment
#
# `workbench run xattention` repeats this on more heads and longer texts, and writes records. From here on the notebook
# only reads them. The first table is over all 72 heads of the encoder, with windows of 512 tokens and blocks of 32.

# %%
from workbench import record

samplers = record.read("xattention", "samplers")["rows"]


def values(rows, quantity, **labels):
    return [r["value"] for r in rows if r["quantity"] == quantity and labels.items() <= r.items()]


kept = "mass kept, a quarter of the blocks"
names = dict.fromkeys(r["sampler"] for r in samplers if r.get("stride") == 8)
cells = {n: {s: values(samplers, kept, sampler=n, stride=s, block=32) for s in (4, 8, 16, 32)} for n in names}
table(
    ["attention covered by a quarter (measured)", *(f"S = {s}" for s in (4, 8, 16, 32))],
    [["oracle", *[f"{values(samplers, kept, sampler='oracle')[0]:.3f}"] * 4]]
    + [[n.replace("_", " "), *(f"{x[0]:.3f}" if x else "" for x in row.values())] for n, row in cells.items()],
)

# %% [markdown]
# The differences are small, so compare them *head by head*. Each dot is the lead of the antidiagonal on one head, at
# $S = 8$.

# %%
figure = go.Figure()
for against in ("diagonal", "random"):
    leads = sorted(100 * x for x in values(samplers, "lead of one head", against=against))
    figure.add_scatter(y=leads, mode="markers", name=f"over {against}")
figure.update_layout(xaxis_title="heads, sorted", yaxis_title="lead in points of attention (measured)", height=360)
show(figure.add_hline(0), "Most heads favour the antidiagonal over the diagonal; over random, about half.")

# %%
leads = {}
for r in samplers:
    if r["quantity"].startswith(("lead in", "standard error")):
        leads.setdefault((r["against"], r["stride"]), []).append(100 * r["value"])
table(
    ["lead of the antidiagonal over", "S", "points of attention ± standard error over heads (measured)"],
    [[against.replace("_", " "), s, f"{lead:+.2f} ± {error:.2f}"] for (against, s), (lead, error) in leads.items()],
)

# %% [markdown]
# Over the diagonal the lead is clear. Over *random* positions it is not, since a random permutation crosses slashes as
# well. And once the tile is as large as the block, the mean of the block is the better estimate.
#
# The next input is the pattern that the paper draws: a generated slash of width 2 and one vertical. As many blocks are
# kept as truly contain the pattern.

# %%
pattern = record.read("xattention", "pattern")["rows"]
recall = "recall of the pattern's blocks"
cases = [(s, offsets) for s in (4, 8) for offsets in ("all drawn", "not read by the diagonal")]
table(
    ["blocks found (counted)", *(f"S = {s}, offsets {offsets}" for s, offsets in cases)],
    [
        [n.replace("_", " "), *(f"{values(pattern, recall, sampler=n, stride=s, offsets=o)[0]:.2f}" for s, o in cases)]
        for n in ("oracle", "antidiagonal", "random", "diagonal", "mean_pool")
    ],
)

# %% [markdown]
# Some of the drawn offsets happen to be multiples of $S$ (or one less), and those the diagonal does meet. The columns
# without them show what it misses.
#
# The next picture compares two rules: keep a share of the mass, or keep the same number of blocks in every row.

# %%
selection = record.read("xattention", "selection")["rows"]
figure = go.Figure()
for rule in ("threshold", "top-k"):
    x, y = values(selection, "density", rule=rule), values(selection, "mass kept", rule=rule)
    figure.add_scatter(x=x, y=y, name=rule, mode="lines+markers")
figure.update_layout(xaxis_title="density", yaxis_title="attention covered (measured)", height=360)
show(figure, "The threshold lies above top-k from a density of about 0.3 on.")

# %% [markdown]
# Some heads need few blocks, others need most of them. With a threshold each row keeps as many as it needs. Can the
# threshold be lowered for each head? The paper searches the lowest thresholds by dynamic programming. What it finds on
# calibration text need not hold on other text.

# %%
thresholds = ("fixed 0.9", "minimum", "profiled")
texts = ("calibration", "held out")


def mean(quantity, **labels):
    return np.mean(values(selection, quantity, **labels))


table(
    ["thresholds", *(f"{q}, {text} (measured)" for text in texts for q in ("density", "output error"))],
    [
        [n, *(f"{mean(q, thresholds=n, text=text):.3f}" for text in texts for q in ("density", "output error"))]
        for n in thresholds
    ],
)

# %% [markdown]
# In the end one question matters: does a language model predict as well as before? This is the workbench's small
# language model with sparse attention in every layer, on documentation that it was not trained on.

# %%
language = record.read("xattention", "language")["rows"]
keys = ("method", "sampler", "stride", "threshold")
costs = {tuple(r.get(key, "") for key in keys): r["value"] for r in language if r["quantity"] == "cost of the text"}
densities = {tuple(r.get(key, "") for key in keys): r["value"] for r in language if r["quantity"] == "density"}
dense = costs["dense", "", "", ""]
table(
    [*keys, "density", "bits per byte", "over dense (measured)"],
    [[*key, f"{densities[key]:.3f}", f"{x:.4f}", f"{x / dense - 1:+.2%}"] for key, x in costs.items()],
)

# %% [markdown]
# Three rows deserve a closer look. The *oracle*, with the same rule, shows what a perfect estimate would be worth. Of
# the sampling patterns, *mean pool* costs most. And *top-k* and *ratio*, at no higher density, cost **less** than the
# threshold. That is the opposite of the paper's table, and of what the encoder above shows. Coverage is not everything:
# a row with one strong block reaches its share at once, and keeps hardly any other block. (This explanation is our
# guess; section 7 gives the verdict.)
#
# The next picture shows the time of each step of sparse attention beside dense attention, on the record's machine.

# %%
timing = record.read("xattention", "timing")
steps = [r for r in timing["rows"] if r["quantity"] == "time, median"]
lengths = sorted({r["tokens"] for r in steps})
by_step = {name: {r["tokens"]: r["value"] for r in steps if r["step"] == name} for name in (r["step"] for r in steps)}
gain = values(timing["rows"], "dense over scoring, selecting and attending")
rows = [[name, *(f"{x[t]:.2f} ms" for t in lengths)] for name, x in by_step.items()]
table(["measured", *(f"{t:,} tokens" for t in lengths)], [*rows, ["**gain**", *(f"**{x:.1f}x**" for x in gain)]])

# %%
first = steps[0]
cpu = timing["machine"]["cpu"]
f"{cpu}, {first['threads']} threads, {first['heads']} heads of {first['width']}, S = {first['stride']}"

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
claims("xattention")

# %% [markdown]
# *published* values were read on the authors' slides or in public notes that quote the paper, which the second column
# names; those *from memory* could not be checked. The paper measures answers to long prompts (RULER, LongBench) with a
# model of eight billion parameters. Ours are small models and 512 to 2,048 tokens, so there is less to leave out:
# densities are higher, and differences between sampling patterns are smaller. Where our results disagree with the
# paper's, remember this difference in scale first.
#
# Where ours differs from the released code on purpose: the forced blocks are exactly the sink and the diagonal block,
# in every row (the code keeps one more block per row in the first chunk, and always block 0). The state from which the
# search for thresholds takes its next step is our reading.
#
# Left out: speed beyond 8,192 tokens, GPU kernels, the authors' precomputed tables of thresholds.

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("xattention/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** Given are six queries and six keys of width 2, and $S = 3$. What is the *sum* of the logits $q \cdot k$ on the
# antidiagonal of the tile of queries 3, 4, 5 and keys 0, 1, 2, without scaling?

# %%
from workbench.app.exercises import check, given, hint

queries, keys = given("xattention/tile")
queries.tolist(), keys.tolist()

# %%
answer = ...
check("xattention/tile", answer)

# %% [markdown]
# **2.** Which of these slashes of width 1 does the antidiagonal meet? Answer with a tuple of booleans, one per
# distance.

# %%
stride, distances = given("xattention/distances")
stride, distances

# %%
answer = ...
check("xattention/distances", answer)

# %% [markdown]
# **3.** Given is one causal row of block scores; the last block is the one on the diagonal. How many blocks does the
# threshold keep?

# %%
row, threshold = given("xattention/select")
row, threshold

# %%
answer = ...
check("xattention/select", answer)

# %% [markdown]
# **4.** Given are the tokens, the width, the stride and the share of blocks kept of one run without causality. How many
# times fewer operations do scoring and attending take together than dense attention ($4 t^2 d$)?

# %%
numbers = given("xattention/cost")
numbers

# %%
answer = ...
check("xattention/cost", answer)

# %% [markdown]
# **5.** Write a function that takes `q`, `k` (each tokens x width) and a stride, and returns the tile sums
# of the *antidiagonal*, without scaling, as a matrix with one row per tile of queries. No loop is needed.

# %%
given("xattention/reshape")  # tokens, width and stride of the cases that your function will be tried on

# %%
tile_sums = ...  # def tile_sums(q, k, stride): ...
check("xattention/reshape", tile_sums)

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("xattention/distances")
