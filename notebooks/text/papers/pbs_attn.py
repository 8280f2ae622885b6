# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'Sort the keys inside segments, and a few blocks hold most of the
#       attention: the same result, fewer blocks.'
#     title: 'PBS-Attn: sort the keys, then skip blocks'
#     thumbnail: 'record:speed/time?tokens=16384&segment=1024&method=dense (torch)|not sorted|sorted (PBS-Attn)'
# ---

# %% [markdown]
# # PBS-Attn: sort the keys, then skip blocks
#
# Wang et al., *Sparser Block-Sparse Attention via Token Permutation*, 2025,
# [arXiv 2510.21270](https://arxiv.org/abs/2510.21270).
#
# This notebook is about one idea: attention does not depend on the order of the keys. So put them in an order that
# suits the blocks. By the end you will have seen scattered lines gathered in a thin stripe, more attention in the same
# number of blocks, and inputs on which all of this costs more than it saves.
#
# Numbers carry a label. **counted** follows from structure, **measured** needed a clock or trained weights.
# Keep your changes in your own copy: `workbench copy pbs_attn`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
from IPython.display import Markdown
import torch

from widgets.theme import template
from workbench.app.notebook import claims, pictures, show, table
from workbench.data.attention_patterns import heavy_hitters
from workbench.models.attention.dense_attention import attention_weights, dense_attention, masked_attention

TOKENS = {"tiny": 1024, "small": 2048, "full": 4096}[os.environ.get("WORKBENCH_SIZE", "small")]


# %% [markdown]
# ## 1. The question
#
# A query $q_i$ attends to every key before it:
#
# $$o_i = \sum_{j \le i} a_{ij} v_j, \qquad
# a_{ij} = \frac{e^{q_i \cdot k_j / \sqrt d}}{\sum_{l \le i} e^{q_i \cdot k_l / \sqrt d}}$$
#
# Most $a_{ij}$ are almost zero. Hardware cannot skip single pairs; it skips whole **blocks** of, say, 64 queries by 64
# keys. How many blocks can be skipped?
#
# That depends on where the large weights are. Here is one head whose queries all attend to the same few keys: one key
# in sixteen, at random positions. (A generator makes this head; section 6 is about real ones.)

# %%
q, k = heavy_hitters(256, share=1 / 16, seed=1)
weights = attention_weights(torch.from_numpy(q), torch.from_numpy(k))[0, 0].numpy()
pictures({"attention, 256 tokens": np.sqrt(weights)}, "A few dark vertical lines: keys that all queries attend to.")

# %% [markdown]
# These heavy keys are vertical lines. They hold nearly all of the attention. Now divide the map into blocks of 16 by
# 16, and count the blocks that a line passes through.

# %%
BLOCK, SEGMENT = 16, 64
heavy = k[0, 0, :, 0] > 8
touched = heavy.reshape(-1, BLOCK).any(axis=1)
int(heavy.sum()), int(touched.sum()), len(touched)

# %% [markdown]
# The three numbers are the heavy keys, the block columns that contain one, and all block columns. Nearly every heavy
# key makes another block column necessary. If they stood side by side, one column would be enough.

# %% [markdown]
# ## 2. The picture
#
# So put them side by side. Sort the keys by the attention that they get, and move each value along with its key.
#
# Causality forbids sorting all of them: a query may not attend to keys that come after it. A late key that moved to the
# front would put forbidden pairs into every block there. So keys are sorted **inside segments** of a few blocks. A key
# never leaves its segment, so nothing changes about which earlier segments a query may attend to.
#
# How much attention does a key get? Only the last block of queries is used to estimate it.

# %%
from workbench.models.attention.pbs_attn import key_scores, query_aware_permutation

scores = key_scores(q, k, block_size=BLOCK, segment_size=SEGMENT)[0, 0]
order = query_aware_permutation(q, k, block_size=BLOCK, segment_size=SEGMENT)[0, 0]
order[:SEGMENT]  # slot -> original position, in the first segment

# %%
pictures(
    {"keys as they came": np.sqrt(weights), "keys sorted inside segments of 64": np.sqrt(weights[:, order])},
    "Left scattered vertical lines, right one thin dark stripe at the start of each segment of 64 keys.",
)

