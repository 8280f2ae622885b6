# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'Weights pruned in blocks of 4 outputs by 1 input, the shape that one dot-product instruction
#       of the CPU multiplies at once.'
#     title: 'Sparse CPU inference: blocks made for an instruction'
#     thumbnail: 'record:digits/test accuracy?seed=1&sparsity=0.9&training=pruned at
#       once|pruned at once, trained on|gradual, cubic'
# ---

# %% [markdown]
# # Sparse CPU inference: blocks made for an instruction
#
# H. Shen, H. Meng, B. Dong, Z. Wang, O. Zafrir, Y. Ding, Y. Luo, H. Chang, Q. Gao, Z. Wang, G. Boudoukh,
# M. Wasserblat, *An Efficient Sparse Inference Software Accelerator for Transformer-based Language Models on CPUs*,
# 2023, [arXiv 2306.16601](https://arxiv.org/abs/2306.16601).
#
# Four of five weights of a network can often be removed, and yet the network seldom runs faster: a CPU multiplies dense
# matrices in bytes so well that irregular sparse ones cannot compete. By the end you will have built a sparse product
# whose inner loop is as dense as a dense one, and pruned a network so that it can use it.
#
# Numbers carry a label. **counted** follows from structure, **measured** needed a clock or trained weights.
# Keep your changes in your own copy: `workbench copy sparse_cpu_inference`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go

from workbench.app.notebook import claims, pictures, show, table

PASSES = {"tiny": 1, "small": 8, "full": 30}[os.environ.get("WORKBENCH_SIZE", "small")]


# %% [markdown]
# ## 1. The question
#
# A linear layer maps the activations $X$ (one column for each token) to $W X$. A weight $w_{mk}$ multiplies the *row*
# $k$ of $X$ and adds the result to row $m$ of the output. If one weight stands alone, this row is loaded for a single
# multiplication per element. If four weights of the *same column* stay together, it is loaded once for all four.

# %%
shapes = {"single weights": (1, 1), "4 x 1": (4, 1), "16 x 1": (16, 1)}
weights = 768 * 768 // 5  # a layer of BERT-base with a fifth of its weights
table(
    ["blocks (counted)", "weights kept", "rows of X loaded", "multiply-adds for each element loaded"],
    [[name, f"{weights:,}", f"{weights // (m * n):,}", m] for name, (m, n) in shapes.items()],
)

# %% [markdown]
# Larger blocks mean less to load. But whoever must remove *whole blocks* removes important weights together with
# unimportant ones. **The question: which blocks are as large as the CPU needs, and no larger?**

# %% [markdown]
# ## 2. The picture
#
# Here is one trained weight of a sentence encoder, 384 outputs by 384 inputs, with a fifth of its weights left. Choose
# a pattern from the menu and zoom in until you see single entries: single weights, then blocks of four and of sixteen
# outputs by one input.

# %%
from kernels.masks.blocks import block_prune_mask
from widgets.views.sparsity import SparsityView
from workbench.models.language import minilm

trained = minilm.load().layers[0].query.weight.numpy()
kept = {name: block_prune_mask(np.abs(trained), 0.8, block=block) for name, block in shapes.items()}
SparsityView({name: kept[name] for name in ("4 x 1", "single weights", "16 x 1")}, window="0:32:0:32")

# %% [markdown]
# All three keep equally many weights, those of the largest size. How much of the weight's length is left?


# %%
def length_left(mask):
    return float(np.linalg.norm(trained * mask) / np.linalg.norm(trained))


rows = [[name, f"{length_left(mask):.3f}"] for name, mask in kept.items()]
table(["blocks", "length of the weight that is left (measured)"], rows)

# %% [markdown]
# Now the other side. The CPU has an instruction, `vpdpbusd`, that takes 16 lanes at once: in each lane, four bytes of
# activations times four bytes of weights, all four products added to a sum of 32 bits. Here is one lane of it, four
# times over: four outputs, four inputs, one token.

# %%
rng = np.random.default_rng(0)
tile, bytes_of_x = rng.integers(-9, 10, (4, 4)), rng.integers(0, 20, 4)
table(
    ["", *(f"input {k}: {x}" for k, x in enumerate(bytes_of_x)), "sum"],
    [[f"output {m}", *(f"{w} x {x}" for w, x in zip(row, bytes_of_x, strict=True)), row @ bytes_of_x]
     for m, row in enumerate(tile)],
)  # fmt: skip

