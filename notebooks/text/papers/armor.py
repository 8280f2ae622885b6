# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: Two of every four weights must go. Put the matrix between two small ones that turn it first, and
#       search for all three, so that the same pattern fits better.
#     thumbnail: 'record:settings/relative proxy loss after a
#       round?layer=layers.0.query&block=32&seed=1&round=300&way=wrappers frozen|never|largest gradient|drawn, all
#       alike|by gradient, drawn'
#     title: 'ARMOR: a 2:4 matrix between two wrappers'
# ---

# %% [markdown]
# # ARMOR: a 2:4 matrix between two wrappers
#
# L. Liu, A. Liu, M. Wang, T. Zhao, L. F. Yang, *ARMOR: High-Performance Semi-Structured Pruning via Adaptive Matrix
# Factorization*, 2025, [arXiv 2510.05528](https://arxiv.org/abs/2510.05528).
#
# Hardware likes the pattern 2:4: of every four neighbouring weights two are zero. Models like it less. This paper keeps
# the pattern and changes what is pruned: not the weight matrix, but a matrix between two block-diagonal ones. By the
# end you will have pruned by hand, chosen a pair of places exactly, and watched a loss move that could not move before.
#
# Numbers carry a label. **counted** follows from structure, **measured** needed a clock or trained weights. Keep your
# changes in your own copy: `workbench copy armor`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench import record
from workbench.app.notebook import claims, pictures, show, table

ROUNDS = {"tiny": 20, "small": 200, "full": 400}[os.environ.get("WORKBENCH_SIZE", "small")]
BLOCK = 16

# %% [markdown]
# ## 1. The question
#
# Take a layer of a sentence encoder that ships with the workbench, and what its inputs are like on real text: $h_j$ is
# twice the mean square of input $j$. It says how much an error in column $j$ of the weights is felt.

# %%
from workbench.data import text
from workbench.models.compression.armor import nowag_normalize, nowag_p
from workbench.models.compression.armor_linear import hessian_diag
from workbench.models.language import small_encoder
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers

NAME = "layers.0.query"
model = small_encoder.load()
batches = list(model.windows(text.sample(12_000)[0], 64).split(16))
w = linear_layers(model)[NAME].weight.detach().numpy()  # (outputs, inputs)
h = hessian_diag(gather_statistics(model, batches)[NAME])
pruned = nowag_p(w, h)
f"{w.shape[0]} x {w.shape[1]}, half of them stay, and {pruned.loss:.1%} of the loss of no weights at all (measured)"

# %% [markdown]
# Its first group of four weights in three rows, and which two *NoWag-P* keeps: the two that are worth most, where a
# weight is worth $h_j$ times its square, after columns and rows have been scaled to length 1.

# %%
normal, rows_scale, columns_scale = nowag_normalize(w)
worth = h[:4] * normal[:3, :4] ** 2
table(
    ["row", *(f"input {j}" for j in range(4))],
    [
        [i, *(f"**{x:.1e}** stays" if kept else f"{x:.1e}" for x, kept in zip(worth[i], pruned.mask[i], strict=False))]
        for i in range(3)
    ],
)

# %% [markdown]
# Nothing better can be had: the loss is a sum over weights, and in every group the two largest terms are saved. To move
# a value or to choose another pair can only hurt. **The question: with the same pattern, how can the loss still fall?**

# %% [markdown]
# ## 2. The picture
#
# Do not prune the matrix. Write it as a product $A\,(S \circ M)\,B$. The 2:4 matrix in the middle is the *core*. $A$
# and $B$, the *wrappers*, have small blocks on their diagonals and are unit matrices at first. A wrapper mixes
# neighbouring rows or columns, so a weight that must be zero in the core need not be zero in the product.

# %%
from scipy import linalg

from workbench.models.compression.armor import armor_factorize, trace

factors = armor_factorize(w, h, BLOCK, iters=ROUNDS)
core = factors.core.to_dense()
left = linalg.block_diag(*factors.left) / rows_scale[:, None]
right = linalg.block_diag(*factors.right) / columns_scale
pictures({"A": left, "core, 2:4": core, "B": right}, "Two block-diagonal wrappers and a core of which half is zero.",
         root=True)  # fmt: skip

# %% [markdown]
# The search that found them takes many small steps. This is its loss, beside the one that could not move:

# %%
shown = trace(w, h, BLOCK, iters=ROUNDS, every=max(1, ROUNDS // 20))
figure = go.Figure(go.Scatter(y=shown["history"], name="between wrappers"))
figure.add_hline(y=pruned.loss, line_dash="dash", annotation_text="NoWag-P, 2:4")
figure.update_layout(xaxis_title="round", yaxis_title="relative loss (measured)", yaxis_rangemode="tozero", height=320)
show(figure, "The relative loss by round falls far below that of NoWag-P, a line.")

# %% [markdown]
# **First insight: the pattern was not the limit, the basis was.** The core holds as many values as before. What the
# wrappers cost is small, and it is counted:

# %%
bits = factors.bits()
bits["together"] = sum(bits.values())
table(
    ["part", "bits (counted)", "of the dense matrix"],
    [[kind, f"{x:,}", f"{x / (16 * w.size):.1%}"] for kind, x in bits.items()],
)

# %% [markdown]
# In a matrix of width 4,096 with blocks of 128 the wrappers are a sixteenth of the weights; in this small one they
# weigh more.
#
# Which weights stay changes on the way. Grey weights stayed in NoWag-P as well, orange ones are new.

# %%
GREY, ORANGE = np.array([150, 150, 150], np.uint8), np.array([213, 94, 0], np.uint8)


def mask_picture(now, first):
    image = np.full((*now.shape, 3), 255, np.uint8)
    image[now & first], image[now & ~first] = GREY, ORANGE
    return image[:64, :64]


masks, changed = shown["masks"], shown["changed"]
images = {
    f"round {shown['rounds'][i]}: {changed[i]:.0%} of the groups": mask_picture(masks[i], masks[0])
    for i in (0, len(masks) // 4, len(masks) - 1)
}
pictures(images, "A corner of the mask at three rounds; weights that stay now and not in NoWag-P are orange.")

# %%
figure = go.Figure()
for i, name in enumerate(("A", "B")):
    figure.add_scatter(x=shown["rounds"], y=shown["drift"][:, i], name=f"{name} from the unit matrix")
figure.add_scatter(x=shown["rounds"], y=shown["changed"], name="share of groups chosen anew", line_dash="dot")
figure.update_layout(xaxis_title="round", yaxis_title="relative size, and share (measured)", height=300)
show(figure, "How far both wrappers are from unit matrices by round, and the share of groups with other places.")

# %% [markdown]
# ## 3. The formula and its reference
#
# With $\bar W$ the normalised weights, $W = \mathrm{diag}(r)\, \bar W\, \mathrm{diag}(c)$, the loss is
#
# $$\ell = \sum_{ij} h_j \big(\bar W - A\,(S \circ M)\,B\big)_{ij}^2$$
#
# Each round has two parts. A *gradient step* moves $A$, $B$ and the values of $S$ a little. Then, in each pair of a
# block of $A$ and a block of $B$, one *group* of the core is drawn and chosen anew, exactly. Let $a$ be the column of
# $A$ that the group's row meets, and $L$ the four rows of $B$ that it meets, times $\sqrt{h}$. With the group taken
# out, a matrix $R$ is missing. For a pair $P$ of places the best values and what they save are
#
# $$v = \frac{(L_P L_P^T)^{-1} f_P}{\|a\|^2}, \qquad \frac{f_P^T (L_P L_P^T)^{-1} f_P}{\|a\|^2}, \qquad f = L\, R^T a$$
#
# There are six pairs. Try all of them by least squares, on numbers:

# %%
from itertools import combinations

rng = np.random.default_rng(0)
a, lines, missing = rng.standard_normal(3), rng.standard_normal((4, 3)), rng.standard_normal((3, 3))


def tried(pair):
    basis = np.stack([np.outer(a, lines[i]).ravel() for i in pair], 1)
    values, *_ = np.linalg.lstsq(basis, missing.ravel(), rcond=None)
    return np.square(missing.ravel() - basis @ values).sum(), values


f = lines @ missing.T @ a
pairs = list(combinations(range(4), 2))
saved = [f[list(p)] @ np.linalg.solve(lines[list(p)] @ lines[list(p)].T, f[list(p)]) / (a @ a) for p in pairs]
assert np.allclose(np.square(missing).sum() - saved, [tried(p)[0] for p in pairs])
f"best pair: {pairs[int(np.argmax(saved))]}, by the formula and by least squares (counted)"

# %% [markdown]
# And here is one group of the real core: the loss with each of its six pairs. The orange one is in the core now.

# %%
from workbench.models.compression.armor import group_losses

row, group = 0, 0
losses = group_losses(w, h, factors, row, group)
now = tuple(np.flatnonzero(core[row, 4 * group : 4 * group + 4]).tolist())
figure = go.Figure()
for name, some in (("the other five", set(losses) - {now}), ("in the core", {now})):
    figure.add_scatter(x=[str(p) for p in losses if p in some], y=[losses[p] for p in losses if p in some],
                       mode="markers", marker_size=14, name=name)  # fmt: skip
figure.update_xaxes(categoryorder="category ascending", title="places that stay")
figure.update_layout(yaxis_title="relative loss (measured)", yaxis_tickformat=".5f", height=300)
show(figure, f"Loss of six pairs of places in group {group} of row {row}; the pair {now} is in the core.")

# %% [markdown]
# ## 4. The fast form
#
# The product needs no dense matrix: the inputs meet $B$, the core and $A$, and one kernel does all three without
# writing anything in between. It must agree with the product of dense matrices.

# %%
x = rng.standard_normal((5, w.shape[1])).astype(np.float32)
dense_product = x @ factors.to_dense().T
assert np.abs(factors.matmul(x) - dense_product).max() < 1e-5 * np.abs(dense_product).max()
f"{factors.left.size + factors.right.size + factors.core.values.size:,} multiply-adds for a token, dense {w.size:,}"

# %% [markdown]
# The normalisers are inside the wrappers, so nothing else is stored. Take the wrappers away, that is, freeze them, and
# the search must stay where it began:

# %%
frozen = armor_factorize(w, h, BLOCK, iters=20, wrappers=False)
assert abs(frozen.loss - pruned.loss) < 1e-5 * pruned.loss
f"{pruned.loss:.4f} before, {frozen.loss:.4f} after 20 rounds with frozen wrappers (measured)"

# %% [markdown]
# One call puts the method into a model, also into yours. No training, only calibration text:

# %%
from workbench.models.compression.armor_linear import armor

compressed = armor(model, batches, block=BLOCK, iters=max(5, ROUNDS // 10))
with torch.no_grad():
    before, after = (torch.nn.functional.normalize(each(batches[0]).mean(1), dim=1) for each in (model, compressed))
f"cosine of sentence vectors before and after: {float((before * after).sum(1).mean()):.3f} (measured, on the same text)"

# %%
compressed.layers[0].feed_in

# %% [markdown]
# ## 5. Play
#
# The explorer factorises one layer while you turn the settings.
#
# 1. Open *How large the error is* and let the wrappers rest. What does the curve do?
# 2. Let them move again. Which costs more bytes: blocks of 8 or of 32? Which fits better?
# 3. Choose groups by *the largest gradient*, and then *by chance, by their gradient*. Which ends lower, and why?

# %%
from workbench.papers import get

get("armor").view()

# %% [markdown]
# Always the largest gradient is a trap: after its exact choice a group's kept weights have no gradient left, but the
# two that went still do. So the same groups come up again and again, and others wait for ever.

# %% [markdown]
# ## 6. The experiment
#
# `workbench run armor` repeats everything at full size and writes records; from here on this notebook only reads them.
# First what each part of the search is worth.


# %%
def recorded(experiment):
    try:
        return record.read("armor", experiment)["rows"]
    except FileNotFoundError:
        return []  # not run yet


def mean(rows, quantity, **labels):
    found = [
        r["value"] for r in rows if r["quantity"] == quantity and all(r.get(key) == x for key, x in labels.items())
    ]
    return np.mean(found) if found else np.nan


LOSS = "relative proxy loss after a round"
settings = recorded("settings")
cases = dict.fromkeys((r["way"], r["block"]) for r in settings)
lines = []
for way, block in cases:
    rounds = sorted({r["round"] for r in settings if r["way"] == way})
    losses_told = (mean(settings, LOSS, way=way, block=block, round=i) for i in rounds)
    lines.append([f"{way}, blocks of {block}, {rounds[-1]:,} rounds", *(f"{x:.4f}" for x in losses_told)])
table(["mean loss (measured)", "at first", "after a third", "after two thirds", "after all rounds"], lines)

# %% [markdown]
# Every matrix of two encoders, beside a fair rival: NoWag-P plus a matrix of low rank that makes up for what is
# missing, with as many bytes as the wrappers take.

# %%
MATRIX = "relative proxy loss of a matrix"
matrices = recorded("matrices")
ways = list(dict.fromkeys(r["method"] for r in matrices if r["quantity"] == MATRIX))
lines = []
for name, block in dict.fromkeys((r["model"], r["block"]) for r in matrices):
    means = (mean(matrices, MATRIX, model=name, block=block, method=x) for x in ways)
    lines.append([f"{name}, blocks or rank of {block}", *(f"{x:.4f}" for x in means)])
table(["mean loss (measured)", *ways], lines)

# %% [markdown]
# The last two columns carry a warning. A low-rank part that is sought once is far behind; sought in turns with the 2:4
# matrix, ten times, it leaves less than the wrappers at the same bytes. The paper does not compare the two.
#
# Whole models. All bytes are counted, those of the wrappers too, so compare at equal bytes.

# %%
judged = recorded("models")
names = {"dense": "dense", "nm_magnitude": "magnitude", "nm_wanda": "Wanda", "nm_sparsegpt": "SparseGPT",
         "nowag": "NoWag-P", "nowag_low_rank": "NoWag-P and low rank", "armor": "ARMOR", "wanda": "Wanda",
         "sparsegpt": "SparseGPT"}  # fmt: skip
points = dict.fromkeys((r["method"], r["level"]) for r in judged)
table(
    ["method, level (measured)", "bytes, encoder", "cosine, encoder", "bytes, language model", "perplexity"],
    [[f"{names[key]} {level}", *(f"{mean(judged, q, model=m, method=key, level=level):.3f}"
                                  for m, q in (("minilm", "share of the bytes stored"),
                                               ("minilm", "mean cosine of sentence vectors before and after"),
                                               ("tiny_lm", "share of the bytes stored"),
                                               ("tiny_lm", "perplexity of held-out text")))]
     for key, level in points if key != "dense"]
    + [["dense", "1", "1", "1", f"{mean(judged, 'perplexity of held-out text', method='dense'):.3f}"]],
)  # fmt: skip

# %% [markdown]
# **Second insight: look where SparseGPT stands.** It knows which inputs go together, the whole matrix $X^T X$, and
# mends the other weights each time one goes. ARMOR, as published, looks at the diagonal alone.
#
# And theory: with gradient steps on $A$, $B$ and $S$ in turn, each of a size that is safe, no step may raise the loss.

# %%
SWEEP = "relative proxy loss after a sweep"
sweeps = [r for r in recorded("convergence") if r["quantity"] == SWEEP]
figure = go.Figure()
for layer, method in dict.fromkeys((r["layer"], r["method"]) for r in sweeps):
    line = sorted((r["sweep"], r["value"]) for r in sweeps if (r["layer"], r["method"]) == (layer, method))
    figure.add_scatter(x=[i for i, _ in line], y=[x for _, x in line], name=f"{layer}, {method}")
figure.update_layout(xaxis_title="sweep", yaxis_title="relative loss (measured)", height=320)
show(figure, "The loss by sweep: sequential gradient descent and Adam.")

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
try:
    shown_claims = claims("armor")
except FileNotFoundError as missing_record:
    shown_claims = f"not all experiments have been recorded: {missing_record}"
shown_claims

# %% [markdown]
# *published* values were read in the abstract; those *from memory* stand in a summary of the paper and could not be
# checked. The step sizes of the sequential descent are our derivation. The authors take 20,000 rounds at a rate of
# $10^{-4}$; 300 at $10^{-3}$ get as far on these matrices.
#
# Left out: models of billions of parameters, tasks, and sparse tensor cores, whose speed no CPU shows.

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("armor/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** Which weights (from 0) does NoWag-P keep at 2:4? Give their numbers as a list. **2.** What is the upper right
# entry of the normalised matrix? Leave out the small number in the divisors.

# %%
from workbench.app.exercises import check, given, hint

given("armor/kept"), given("armor/normal")

# %%
kept, entry = ..., ...
check("armor/kept", kept)

# %%
check("armor/normal", entry)

# %% [markdown]
# **3.** How many bits does this layer take as a 2:4 matrix between wrappers, with 16 bits a value? **4.** And how many
# multiply-adds does a token take?

# %%
given("armor/bits"), given("armor/multiply_adds")

# %%
bits_stored, multiply_adds = ..., ...
check("armor/bits", bits_stored)

# %%
check("armor/multiply_adds", multiply_adds)

# %% [markdown]
# **5.** With $a = 1$, the loss of a group is $v^T Q v - 2 f^T v$ and a constant, $Q = L L^T$. Which two places (from 0)
# should stay? **6.** Write that choice: a function of `f` and `Q` that returns four values, two of them 0.

# %%
given("armor/pair")

# %%
pair = ...
check("armor/pair", pair)

# %%
given("armor/choose")  # seeds of the groups that your function will be tried on

# %%
choose = ...  # def choose(f, q): ...
check("armor/choose", choose)

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("armor/choose")