# %% [markdown]
# The lines have moved to the left edge of each segment. Now look at the diagonal of the right picture. Inside the
# segment of the query itself, the border between past and future is no longer straight. So the blocks of this segment
# are always computed, with a mask for single pairs.
#
# Count again how many block columns contain a heavy key.

# %%
from workbench.models.attention.segment_order import segment_permutation_is_valid

assert segment_permutation_is_valid(order, SEGMENT)
gathered = heavy[order].reshape(-1, BLOCK).any(axis=1)
assert gathered.sum() < touched.sum()
int(touched.sum()), int(gathered.sum())

# %% [markdown]
# **First insight: the attention is the same and only the order of its keys is different, but fewer blocks matter.**

# %% [markdown]
# ## 3. The formula and its reference
#
# Why is this allowed? A sum does not depend on the order of its terms. For every order $p$ of the keys
#
# $$\mathrm{Attn}(Q, K_p, V_p) = \mathrm{Attn}(Q, K, V)$$
#
# and queries in another order give the same rows in that order, $\mathrm{Attn}(Q_p, K, V) = \mathrm{Attn}(Q, K, V)_p$.

# %%
rng = torch.Generator().manual_seed(0)
x, y, z = (torch.randn(1, 1, 50, 8, generator=rng, dtype=torch.float64) for _ in range(3))
p = torch.randperm(50, generator=rng)
plain = dense_attention(x, y, z, causal=False)
assert torch.allclose(dense_attention(x, y[:, :, p], z[:, :, p], causal=False), plain, rtol=1e-12)
assert torch.allclose(dense_attention(x[:, :, p], y, z, causal=False), plain[:, :, p], rtol=1e-12)

# %% [markdown]
# This is the whole method, for $L$ tokens, blocks of $B$ and segments of $M$:
#
# 1. **Score keys.** $s_j$ is the mean over the last $B$ queries of their softmax over all keys, without a causal mask.
# 2. **Sort** each segment by $s_j$, largest first, ties by position: an order $p$. Values move along.
# 3. **Estimate blocks.** Means $\bar q_I$ and $\bar k_J$ of every block; softmax over $J$ of
#    $\bar q_I \cdot \bar k_J / \sqrt d$, taken over the blocks of *earlier segments* only.
# 4. **Keep** the fewest of them, largest first, that together reach the share $\tau$; the whole segment of the query
#    itself; and the block that now holds token 0.
# 5. **Attend** exactly over what was kept. In the query's own segment a pair counts only if the key's *original*
#    position is not later than the query.
#
# Here is step 4 in plain Python, for one row of estimates:


# %%
def kept(estimates, tau):
    by_size = np.argsort(-estimates, kind="stable")
    reached = np.cumsum(estimates[by_size])
    return by_size[: int(np.searchsorted(reached, tau)) + 1]  # the block that crosses tau is kept too


kept(np.array([0.1, 0.5, 0.15, 0.25]), tau=0.7)

# %% [markdown]
# The result must equal dense attention in which every pair outside the kept blocks is masked. This is the reference. It
# forms all $L^2$ pairs, which the fast form never does.

# %%
import inspect

Markdown(f"```python\n{inspect.getsource(masked_attention)}```")

# %% [markdown]
# ## 4. The fast form
#
# The kernel takes sorted keys, the mask of blocks, and the original position of each key. It streams over the kept
# blocks only.

# %%
from workbench.models.attention.pbs_attn import computed_density, pbs_attention, token_mask

v = torch.randn(1, 1, 256, 64, generator=rng)
how = {"block_size": BLOCK, "segment_size": SEGMENT}
out, mask = pbs_attention(q, k, v, threshold=0.5, **how)
pairs = token_mask(mask, 256)
assert torch.allclose(out, masked_attention(torch.from_numpy(q), torch.from_numpy(k), v, pairs), atol=1e-5)
f"{computed_density(mask):.0%} of the causal pairs computed: {pairs.sum():,} of {256 * 257 // 2:,} (counted)"

# %% [markdown]
# The rows of the output are in the order of the queries, so nothing has to be sorted back. And with every block kept,
# sorting changes nothing.

# %%
everything, _ = pbs_attention(q, k, v, threshold=1.0, **how)
assert torch.allclose(everything, dense_attention(torch.from_numpy(q), torch.from_numpy(k), v), atol=1e-5)