# %% [markdown]
# The four inputs need not be neighbours. *Any* four blocks of a block row can be put side by side, as long as the four
# matching rows of $X$ are loaded. So a block is as high as there are outputs in the tile (4), and as narrow as possible
# (1). **First insight: the instruction chooses the block, and the rest of the freedom is left to the pruning.**

# %% [markdown]
# ## 3. The formula and its reference
#
# Cut the kept blocks of each block row into groups of four. A short last group is filled up with zeros that repeat the
# last column. With a weight of 4 x 9 that keeps five blocks:

# %%
from kernels.formats.block_groups import BlockGroupedWeight

small = np.zeros((4, 9), np.int8)
small[:, [0, 2, 3, 7, 8]] = rng.integers(1, 10, (4, 5))
weight = BlockGroupedWeight.from_dense(small)
weight.indptr, weight.indices.reshape(-1, 4), weight.data

# %% [markdown]
# Find the three blocks of padding: their weights are 0, so it does not matter what they multiply. The kernel then reads
# like this, one group after the other:


# %%
def micro_kernel(weight, x):
    sums = np.zeros((weight.shape[0], x.shape[1]), np.int32)
    for block_row in range(len(weight.indptr) - 1):
        for group in range(weight.indptr[block_row], weight.indptr[block_row + 1]):
            rows = x[weight.indices[4 * group : 4 * group + 4]]  # four rows of X, shared by four outputs
            for r in range(4):
                sums[4 * block_row + r] += weight.data[group, r].astype(np.int32) @ rows.astype(np.int32)
    return sums


x = rng.integers(0, 256, (9, 5), dtype=np.uint8)
assert np.array_equal(micro_kernel(weight, x), small.astype(np.int32) @ x.astype(np.int32))
micro_kernel(weight, x)

# %% [markdown]
# Activations are bytes from 0 to 255 with a step $s_x$ and a *zero point* $z$, weights are signed bytes with a step
# $s_m$ for each output: $x \approx s_x (q_x - z)$ and $w \approx s_m q_w$. Multiply out, and the zero point becomes a
# number that is known before the first token comes:
#
# $$\sum_k w_{mk} x_k + b_m \;\approx\; s_x s_m \Big( \sum_k q_w q_x
#   + \underbrace{\mathrm{round}\big(b_m / (s_x s_m)\big) - z \textstyle\sum_k q_w}_{\text{added to the sums}} \Big)$$

# %%
from kernels.matmul.quantize import fold_zero_point, quantize_activation_u8, quantize_weight_s8_per_channel

w, floats, b = rng.standard_normal((4, 9)), rng.standard_normal((9, 5)).astype(np.float32), rng.standard_normal(4)
q_w, weight_step = quantize_weight_s8_per_channel(w)
q_x, step, zero = quantize_activation_u8(floats)
added = np.rint(b / (step * weight_step)).astype(int) - zero * q_w.sum(axis=1, dtype=int)
by_formula = step * weight_step[:, None] * (q_w.astype(int) @ q_x + added[:, None])
exactly = (weight_step[:, None] * q_w) @ (step * (q_x - float(zero))) + b[:, None]
assert np.abs(by_formula - exactly).max() <= step * weight_step.max()  # the bias is rounded to whole steps
f"largest difference from the product in float: {np.abs(by_formula - (w @ floats + b[:, None])).max():.3f} (measured)"

# %%
how = {"x_scale": step, "x_zero": zero, "weight_scale": weight_step, "bias": b}
folded, factor = fold_zero_point(BlockGroupedWeight.from_dense(q_w), **how)
assert np.array_equal(folded, added)
assert np.allclose(factor, step * weight_step)

# %% [markdown]
# ## 4. The fast form
#
# `spmm_int8` does the same for 64 tokens at a time, with four outputs by 64 sums held in registers. Its sums are whole
# numbers, so it must agree with the loop to the last bit.

# %%
from kernels.matmul.spmm_int8 import spmm_int8
from workbench.papers.sparse_cpu_inference.layers import drawn_weight

