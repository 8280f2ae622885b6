# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'Attention for pictures at the cost of a small window, with keys that
#       stand for the whole picture.'
#     title: 'FaViT: the whole picture at a window''s cost'
#     thumbnail: 'record:timing/time of one layer?side=224&attention=full attention,
#       fused kernel|FaSA, released|windows'
# ---

# %% [markdown]
# # FaViT: the whole picture at a window's cost
#
# H. Qin, D. Zhou, T. Xu, Z. Bian and J. Li, *Factorization Vision Transformer: Modeling Long Range Dependency with
# Local Window Cost*, 2023, [arXiv 2312.08614](https://arxiv.org/abs/2312.08614).
#
# A vision transformer divides a picture into patches and lets each one attend to the others. To attend to all of them
# is expensive. To attend inside small windows is cheap, but a patch then misses everything outside its window. FaViT
# keeps the cost of a window and reaches the whole picture. The idea fits in one sentence, and you will build it in five
# lines.
#
# Numbers carry a label: **counted** follows from structure, **measured** needed a clock or trained weights.
# Keep your changes in your own copy: `workbench copy favit`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench.app.notebook import claims, pictures, show, table
from workbench.explorers.attention.source import load_input
from workbench.models.attention.pixel_readings import pixel_readings

SIDE = 56
STEPS = {"tiny": 2, "small": 60, "full": 200}[os.environ.get("WORKBENCH_SIZE", "small")]


# %% [markdown]
# ## 1. The question
#
# Here is a photograph in 56 x 56 patches, the size on which the first stage of a vision transformer works. Each patch
# has eight numbers: its mean colour, the spread of its colours, and its edges.

# %%
given = load_input("astronaut")
tokens = given.q[0, 0].numpy()  # (3136, 8)
given.title, tokens.shape


# %%
def readings_of(row, column):
    return pixel_readings(tokens, SIDE, SIDE, row * SIDE + column)


query = 14 * SIDE + 24  # row 14, column 24: her face
full = readings_of(14, 24)[0]
pictures(
    {"photograph": given.picture, "full attention": full.heat},
    "The photograph, and the attention of a patch on the face.",
)

# %% [markdown]
# The patch on the face attends to similar patches all over the picture, most of all in the helmet. To find them, it was
# compared with every patch:

# %%
n = SIDE * SIDE
table(
    ["", "keys per query", "scores in all (counted)"],
    [["all to all", f"{n:,}", f"{n * n:,}"], ["windows of 7 x 7", 49, f"{n * 49:,}"]],
)

# %% [markdown]
# Windows are 64 times cheaper, and they miss everything outside. **Can 49 keys stand for the whole picture?**

# %% [markdown]
# ## 2. The picture
#
# Put all windows on top of each other, like a stack of photographs, and average over the stack. The result is one 7 x 7
# grid of keys. Key number $r$ is the mean of the pixels at place $r$ of *every* window. Every query attends to these 49
# keys, and to nothing else.

# %%
from workbench.papers import get

get("favit").view(place=24)

# %% [markdown]
# The maps below are those of one pixel, on her face. The map of *FaSA, dilation 1* covers the whole picture; the last
# map shows its 49 keys. One key is marked, and rings show the pixels that it is made of: one in every window, at the
# same place. Point at another key, and the rings move. Click another pixel of a map to choose it as the query.
#
# *Dilation 8* takes every eighth pixel, so its windows are wider and fewer: its keys contain 6% of the pixels. A third
# group has keys that are averages of whole squares. The two large pictures above show the same for all 3,136 pixels at
# once: every row is a query, every column a pixel that it attends to.
#
# **First insight: the cost depends on the number of keys, not on where they come from.** A window uses its 49 keys for
# neighbours; FaSA uses them for the whole picture.

# %% [markdown]
# ## 3. The formula and its reference
#
# A window of $M \times M$ pixels at dilation $\delta$ spans $s = \delta (M - 1) + 1$ pixels. With $n_w$ windows,
#
# $$z_r = \frac{1}{n_w} \sum_{w} x_{\,w,r}, \qquad
# \text{out}_n = \mathrm{softmax}\!\left(\frac{q_n K^\top}{\sqrt d}\right) V, \qquad
# K, V \text{ from } z_1 \dots z_{M^2}$$
#
# Here is the fusion, for a map whose sides are multiples of the window:


# %%
def fuse(x, window, dilation=1):  # x: (height, width, channels)
    span = dilation * (window - 1) + 1
    down, across = x.shape[0] // span, x.shape[1] // span
    cut = x.reshape(down, span, across, span, -1)[:, ::dilation, :, ::dilation]  # (down, M, across, M, channels)
    return cut.mean((0, 2)).reshape(window * window, -1)


# %%
from workbench.models.attention.favit import factorized_keys

grid = tokens.reshape(SIDE, SIDE, 8)
keys = fuse(grid, 7)
fast = factorized_keys(torch.from_numpy(grid).permute(2, 0, 1)[None], window=7)
assert np.allclose(keys, fast[0, 0], atol=1e-5)
keys.shape

# %% [markdown]
# Now comes attention, and then the way back from keys to pixels: the weight of a key is divided equally among its
# pixels.


# %%
def reads(q, keys, window):
    logits = keys @ q / np.sqrt(len(q))
    p = np.exp(logits - logits.max())
    p = (p / p.sum()).reshape(window, window)
    windows = SIDE // window
    return np.tile(p, (windows, windows)) / windows**2  # (height, width)


heat = reads(tokens[query], keys, 7)
assert np.allclose(heat, readings_of(14, 24)[2].heat, atol=1e-7)
f"adds up to {heat.sum():.6f}"

# %% [markdown]
# ### What averaging loses
#
# Averaging pixels that are far apart loses detail: a key mixes 64 of them. Compare it with averaging neighbours, which
# keeps distant places apart. How similar to full attention is each?

# %%
names = [r.name for r in readings_of(27, 27)]


def likeness(a, b):
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


places = [(14, 24), (40, 10), (5, 50), (30, 30)]
seen = {place: readings_of(*place) for place in places}
table(
    ["query at (cosine to full attention, counted)", *names[1:]],
    [[place, *(f"{likeness(r[0].heat, x.heat):.2f}" for x in r[1:])] for place, r in seen.items()],
)

# %% [markdown]
# These are plain colours without any training. A trained layer has linear maps and convolutions before the fusion, and
# it combines all three groups: fine, coarse and summary. That is why FaViT splits its channels 2 : 7 : 7.

# %%
from workbench.models.attention.favit import channel_groups

{(dim, stride): channel_groups(dim, stride) for dim, stride in ((32, 8), (64, 4), (128, 2), (256, 1))}

# %% [markdown]
# ## 4. The fast form
#
# Fusion is a product with a sparse matrix: $z = S x$, where row $r$ of $S$ holds $1/n_w$ at the pixels of place $r$.
# Then the attention of a query to pixels is $A = P S$. Pictures whose sides are no multiples of the window are
# reflected at the right and at the bottom; the matrix includes that.

# %%
from workbench.models.attention.favit import effective_attention, fusion_matrix