# %% [markdown]
# The next pictures show one mask in both orders. In the order of the sorted keys the computed pairs form solid blocks,
# which are what the kernel computes. In the original order the same pairs are scattered.

# %%
in_order, as_they_came = pairs[0, 0][:, order] * 1.0, pairs[0, 0] * 1.0
pictures(
    {"pairs computed, keys sorted": in_order, "the same pairs, keys in the original order": as_they_came},
    "Left solid squares, right the same pairs scattered into columns.",
)

# %% [markdown]
# The choice must be cheap, or nothing is gained. It needs the attention of one block of queries, and one mean per
# block:

# %%
from workbench.models.attention.pbs_attn import scoring_multiply_adds

table(
    ["tokens", "multiply-adds to choose (counted)", "all of q k^T", "share"],
    [
        [f"{t:,}", f"{scoring_multiply_adds(t, 64, block_size=128, segment_size=256):,}", f"{t * t * 64:,}",
         f"{scoring_multiply_adds(t, 64, block_size=128, segment_size=256) / (t * t * 64):.2%}"]
        for t in (2048, 8192, 32768, 131072)
    ],
)  # fmt: skip

# %% [markdown]
# ## 5. Play
#
# The left picture has the keys in their original order, the right one in the order of the method.
#
# 1. Change *Sorting* from "no sorting" to "keys by the last queries' attention" at the same threshold. What happens to
#    density and coverage?
# 2. Increase *Segment*. Longer segments gather the heavy keys better. What grows at the diagonal?
# 3. Choose the tiny language model as input and look for vertical lines. Does sorting still pay?

# %%
from workbench.papers import get

get("pbs_attn").view(tokens=512, block=32, segment_blocks=4, threshold=0.5)

# %% [markdown]
# The next picture answers question 1 with curves, on a longer input.

# %%
from workbench.models.attention.pbs_attn import coverage_curve

long_q, long_k = heavy_hitters(TOKENS, seed=1)
taus = np.linspace(0, 1, 21)
curves = {
    order: coverage_curve(long_q, long_k, taus, block_size=32, segment_size=256, permute=order)
    for order in ("none", "random", "keys")
}
figure = go.Figure(
    [
        go.Scatter(x=d, y=c, name=name, text=[f"threshold {t:.2f}" for t in taus])
        for name, (d, c) in zip(("not sorted", "random order", "sorted"), curves.values(), strict=True)
    ]
)
figure.update_layout(xaxis_title="density (counted)", yaxis_title="attention covered (counted)", height=380)
show(figure, "At equal density the curve of sorted keys lies above the others, which lie together.")

# %% [markdown]
# **Second insight: what helps is that heavy keys are gathered, not that the order changes.** A random order inside the
# segments does no better than the original one.
#
# For question 2, compare the same curve for shorter and longer segments, and the cost of the diagonal segments alone.

# %%
rows = []
for segment in (64, 128, 256, 512):
    d, c = coverage_curve(long_q, long_k, taus, block_size=32, segment_size=segment)
    enough = int(np.argmax(c >= 0.95))
    rows.append([segment, f"{d[0]:.0%}", f"{d[enough]:.0%}", f"{c[enough]:.1%}"])
table(["segment", "density of what is forced", "density that covers 95 %", "covered (counted)"], rows)

# %% [markdown]
# **Third insight: segments have a price.** Sorting needs long segments, but the blocks of the query's own segment are
# always computed. With sorted keys, blocks right of the diagonal hold pairs as well, about $M/L$ as many as dense
# attention has in all. PBS-Attn is a method for long inputs.

# %% [markdown]
# ## 6. The experiment
#
# `workbench run pbs_attn` repeats everything on real heads and writes records; from here on this notebook only reads
# them. The first comparison gives each order the *same number of blocks* per row. Which order holds more of the true
# attention? MiniLM is an encoder; here its queries and keys get a causal mask.

# %%
from workbench import record

blocks = record.read("pbs_attn", "blocks")["rows"]


def held(**labels):
    found = [r["value"] for r in blocks if all(r[key] == value for key, value in labels.items())]
    return f"{np.mean(found):.3f}"