drawn = drawn_weight(64, 96, density=0.2)
grouped, x = BlockGroupedWeight.from_dense(drawn), rng.integers(0, 256, (96, 40), dtype=np.uint8)
assert np.array_equal(spmm_int8(grouped, x), micro_kernel(grouped, x))
f"{grouped.nnz_blocks} blocks kept, {grouped.padding} blocks of padding (counted)"

# %% [markdown]
# While the sums are still in registers, the kernel finishes the layer. The order is fixed: **scale, residual, function,
# and new bytes at last.** A residual that is added after the function would give another result:

# %%
scale, residual = np.full(64, 0.001, np.float32), rng.standard_normal((64, 40)).astype(np.float32)
fused = spmm_int8(grouped, x, scale=scale, append=residual, post=("relu",), out_dtype="float32")
sums = spmm_int8(grouped, x)
in_order, other_order = np.maximum(0.001 * sums + residual, 0), np.maximum(0.001 * sums, 0) + residual
assert np.allclose(fused, in_order, atol=1e-5) and not np.allclose(fused, other_order, atol=0.1)
panels = np.ascontiguousarray(x.reshape(96, 2, 20).transpose(1, 0, 2))  # two panels of 20 tokens
assert np.array_equal(np.hstack(list(spmm_int8(grouped, panels))), sums)

# %% [markdown]
# A torch layer becomes such a layer in one call. Its blocks are pruned, its weights quantised, its inputs turned into
# bytes on the way in:

# %%
import torch

from workbench.models.sparse_inference.sparse_linear import SparseLinear

dense = torch.nn.Linear(96, 64)
layer = SparseLinear.from_linear(dense, sparsity=0.8)
dense.weight.data *= torch.from_numpy(layer.weight.to_dense() != 0)
tokens = torch.randn(40, 96)
change = (layer(tokens) - dense(tokens)).norm() / dense(tokens).norm()
assert change < 0.03
f"{layer}: {change:.2%} away from the same pruned layer in float (measured)"

# %% [markdown]
# ## 5. Play
#
# Each point is a pruned sentence encoder: how well its vectors are kept, over what it costs.
#
# 1. Find the 4 x 1 blocks at sparsity 0.7. Which methods keep more at the same number of multiply-adds?
# 2. Move *Cost* from multiply-adds to times, where times are recorded. Which of these methods gain, which lose?
# 3. Click a layer in the grid. Do all layers suffer alike?

# %%
from workbench.papers import get

get("sparse_cpu_inference").view()

# %% [markdown]
# And what does the kernel read? Here is a small weight in groups of 4 x 1 blocks, one group after the other: its values
# and columns, the rows of activations it names, the registers it fills. Look at the same weight in other formats, and
# at the bytes that each takes.

# %%
from workbench.explorers.weight_format.explorer import explorer as weight_formats

weight_formats(pattern="blocks", section="step", format="groups")

# %% [markdown]
# All of these pruned encoders lost their weights in one blow. The paper removes them *while the network is trained*,
# along a schedule. With $p$ from 0 to 1 and the target $f$: exp $1 - (1 - f)^p$, cos $f (1 - \cos(p \pi / 2))$,
# linear $f p$, cube $f p^3$. A fifth one, cubic, is $f (1 - (1 - p)^3)$ and removes most at the start.

# %%
from kernels.masks.schedules import SCHEDULES, scheduled_sparsity

figure = go.Figure()
for name in SCHEDULES:
    y = [scheduled_sparsity(step, 50, 0.9, schedule=name) for step in range(51)]
    figure.add_scatter(x=np.arange(51) / 50, y=y, name=name)
figure.update_layout(xaxis_title="share of the steps", yaxis_title="blocks gone (counted)", height=340)
show(figure, "Five ways from 0 to 0.9: cubic rises at once, cube and cos wait until the end.")

# %% [markdown]
# Now do it yourself. A net learns handwritten digits, and then loses 90 per cent of the blocks of both hidden layers:
# at once, or gradually while it is trained on. A weight is worth its size $|w|$, or the size of its product with its
# gradient, $|w g|$, added up over the steps. Try another schedule. (This cell trains for a few passes only.)

# %%
from workbench.papers.sparse_cpu_inference import digits