s = fusion_matrix(SIDE, SIDE, 7, 8)  # dilation 8: one window of 49 pixels and its reflections
assert np.allclose(s.sum(axis=1), 1)
x = torch.from_numpy(tokens)[None, None]
a = effective_attention(x[:, :, :200], x, SIDE, SIDE, window=7, dilation=8)[0, 0]  # (200 queries, pixels)
assert np.allclose(a.sum(1), 1, atol=1e-5)
assert np.allclose(a[120], readings_of(120 // SIDE, 120 % SIDE)[3].heat.ravel(), atol=1e-6)
s.shape, s.nnz

# %% [markdown]
# Here is the layer itself, on a map of 28 x 28 with 64 channels. It returns what each group attended to; with
# `window_mean` the keys are the means of section 3. The released code averages runs of the flattened (window, channel)
# array instead, which mixes channels of a few windows (`pooling="released"`, needed for the published weights). The
# mean over the channels of a key is the same for both.

# %%
from workbench.models.attention.favit import FaSA

with torch.random.fork_rng():
    torch.manual_seed(0)
    layer = FaSA(64, 2, 4).eval()
with torch.no_grad():
    y, maps = layer(torch.randn(1, 28 * 28, 64), 28, 28, return_maps=True)
{m.name: tuple(m.weights.shape) for m in maps}

# %%
x_map = torch.from_numpy(grid).permute(2, 0, 1)[None]
mean, released = (factorized_keys(x_map, window=7, pooling=p) for p in ("window_mean", "released"))
assert torch.allclose(mean.mean(-1), released.mean(-1), atol=1e-5) and not torch.allclose(mean, released, atol=1e-2)

# %% [markdown]
# How far does one layer *really* reach? The gradient tells which input pixels one output pixel depends on. Here it is
# taken through the layers themselves, with their linear maps and convolutions; a group of FaSA is read before the
# groups are mixed. Swin shifts every second layer's windows by half a window.

# %%
from workbench.papers.favit.reach import layers_of, moving_pixels

table(
    ["layer on 28 x 28", "keys per query", "pixels that move one output (counted)"],
    [[layer.name, layer.keys, moving_pixels(layer.attend, 28)] for layer in layers_of(28, 4)],
)

# %% [markdown]
# A shifted window is another window: two layers in a row reach further, each one alone does not. The coarse group takes
# every fourth pixel, and its depthwise convolution adds their neighbours, so it sees most of the map.

# %% [markdown]
# ## 5. Play
#
# In the view of section 2:
#
# 1. Choose the cat, and click an eye. Which kind of attention finds the other eye?
# 2. Change the window from 2 to 14. When do the maps of the fine group become sharp, and what happens to the cost?
# 3. Set the dilation to 8, and point at a key near the edge. Why are its rings not evenly spaced? (Reflection.)
# 4. Compare with *windows*. How much of true attention does each cover?
#
# The next cell trains a small network on handwritten digits, once with windows and once with FaSA.

# %% workbench={"step": "Training on digits"}
from workbench.papers.favit.recognition import digit_tensors, train_digits

images, labels = (part[:: 1 if STEPS > 2 else 16] for part in digit_tensors()[2:])
kinds = ("FaSA, released", "windows")
nets = {kind: train_digits(kind, steps=STEPS, seed=1, batch=64 if STEPS > 2 else 8) for kind in kinds}
with torch.no_grad():
    right = {kind: float((net(images).argmax(1) == labels).float().mean()) for kind, net in nets.items()}
table(["attention", f"test accuracy after {STEPS} steps (measured)"], [[k, f"{v:.3f}"] for k, v in right.items()])

# %% [markdown]
# ## 6. The experiment
#
# `workbench run favit` builds the published models, counts reach and cost, trains each network for digits three times,
# computes 64 queries of each photograph, and times one layer. From here on this notebook reads its records.

# %%
from statistics import fmean, stdev

from workbench import record

digits = [r for r in record.read("favit", "recognition")["rows"] if r["quantity"] == "test accuracy"]
spoilt = list(dict.fromkeys(r["corruption"] for r in digits))


def accuracy(attention, corruption):
    found = [r["value"] for r in digits if (r["attention"], r["corruption"]) == (attention, corruption)]
    return f"{fmean(found):.3f}" + (f" ± {stdev(found):.3f}" if len(found) > 1 else "")


table(
    ["test accuracy (measured)", *spoilt],
    [[a, *(accuracy(a, c) for c in spoilt)] for a in dict.fromkeys(r["attention"] for r in digits)],
)

# %% [markdown]
# Compare the first column with the spread beside it: are the differences larger? On clean digits of 16 x 16 pixels
# there is little that a window would miss, so do not expect much. In the other columns the test pictures are damaged
# (noise, blur, a hole); no network was trained on such pictures. The last two rows show what the depthwise convolutions
# contribute: they are the only part that depends on the place of a pixel. In the row of shifted windows the second
# layer's windows are shifted by half a window, as in Swin.

# %%
photographs = record.read("favit", "pictures")["rows"]
kinds = list(dict.fromkeys(r["attention"] for r in photographs))
quantities = list(dict.fromkeys((r["quantity"], r["kind"]) for r in photographs))


def over_pictures(attention, quantity):
    return fmean(r["value"] for r in photographs if (r["attention"], r["quantity"]) == (attention, quantity))


table(
    ["mean over three photographs", *(f"{q} ({kind})" for q, kind in quantities)],
    [[a, *(f"{over_pictures(a, q):.3g}" for q, _ in quantities)] for a in kinds],
)

# %%
counts = record.read("favit", "reach")["rows"]
products = [r for r in counts if r["quantity"] == "multiply-adds of the products"]
figure = go.Figure()
for attention in dict.fromkeys(r["attention"] for r in products):
    points = [(r["side"] ** 2, r["value"]) for r in products if r["attention"] == attention]
    figure.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], name=attention, mode="lines+markers")