orders = ("not sorted", "random order", "sorted (PBS-Attn)")
settings = dict.fromkeys((r["input"], r["tokens"], r["block"], r["segment"], r["choice"]) for r in blocks)
names = ("input", "tokens", "block", "segment", "choice")
table(
    ["input", "tokens", "block", "segment", "blocks chosen by", *orders],
    [[*s, *(held(**dict(zip(names, s, strict=True)), share=0.25, order=o) for o in orders)] for s in settings],
)

# %% [markdown]
# A quarter of the off-segment blocks was kept in each row (measured, mean over all heads). "Best possible" chooses by
# the true attention: on MiniLM the gain is there too, so it lies in the order of the keys, not in a better guess.
#
# The tiny language model gives another result. Sorting is better than a random order, but the order of the text is
# better still. Its heads attend to neighbouring words together, and neighbours already share a block, until sorting
# separates them.
#
# The generator makes the heads that the method is meant for. What share of the off-segment blocks must be kept to hold
# 95 per cent of each row's off-segment attention?

# %%
needed = [r for r in record.read("pbs_attn", "generator")["rows"] if r["quantity"] == "blocks needed"]
cases = dict.fromkeys((r["heavy"], r["segment"]) for r in needed)


def mean_need(heavy, segment, order):
    same = [r for r in needed if (r["heavy"], r["segment"], r["order"]) == (heavy, segment, order)]
    return f"{np.mean([r['value'] for r in same if r['choice'] == 'block means']):.2f}"


table(
    ["heavy keys", "segment", *(f"{o} (counted)" for o in orders)],
    [[f"{h:.0%}", s, *(mean_need(h, s, o) for o in orders)] for h, s in cases],
)

# %% [markdown]
# With fewer heavy keys the gain is smaller: one per cent of the keys hold little more than nine tenths of the
# attention, and the rest is spread over all blocks.
#
# The next picture shows the method as it is used: with a threshold, and including the cost of the diagonal segments.

# %%
found = record.read("pbs_attn", "thresholds")["rows"]
points = {}
for r in found:
    curve = points.setdefault((r["input"], r["block"], r["method"]), {})
    curve.setdefault(r["threshold"], {})[r["quantity"]] = r["value"]
inputs = list(dict.fromkeys((i, b) for i, b, _ in points))
figure = go.Figure().set_subplots(2, 2, subplot_titles=[f"{i}, blocks of {b}" for i, b in inputs])
marks = dict(zip(dict.fromkeys(m for *_, m in points), ("circle", "square", "diamond", "x", "cross"), strict=True))
colours = dict(zip(marks, template().layout.colorway, strict=False))
for (i, b, m), curve in points.items():
    line = {"x": [p["blocks over dense"] for p in curve.values()], "y": [p["coverage"] for p in curve.values()]}
    row, col = divmod(inputs.index((i, b)), 2)
    style = {"marker": {"symbol": marks[m], "color": colours[m], "size": 9}, "line": {"color": colours[m]}}
    figure.add_scatter(**line, **style, name=m, row=row + 1, col=col + 1, showlegend=row + col == 0)
figure.update_layout(height=700, legend={"orientation": "h", "y": -0.18}, margin={"b": 120})
label = "(measured; generator: counted)"
figure.update_xaxes(title=f"blocks over those of dense attention {label}").update_yaxes(title=f"covered {label}")
show(figure, "Sorted keys lie above on the generator and below on short and on language-model heads.")

# %% [markdown]
# Look at the panels one by one. On the generator the sorted curve is far above the others. On 512 tokens of MiniLM and
# on the tiny language model it lies to the *right* of the unsorted one: the whole diagonal segments cost more than the
# better order saves. This is the limit of the method, and the reason why it is meant for contexts of many thousand
# tokens, with models whose heads have heavy keys.
#
# The next table is about a language model: bits per byte of held-out text, with the attention of every layer replaced.

# %%
language = record.read("pbs_attn", "language")["rows"]
columns = list(dict.fromkeys(r["threshold"] for r in language if r["method"] != "dense"))
cells = {(r["method"], r["threshold"]): f"{r['value']:.4f} at {r['blocks']:.0%}" for r in language}
dense = language[0]
Markdown(f"Dense attention: **{dense['value']:.4f}** bits per byte (measured), context {dense['context']:,}.")

# %%
methods = list(dict.fromkeys(r["method"] for r in language[1:]))
table(
    ["bits per byte at blocks over dense (measured)", *(f"threshold {t}" for t in columns)],
    [[m, *(cells[m, t] for t in columns)] for m in methods],
)