net = digits.train(digits.net(seed=0), PASSES, digits.FIRST_RATE, seed=0)
by_size = digits.pruned(net, digits.Way(schedule="cubic"), 0.9, PASSES, seed=1)
by_gradient = digits.pruned(net, digits.Way(criterion="snip_momentum"), 0.9, PASSES, seed=1)
nets = {"dense": net, "pruned at once": digits.pruned_at_once(net, 0.9)}
nets |= {"gradually, by |w|": by_size, "gradually, by |w g|": by_gradient}
table(["digits recognised", "test (measured)"], [[name, f"{digits.accuracy(x):.1%}"] for name, x in nets.items()])

# %%
left = {name: (x[0].weight != 0).float().mean(0).reshape(8, 8).numpy() for name, x in nets.items() if x is not net}
pictures(left, "For each of the 64 pixels, the share of its 256 weights in the first layer that is left.", height=260)

# %% [markdown]
# Pixels at the left and right border are nearly always white, so their weights do nothing and never change. By size
# some of them stay, as large as they were drawn before the training. By $|w g|$ they are the first to go.

# %% [markdown]
# ## 6. The experiment
#
# `workbench run sparse_cpu_inference` trains longer and with several seeds, prunes a sentence encoder, counts and takes
# times, and writes records. From here on the notebook only reads them.

# %%
from workbench import record


def values(rows, quantity, **labels):
    return [r["value"] for r in rows if r["quantity"] == quantity and labels.items() <= r.items()]


rows = record.read("sparse_cpu_inference", "digits")["rows"]
ways = list(dict.fromkeys(r["training"] for r in rows if r["sparsity"] == 0.9))
figure = go.Figure()
for sparsity in (0.8, 0.9):
    found = [values(rows, "test accuracy", training=way, sparsity=sparsity) for way in ways]
    error = [np.std(x, ddof=1) / len(x) ** 0.5 for x in found]
    x = [np.mean(each) for each in found]
    figure.add_bar(y=ways, x=x, error_x={"array": error}, orientation="h", name=f"{sparsity:.0%} gone")
figure.add_vline(np.mean(values(rows, "test accuracy", training="dense, trained on")), line_dash="dot")
figure.update_layout(xaxis_title="test accuracy (measured)", height=520, yaxis_autorange="reversed")
show(figure, "Nets pruned at once recognise few digits; all those that were trained on come near the dense one.")

# %% [markdown]
# The dotted line is the dense net, trained for as many passes; bars carry the standard error over seeds. Three
# comparisons are worth your time.
#
# - *Pruned at once, trained on* had the same training as the gradual ones, only that all blocks were gone from the
#   first step. It is as good. On digits, what brings accuracy back is the training, not that blocks go gradually.
# - At 90 per cent, the two schedules that remove most at the start (exp, cubic) are ahead of those that wait: they
#   leave more time to recover.
# - Group lasso *by gradients* is what the released code does: it divides by the norm of a block's gradient, where group
#   lasso divides by that of the block. The smaller the gradients get as the net learns, the more it shrinks the
#   weights.
#
# What does the block cost if nothing is trained? All linear layers of a sentence encoder, pruned by size:

# %%
rows = record.read("sparse_cpu_inference", "patterns")["rows"]
figure = go.Figure().set_subplots(1, 2, subplot_titles=("error of the layers' outputs", "cosine of sentence vectors"))
quantities = ("mean output error of the layers", "cosine of sentence vectors before and after")
for place, quantity in enumerate(quantities, start=1):
    for name in ("1 x 1", "4 x 1", "16 x 1"):
        found = [r for r in rows if r["quantity"] == quantity and r["block"] == name]
        x, y = ([r[key] for r in found] for key in ("sparsity", "value"))
        figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", showlegend=place == 1, row=1, col=place)
figure.update_layout(height=360).update_xaxes(title="weights gone (measured)")
show(figure, "Errors grow with sparsity and with the height of the blocks; sentence vectors turn away.")

# %% [markdown]
# **Second insight: the block is paid for by training.** Pruned without training, an encoder with 4 x 1 blocks loses its
# meaning much earlier than one with single weights. The net above got nearly everything back, because it was trained
# on.
#
# And the encoder? Its blocks can go while it learns to give what the dense one gives, on text that it is not judged on.
# Or they go at once, the weights that stay are *refitted* (least squares, layer by layer), and then they learn. All of
# these are rounded to int8:

# %%
rows = record.read("sparse_cpu_inference", "encoder_quality")["rows"]
measures = {
    "cosine of sentence vectors before and after": "cosine (measured)",
    "rank correlation of similarities": "rank correlation of similarities",
    "second halves found by the first": "second halves of texts found by the first",
}
ways = list(dict.fromkeys((r["sparsity"], r["training"]) for r in rows if r.get("form") == "int8"))
cells = [
    [f"{way}, {s:.0%}", *(f"{values(rows, m, sparsity=s, training=way, form='int8')[0]:.2f}" for m in measures)]
    for s, way in ways
]
table(["blocks gone", *measures.values()], cells)

# %% [markdown]
# The refit alone, without a training step, does most of it. The last column tells little, since the dense encoder finds
# few halves itself.
#
# Does training help one method of pruning more than another? Each point of the explorer above, before and after the
# same few steps on the same text, whatever had chosen the weights:

# %%
rows = record.read("sparse_cpu_inference", "tradeoffs_recovered")["rows"]
found = [r for r in rows if r["model"] == "tiny_lm" and r["quantity"] == "bits per byte of held-out text"]
figure = go.Figure()
for stage, name in (("one-shot", "before the training"), ("recovered", "after it")):
    points = [r for r in found if r["stage"] == stage]
    x, y = [r["value"] for r in points], [f"{r['method']} {r['level']}" for r in points]
    figure.add_scatter(x=x, y=y, name=name, mode="markers", marker_symbol=["x", "circle"][stage == "recovered"])
figure.update_layout(xaxis_title="bits per byte of held-out text (measured)", height=420)
show(figure.update_xaxes(type="log"), "A language model whose weights went; further left is better.")

# %% [markdown]
# Methods of a kind come closer together, and their order stays. Weights that SparseGPT adjusted gain little or lose.
# Movement pruning, which learns during the training what to remove, has too few steps to learn it.
#
# What does the format cost? Padding fills up the last group of each block row, and every block needs its column:

# %%
rows = record.read("sparse_cpu_inference", "storage")["rows"]
layer = {"outputs": 768, "inputs": 768}
names = ("padding over stored blocks", "padding over stored blocks, expected")
sizes = ("bytes, indices of 2", "bytes, indices of 8")
whole = values(rows, "bytes, dense int8", **layer)[0]
cells = []
for density in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
    padding = [f"{values(rows, name, density=density, **layer)[0]:.3%}" for name in names]
    stored = [f"{values(rows, name, density=density, **layer)[0] / whole:.2f}" for name in sizes]
    cells.append([density, *padding, *stored])
columns = ["density (768 x 768, counted)", "padding", "1.5 / (K d + 1.5)"]
table([*columns, "bytes over dense, indices of 2 bytes", "of 8 bytes"], cells)

# %% [markdown]
# At a density of two thirds the weight takes as many bytes as a dense one; with indices of 8 bytes, already at one
# third. Last the times: each library with one thread, on the linear layers of three BERT models.


# %%
def case(row):
    return row["outputs"], row["inputs"], row["sparsity"]


def speedup_figure(rows):
    dense, timed, figure = "dense, int8 (oneDNN)", "time of a product", go.Figure()
    theirs = {case(r): r["value"] for r in rows if r["quantity"] == timed and r["method"] == dense}
    for place, method in enumerate(m for m in dict.fromkeys(r.get("method") for r in rows) if m != dense):
        found = {case(r): r["value"] for r in rows if r["quantity"] == timed and r["method"] == method}
        y = [theirs[each] / value for each, value in found.items()]
        figure.add_scatter(x=[each[-1] for each in found], y=y, name=method, mode="markers", marker_symbol=place)
    figure.update_layout(xaxis_title="blocks gone", yaxis_title="times as fast as dense int8 (measured)", height=420)
    return figure.update_yaxes(type="log").add_hline(1)


products = record.read("sparse_cpu_inference", "products")["rows"]
show(speedup_figure(products), "Above the line is faster than the dense int8 product.")

