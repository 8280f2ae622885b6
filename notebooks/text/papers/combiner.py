# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'A sparse pattern that gives every key weight: what it does not reach
#       directly, it reaches by regions.'
#     title: 'Combiner: full support at sparse cost'
#     thumbnail: 'record:cost/time?tokens=16384&method=dense (torch)|axial_rowmajor|logsparse|fixed'
# ---

# %% [markdown]
# # Combiner: full support at sparse cost
#
# Ren et al., *Combiner: Full Attention Transformer with Sparse Computation Cost*, 2021,
# [arXiv 2107.05768](https://arxiv.org/abs/2107.05768).
#
# This notebook is about one idea: to attend to a key that is far away, first weigh the *region* that it belongs to,
# then the key inside it. By the end you will have seen a matrix without a single zero that costs far less than full
# attention, and small models that predict better with it than with the sparse pattern that it came from.
#
# Numbers carry a label. **counted** follows from structure, **measured** needed a clock or trained weights.
# Keep your changes in your own copy: `workbench copy combiner`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from widgets.theme import template
from workbench.app.notebook import claims, pictures, show, table
from workbench.explorers.attention.source import load_input
from workbench.models.attention.dense_attention import attention_weights, dense_attention

STEPS = {"tiny": 5, "small": 200, "full": 1500}[os.environ.get("WORKBENCH_SIZE", "small")]


# %% [markdown]
# ## 1. The question
#
# Full attention compares every position with every earlier one: $L^2 / 2$ pairs. Sparse patterns allow only some of
# them, for instance the own segment of $s$ tokens and the last token of each earlier segment. All other pairs get
# weight zero, whatever the text is.
#
# How much attention is lost by that? Take a head of a small language model on held-out text.

# %%
given_head = load_input("lm", tokens=64, layer=2, head=3)
q, k = given_head.q, given_head.k
true = attention_weights(q, k)[0, 0]
given_head.title

# %%
from workbench.models.attention.combiner import sparse_counterpart_mask

SEGMENT = 8
pattern = sparse_counterpart_mask("fixed", 64, SEGMENT)
pictures(
    {"true attention": true.sqrt(), "what the fixed pattern allows": pattern * true.numpy() ** 0.5},
    "Left the attention of 64 tokens, right the same with most earlier positions cut out.",
)

# %%
lost = float((true * ~torch.from_numpy(pattern)).sum() / true.sum())
assert 0 < lost < 1
f"{pattern.sum() / (64 * 65 / 2):.0%} of the causal pairs allowed; {lost:.0%} of this head's attention lost (measured)"

# %% [markdown]
# In a deep model, information can pass from layer to layer until it arrives. Can a *single* layer connect all
# positions, at the cost of a sparse one?

# %% [markdown]
# ## 2. The picture
#
# Keep the direct keys, and divide all others into **regions**. A position attends to a region as to one key. The value
# of a region is a summary that is *the same for all positions*, so it is computed once.
#
# The picture below shows how five patterns divide the keys of one position. Direct keys are numbered 0, regions 1, 2,
# and so on.

# %%
from workbench.models.attention.combiner import support


def view_of(pattern, i, length=64, segment=SEGMENT):
    where = support(pattern, length, segment)
    row = np.full(length, np.nan)
    row[where["direct"][i]] = 0
    for number, region in enumerate(where["regions"][i], start=1):
        row[region] = number
    return row


names = ("fixed", "logsparse", "axial_rowmajor", "axial_vertical", "axial_horizontal")
figure = go.Figure(go.Heatmap(z=[view_of(name, 53) for name in names], y=names, colorscale="Turbo", xgap=1, ygap=6))
figure.update_layout(height=340, xaxis_title="position", yaxis_autorange="reversed")
show(figure, "Five ways to divide the past of position 53 into direct keys and regions; the future stays empty.")