# %% [markdown]
# The last picture shows times. Each method uses the lowest threshold that still holds 95 per cent of the attention.

# %%
speed = record.read("pbs_attn", "speed")
times = {}
for r in speed["rows"]:
    if r["quantity"] == "time" and "deciding" not in r["method"]:
        times.setdefault((r["input"], r["tokens"], r["segment"]), {})[r["method"]] = r["value"]
contenders = ("dense (torch)", "not sorted", "sorted (PBS-Attn)")
table(
    ["input", "tokens", "segment", *(f"{c}, ms" for c in contenders), "dense / sorted"],
    [
        [*key, *(f"{found[c]:.1f}" for c in contenders), f"{found[contenders[0]] / found[contenders[2]]:.2f}"]
        for key, found in times.items()
    ],
)

# %%
cpu, first = speed["machine"]["cpu"], speed["rows"][0]
Markdown(f"Measured on {cpu}, {first['threads']} threads, medians of {first['rounds']} interleaved rounds.")

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
claims("pbs_attn")

# %% [markdown]
# The paper measures 8-billion-parameter models on LongBench at up to 128 thousand tokens; ours is a model of seven
# million parameters at two thousand, and a generator. What can be compared is the mechanism: the identities, the effect
# of sorting at equal budgets, and the inputs on which it no longer pays.
#
# Where ours differs: if the estimates never reach the threshold, the released code keeps nothing in that row, ours
# keeps everything that may be kept. One segment alone is attended densely, as in the code. Sorting queries as well is
# ours for teaching (*Sorting* in section 5), and so is sorting without causality.
#
# One limit is easy to overlook: the order is computed from the *last* queries. So the method works for a prompt, whose
# last queries are known, and not for an answer that is generated token by token.

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("pbs_attn/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** These are scores of keys. Sort them inside segments of the given length, largest first, ties by position. Keys
# after the last full segment keep their order. Answer with an array: slot -> original position.

# %%
from workbench.app.exercises import check, given, hint

scores, segment = given("pbs_attn/order")
scores, segment

# %%
answer = ...
check("pbs_attn/order", answer)

# %% [markdown]
# **2.** Heavy keys are at these positions. How many blocks contain at least one of them before sorting, and how many
# after? Answer with a tuple of two.

# %%
wanted, tokens, block, segment = given("pbs_attn/columns")
wanted, tokens, block, segment

# %%
answer = ...
check("pbs_attn/columns", answer)

# %% [markdown]
# **3.** Given are the estimates of one row of blocks, and a threshold. How many blocks does the selection keep?

# %%
estimates, tau = given("pbs_attn/threshold")
estimates, tau

# %%
answer = ...
check("pbs_attn/threshold", answer)

# %% [markdown]
# **4.** How many pairs of blocks (query block, key block) may the selection choose from at all, in the whole mask?
# (Only blocks of earlier segments can be chosen.)

# %%
blocks, blocks_per_segment = given("pbs_attn/eligible")
blocks, blocks_per_segment

# %%
answer = ...
check("pbs_attn/eligible", answer)

# %% [markdown]
# **5.** Given are an order (slot -> original position), a mask of kept blocks, a block size, and a query. How many keys
# does this query really attend to?

# %%
order, keep, block, query = given("pbs_attn/pairs")
order, keep, block, query

# %%
answer = ...
check("pbs_attn/pairs", answer)

# %% [markdown]
# **6.** Given are three inputs with their block and segment sizes. On which does sorting lower the density that is
# needed to cover 95 per cent of the attention? Guess from the attention maps (every fourth token); then use
# `coverage_curve`, thresholds in steps of 0.05. Answer with a tuple of three: True where it does.

# %%
cases = given("pbs_attn/pays")


def thumbnail(q, k, block, segment):
    return np.sqrt(attention_weights(torch.from_numpy(q), torch.from_numpy(k))[0, 0].numpy()[::4, ::4])


titles = [f"input {i}: segments of {case[3]}" for i, case in enumerate(cases, start=1)]
pictures(dict(zip(titles, (thumbnail(*case) for case in cases), strict=True)), "Attention maps of the three inputs.")

# %%
answer = ...
check("pbs_attn/pays", answer)

# %%
hint("pbs_attn/pays")