# %% [markdown]
# **Third insight: where the curves cross is a matter of two efficiencies.** A sparse product that runs at half of the
# operations per second of the dense one is as fast at a density of one half. Irregular formats run at a small fraction,
# so they would need nearly empty weights.

# %% [markdown]
# One product is not a model. Here is a whole sentence encoder of six layers: every linear layer on the sparse kernel,
# steps fused, activations kept in the kernel's layout, against the same encoder dense in other libraries.

# %%
times = record.read("sparse_cpu_inference", "encoder_times")["rows"]
runs = list(dict.fromkeys(r["run"] for r in times))


def milliseconds(run, batch, tokens, sparsity=0.8):
    return f"{values(times, 'time of the encoder', run=run, batch=batch, tokens=tokens, sparsity=sparsity)[0]:.1f}"


cases = [(b, t) for b in (1, 8) for t in (32, 128, 384)]
table(
    ["80 % of the blocks gone, ms (measured)", *(f"{b} x {t} tokens" for b, t in cases)],
    [[run, *(milliseconds(run, *case) for case in cases)] for run in runs],
)

# %% [markdown]
# The lead over the best dense library is much smaller than that of a single product. The products now take so little
# that attention and normalisation, which stay dense, set the pace: compare the times at 70 and at 90 per cent.

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
claims("sparse_cpu_inference")

# %% [markdown]
# Values tagged *published* were read in the abstract, a model card or the notes of the released code, as the second
# column says. The paper's own tables were not at hand.
#
# Where ours differs: the paper compiles machine code for each weight, with its columns written into the instructions;
# our kernel is compiled once and reads them. Our indices take 2 bytes, theirs 8. oneMKL was built by the maker of other
# processors than the one of our record, and may choose slower code there. All of our libraries run with one thread and
# on weights drawn at random; the authors use whole cloud machines.
#
# Left out, because it cannot be tested here: the comparisons with TVM, LIBXSMM and DeepSparse (up to 1.5 times faster),
# the times of whole models under limits of latency on Xeon servers (37 times ONNX Runtime, 345 times PyTorch), and the
# accuracy of BERT and DistilBERT on SQuAD and GLUE. Digits and a net of three layers stand in for them, so the claim
# about accuracy is judged in a far easier setting. Distillation from a dense teacher, which the authors train with, was
# used for the encoder, in far fewer steps than theirs, and not for the digits. 16 x 1 blocks for bfloat16 and
# the authors' plain float32 kernels are left out as well.

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("sparse_cpu_inference/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** Given is which 4 x 1 blocks of a weight are kept, one row for each block row. How many blocks does the format
# store, padding included?

# %%
from workbench.app.exercises import check, given, hint

given("sparse_cpu_inference/stored")

# %%
answer = ...
check("sparse_cpu_inference/stored", answer)

# %% [markdown]
# **2.** Given are one output's weights in bytes, and the steps, zero point and bias of its layer. Which whole number
# does the kernel add to the sums?

# %%
given("sparse_cpu_inference/fold")

# %%
answer = ...
check("sparse_cpu_inference/fold", answer)

# %% [markdown]
# **3.** Given are sums, the scale, and step and zero point of the result. Which bytes does the kernel store, with ReLU?
# Answer with a tuple.

# %%
given("sparse_cpu_inference/epilogue")

# %%
answer = ...
check("sparse_cpu_inference/epilogue", answer)

# %% [markdown]
# **4.** Given are the times of a dense and of a sparse product. At which density would both take as long? And **5.**:
# which share of the blocks is gone at the given step of the schedule *exp*?

# %%
given("sparse_cpu_inference/even"), given("sparse_cpu_inference/schedule")

# %%
answer = ...
check("sparse_cpu_inference/even", answer)

# %%
answer = ...
check("sparse_cpu_inference/schedule", answer)

# %% [markdown]
# **6.** Write a function that takes the columns of the kept blocks of one block row, an array in rising order, and
# returns the groups, padding included, as an array of four columns.

# %%
given("sparse_cpu_inference/groups")  # blocks in the rows that your function will be tried on

# %%
groups = ...  # def groups(columns): ...
check("sparse_cpu_inference/groups", groups)

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("sparse_cpu_inference/fold")