# %% [markdown]
# - **fixed**: the own segment is attended directly, and every earlier segment is a region.
# - **logsparse**: only the position itself is attended directly; the size of the regions doubles with the distance.
# - **axial**: the 64 positions are laid out as 8 rows of 8. The own row and the column above are attended directly. The
#   rest is divided by columns (*vertical*), by rows left and right (*horizontal*), or in both ways (*mixture*).
#
# For logsparse the binary digits of the position give the regions. Try other numbers.

# %%
i = 53
f"{i} = {bin(i)[2:]} in binary", [(int(r[0]), int(r[-1]) + 1) for r in support("logsparse", 64)["regions"][i]]

# %% [markdown]
# Each digit 1 gives one region of that size, and together they cover every position before $i$ exactly once. The
# mixture is the exception: it reaches every far position twice, by its column and by its row.

# %%
for i, regions in enumerate(support("logsparse", 64)["regions"]):
    assert sorted(np.concatenate([*regions, [i]])) == list(range(i + 1))

# %% [markdown]
# ## 3. The formula and its reference
#
# Attention is an expectation: $o_i = \sum_j p(j \mid i)\, v_j$. Split it by the place of $j$:
#
# $$o_i = \sum_{j \in \text{direct}} p(j \mid i)\, v_j
# + \sum_{r} p(r \mid i) \underbrace{\sum_{j \in r} p(j \mid r)\, v_j}_{v_r}$$
#
# What makes it cheap is that $p(j \mid r)$ has *no* $i$: all positions share it. It is the attention of the region as a
# whole, whose query has the largest value of each coordinate over its queries (already divided by $\sqrt d$):
#
# $$q_r = \max_{j \in r} q_j, \quad k_r = \max_{j \in r} k_j, \quad
# p(j \mid r) = \mathrm{softmax}_{j \in r}(q_r \cdot k_j)$$
#
# Then **one** softmax weighs direct keys ($q_i \cdot k_j$) and regions ($q_i \cdot k_r$) against each other. For one
# position, the definition reads:


# %%
def one_position(i, q, k, v, where):
    keys, values = [k[where["direct"][i]]], [v[where["direct"][i]]]
    for region in where["regions"][i]:
        inside = torch.softmax(k[region] @ q[region].amax(0), 0)
        keys.append(k[region].amax(0)[None])
        values.append((inside @ v[region])[None])
    return torch.softmax(torch.cat(keys) @ q[i], 0) @ torch.cat(values)


# %% [markdown]
# If all logits are equal, the weights can be worked out by hand. Take sixteen positions, segments of four, and position
# 9. Its two regions and two direct keys are four slots, so each gets a quarter, and the four keys of a region share its
# quarter.

# %%
zero, eye = torch.zeros(16, 3, dtype=torch.float64), torch.eye(16, dtype=torch.float64)
row = one_position(9, zero, zero, eye, support("fixed", 16, 4))
assert torch.allclose(row, torch.tensor([1 / 16] * 8 + [1 / 4] * 2 + [0] * 6, dtype=torch.float64))
row

# %% [markdown]
# Note two things. The row sums to one, so it *is* a distribution. And a region counts once, whatever its size, while
# full attention would give each of the ten keys a tenth.

# %% [markdown]
# ## 4. The fast form
#
# The fast form computes all positions at once and never forms a matrix of $L \times L$. It must agree with the
# definition for each pattern whose summaries are as above.

# %%
from workbench.models.attention.combiner import PATTERNS, combiner_attention

rng = torch.Generator().manual_seed(0)
a, b, c = (torch.randn(1, 1, 61, 6, generator=rng, dtype=torch.float64) for _ in range(3))
for name in ("fixed", "logsparse", "axial_mixture", "axial_vertical", "axial_horizontal"):
    fast = combiner_attention(a, b, c, pattern=name, seg_len=8)[0, 0]
    where = support(name, 61, 8)
    slow = torch.stack([one_position(i, a[0, 0] / 6**0.5, b[0, 0], c[0, 0], where) for i in range(61)])
    assert torch.allclose(fast, slow, rtol=1e-12)