figure.update_layout(height=380, legend={"orientation": "h", "y": -0.3})
figure.update_xaxes(type="log", title="pixels of the map").update_yaxes(type="log", title="multiply-adds (counted)")
show(figure, "Windows and FaSA's window groups grow with the pixels, the global group with their square.")

# %%
layers = {(r["attention"], r["side"]): r["value"] for r in counts if r["quantity"] == "multiply-adds of a layer"}
sides = sorted({side for _, side in layers})
table(
    ["millions of multiply-adds of a whole layer (counted)", *(f"{side} x {side}" for side in sides)],
    [[name, *(f"{layers[name, side] / 1e6:,.0f}" for side in sides)] for name in dict.fromkeys(n for n, _ in layers)],
)

# %% [markdown]
# **Second insight: "linear" holds exactly for the two window groups. The global group has one key for each square of
# fixed size, so its cost grows with the square of the number of pixels.** In the first stage of the published models a
# picture of 224 x 224 pixels is a map of 56 x 56, where the global group has 49 keys: then all three groups together
# cost as much as windows, and the whole layer costs less. On a map of 224 x 224 it costs more.

# %%
timing = [r for r in record.read("favit", "timing")["rows"] if r["quantity"] == "time of one layer"]
sides = sorted({r["side"] for r in timing})
times = {(r["attention"], r["side"]): r["value"] for r in timing}
table(
    ["one layer, 64 channels (ms, measured)", *(f"{side} x {side}" for side in sides)],
    [[a, *(f"{times[a, side]:.1f}" for side in sides)] for a in dict.fromkeys(r["attention"] for r in timing)],
)

# %% [markdown]
# Multiply-adds are not milliseconds: a layer of FaSA has convolutions, and three groups that each run a few small
# operations. So compare the growth with the number of pixels.

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
claims("favit")

# %% [markdown]
# *published* values were read in the paper's abstract or its authors' repository.
#
# Left out: ImageNet, detection and segmentation (no such data or time here), so the accuracy claim is judged on 360
# handwritten digits, which is a far easier task. The abstract also reports robustness on damaged ImageNet pictures; the
# table of damaged digits is no substitute for them, so this claim gets no verdict. The view takes queries and keys from
# plain colours and edges, and shows the strided convolution as an average.

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("favit/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** Windows of this size and dilation lie side by side on this map. How many pixels are part of some key?

# %%
from workbench.app.exercises import check, given, hint

given("favit/reach")

# %%
answer = ...
check("favit/reach", answer)

# %% [markdown]
# **2.** Which pixels share one key with the pixel at this row and column? Answer with a bool array as large as the map.

# %%
given("favit/partners")

# %%
answer = ...
check("favit/partners", answer)

# %% [markdown]
# **3.** Fuse this map of one channel with a window of 3, dilation 1. Answer with the 3 x 3 array of keys.

# %%
x, window = given("favit/fuse")
x

# %%
answer = ...
check("favit/fuse", answer)

# %% [markdown]
# **4.** Given is a FaSA layer on a square map. How many multiply-adds do the products of queries with keys, and of
# weights with values, take over all three groups?

# %%
given("favit/cost")

# %%
answer = ...
check("favit/cost", answer)

# %%
hint("favit/cost")