# %% [markdown]
# With unit vectors as values, the output is the matrix that the values are multiplied with: the **effective
# attention**.

# %%
from workbench.models.attention.combiner import effective_attention

effective = {name: effective_attention(q, k, pattern=name, seg_len=SEGMENT)[0, 0] for name in PATTERNS}
shown = {"true attention": true, "Combiner, fixed": effective["fixed"], "Combiner, mixture": effective["axial_mixture"]}
pictures(
    {name: matrix.sqrt() for name, matrix in shown.items()},
    "Three maps: the Combiner ones repeat a pattern inside far regions, and have no hole.",
)

# %%
lower = torch.ones(64, 64, dtype=torch.bool).tril()
for matrix in effective.values():
    assert (matrix[lower] > 0).all() and (matrix[~lower] == 0).all()
    assert torch.allclose(matrix.sum(1), torch.ones(64), atol=1e-5)

# %% [markdown]
# **First insight: there is not one zero below the diagonal.** The price is visible, too: inside a far region every row
# has the same profile, and only its total weight differs.
#
# At both ends of the scale Combiner is full attention. With segments of one token every region is a single key; with
# one segment for the whole text there is no region.

# %%
v = given_head.v
for segment in (1, 64):
    out = combiner_attention(q, k, v, pattern="fixed", seg_len=segment)
    assert torch.allclose(out, dense_attention(q, k, v), atol=1e-5)

# %% [markdown]
# ## 5. Play
#
# 1. Change *Segment* from 1 to 64. Where is the effective attention (right) furthest from the true one (left)?
# 2. Choose the log-sparse factorisation. Which keys are still attended directly?
# 3. Compare with another method, such as XAttention. What does each of them lose?

# %%
from workbench.papers import get

get("combiner").view(tokens=64, layer=2, head=3, segment_tokens=8)

# %% [markdown]
# The next picture answers question 1 with a curve, beside the multiply-adds that it costs.

# %%
from kernels.attention.cost import dense_pairs
from workbench.models.attention.combiner import multiply_adds

head = load_input("lm", tokens=256, layer=2, head=3)
dense = attention_weights(head.q, head.k)
parts = [1, 2, 4, 8, 16, 32, 64, 128, 256]
distance = [float((effective_attention(head.q, head.k, seg_len=s) - dense).abs().sum(-1).mean()) for s in parts]
d = head.q.shape[3]
work = [multiply_adds("fixed", 256, d, s) / (2 * d * dense_pairs(256, causal=True)) for s in parts]
titles = ("distance of rows from true attention", "multiply-adds over dense (counted)")
figure = go.Figure().set_subplots(1, 2, subplot_titles=titles)
figure.add_scatter(x=parts, y=distance, row=1, col=1).add_scatter(x=parts, y=work, row=1, col=2)
figure.update_xaxes(type="log", title="segment length").update_layout(height=360, showlegend=False)
show(figure, "Distance is zero at both ends and largest between; the multiply-adds are fewest near the square root.")

# %% [markdown]
# **Second insight: exact at both ends, cheap in the middle.** The number of slots in the softmax is $s + L/s$, smallest
# at $s = \sqrt L$. Cost grows as $L \sqrt L$ for *fixed* and as $L \log L$ for *logsparse*.
#
# The distance in the middle is large, because this head was not trained with regions. The next section trains models
# with them.

# %% [markdown]
# ## 6. The experiment
#
# The data are pictures of handwritten digits, 8 by 8 pixels with 17 grey levels, as sequences in raster order. A model
# with one layer predicts each pixel from those before it. Only the attention differs; all have the same parameters.

# %%
from workbench.models.attention.combiner_layer import CombinerSelfAttention
from workbench.models.vision.pixel_model import bits_per_pixel, digits, draw, train

model = train(lambda: CombinerSelfAttention(64, 4, pattern="fixed", seg_len=8), steps=STEPS)
guessing = np.log2(17)
f"{STEPS} steps: {bits_per_pixel(model):.3f} bits per pixel on unseen digits (measured); guessing: {guessing:.3f}"

# %% [markdown]
# Hide the lower half of some digits, and let the model draw it.

# %%
given_digits = digits()[1][:8]
drawn = draw(model, given_digits, given=32)
rows = [torch.cat(list(x.view(-1, 8, 8)), dim=1) for x in (given_digits, drawn)]
figure = go.Figure(go.Heatmap(z=torch.cat(rows).numpy(), colorscale="gray", showscale=False))
figure.update_yaxes(autorange="reversed", showticklabels=False).update_xaxes(showticklabels=False)
show(figure.update_layout(height=280), "Above eight digits, below the same with lower halves drawn by the model.")

# %% [markdown]
# After so few steps the strokes are rough. `workbench run combiner` trains every pattern for 1,500 steps; from here on
# this notebook only reads its records.

# %%
from workbench import record

bits = [r for r in record.read("combiner", "pictures")["rows"] if r["quantity"] == "bits per pixel"]
by_method = {}
for r in bits:
    by_method.setdefault(r["method"], []).append(r["value"])
mean = {method: float(np.mean(values)) for method, values in by_method.items()}
seeds = len(by_method["full attention"])
pairs = {
    "fixed": ("fixed alone", "Combiner fixed"),
    "log-sparse": ("logsparse alone", "Combiner logsparse"),
    "axial, row-major": ("axial_mixture alone", "Combiner axial_rowmajor"),
    "axial, mixture": ("axial_mixture alone", "Combiner axial_mixture"),
}
table(
    [f"bits per pixel (measured, seeds: {seeds})", "pattern alone", "its Combiner", "share of the gap closed"],
    [
        [name, f"{mean[alone]:.3f}", f"{mean[ours]:.3f}", f"{(mean[alone] - mean[ours]) / (mean[alone] - full):.0%}"]
        for name, (alone, ours) in pairs.items()
        for full in [mean["full attention"]]
    ],
)

# %% [markdown]
# The last column asks how far each Combiner comes from its pattern alone (0%) to full attention (100%). The paper's own
# table allows the same comparison, and section 7 makes it.

# %%
ordered = dict(sorted(mean.items(), key=lambda item: -item[1]))
figure = go.Figure(go.Bar(x=list(ordered.values()), y=list(ordered), orientation="h"))
low, high = min(ordered.values()), max(ordered.values())
figure.update_xaxes(range=[low - 0.05, high + 0.02], title="bits per pixel (measured); the axis does not start at 0")
show(figure.update_layout(height=520, margin={"l": 220}), "Bars of bits per pixel, full attention the shortest.")

# %% [markdown]
# Full attention predicts best, and each Combiner is better than its pattern alone. The bars also show what the paper
# varies: regions by columns or by rows only, other summaries (a mean, a small network), the keys of rows. "Log size" is
# an extension of ours, a bonus for large regions.
#
# The second question is what patterns lose on heads that were not trained with them. The table is about MiniLM under a
# causal mask, with means over all heads.

# %%
found = {}
for r in record.read("combiner", "lost")["rows"]:
    found.setdefault(r["pattern"], {})[r["quantity"]] = r["value"]
quantities = list(next(iter(found.values())))
table(
    ["pattern (measured)", *quantities],
    [[pattern, *(f"{values[q]:.3f}" for q in quantities)] for pattern, values in found.items()],
)

# %% [markdown]
# The share outside is the attention that a sparse pattern cannot represent. Combiner gives every key some weight, but
# without training its rows are as far from the true ones. **Third insight: full support helps a model that is trained
# with it; it does not approximate one that is not.**
#
# The third question is the time over the length, for one head of width 32.

# %%
cost = record.read("combiner", "cost")
figure = go.Figure().set_subplots(1, 2, subplot_titles=("ms (measured)", "largest tensor, bytes (counted)"))
colours = dict(zip(dict.fromkeys(r["method"] for r in cost["rows"]), template().layout.colorway * 2, strict=False))
for at, quantity in enumerate(("time", "largest tensor"), start=1):
    for method, colour in colours.items():
        points = [(r["tokens"], r["value"]) for r in cost["rows"] if (r["method"], r["quantity"]) == (method, quantity)]
        x, y = zip(*points, strict=True)
        figure.add_scatter(x=x, y=y, name=method, row=1, col=at, showlegend=at == 1, line={"color": colour})
figure.update_xaxes(type="log", title="tokens").update_yaxes(type="log")
legend = {"orientation": "h", "y": -0.25}
show(
    figure.update_layout(height=440, legend=legend),
    "Dense attention's time rises most steeply; log-sparse regions' least.",
)

# %%
from workbench.papers.combiner.claims import growth

table(
    ["method", "exponent of time (measured)", "exponent of operations (counted)"],
    [[m, *(f"{growth(cost['rows'], quantity, m):.2f}" for quantity in ("time", "operations"))] for m in colours],
)

# %%
times = {r["method"]: r["value"] for r in cost["rows"] if r["quantity"] == "time" and r["tokens"] == 16384}
table(
    ["at 16,384 tokens (measured)", "ms", "over dense attention"],
    [[m, f"{ms:.0f}", f"{ms / times['dense (torch)']:.2f}x"] for m, ms in sorted(times.items(), key=lambda x: x[1])],
)

# %% [markdown]
# Compare with the bits per pixel above: the three Combiners with regions by columns, by rows, or both predict best, and
# take longest here. The mixture, which has both, took longer than dense attention at every length of the picture.

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
claims("combiner")

# %% [markdown]
# Perplexities and bits per dimension of the paper come from much larger models on Wiki-40B and CIFAR-10, its Tables 3
# and 1. Ours are digits and one layer, so only the comparison of a pattern with its Combiner can be set beside the
# paper's.
#
# Where ours differs: the number of log-sparse levels is the bit length of $L - 1$ (the released code misses a block for
# some lengths); axial patterns look both ways with maxima as they do one way (the released code sums there). Left out:
# regions found by clustering, and decoding step by step with kept summaries.

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("combiner/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** At which positions do the regions of this log-sparse position begin? Answer with an array in rising order.

# %%
from workbench.app.exercises import check, given, hint

i = given("combiner/tree")
i

# %%
answer = ...
check("combiner/tree", answer)

# %% [markdown]
# **2.** All logits are equal, and regions are fixed segments. Which weight does this position give to key 0?

# %%
i, segment = given("combiner/flat")
i, segment

# %%
answer = ...
check("combiner/flat", answer)

# %% [markdown]
# **3.** Given are the queries and keys of one region; the queries are not scaled yet. How is the weight of the region
# shared among its keys?

# %%
region_q, region_k = given("combiner/inside")
region_q, region_k

# %%
answer = ...
check("combiner/inside", answer)

# %% [markdown]
# **4.** Given are logits and values of some direct keys and some regions. What is the output?

# %%
near, far, near_values, far_values = given("combiner/joint")
near, far, near_values, far_values

# %%
answer = ...
check("combiner/joint", answer)

# %% [markdown]
# **5.** Which segment length, a divisor of this length, makes the softmax of the last position smallest?

# %%
length = given("combiner/segment")
length

# %%
answer = ...
check("combiner/segment", answer)

# %% [markdown]
# **6.** Given are queries, keys, a segment length and a position. What is its row of the effective attention matrix for
# fixed regions? Answer with all 24 entries.

# %%
own_q, own_k, segment, i = given("combiner/row")
own_q.shape, own_k.shape, segment, i

# %%
answer = ...
check("combiner/row", answer)

# %%
hint("combiner/row")
