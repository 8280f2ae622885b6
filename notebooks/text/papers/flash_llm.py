# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'A model that writes one token at a time waits for its weights: read them sparse, multiply the
#       zeros as well, and see on which machine that pays.'
#     thumbnail: 'record:format/words that meet in the fullest bank?sparsity=0.8&words=row by row|reordered'
#     title: 'Flash-LLM: load as sparse, compute as dense'
# ---

# %% [markdown]
# # Flash-LLM: load as sparse, compute as dense
#
# H. Xia, Z. Zheng, Y. Li, D. Zhuang, Z. Zhou, X. Qiu, Y. Li, W. Lin, S. L. Song, *Flash-LLM: Enabling Cost-Effective
# and Highly-Efficient Large Generative Model Inference with Unstructured Sparsity*, 2023,
# [arXiv 2309.10285](https://arxiv.org/abs/2309.10285).
#
# Four fifths of a language model's weights can be zero. Everybody's first thought is to skip their multiplications.
# This paper multiplies them all, and is faster for it. By the end you will have built its format bit by bit, seen why
# multiplications by zero can be free, and measured whether they are free on your machine too.
#
# Numbers carry a label. **counted** follows from structure, **modelled** comes from a model of a machine, **measured**
# needed a clock or trained weights. Keep your changes in your own copy: `workbench copy flash_llm`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench import record
from workbench.app.notebook import claims, pictures, show, table

SIDE = {"tiny": 256, "small": 1024, "full": 2048}[os.environ.get("WORKBENCH_SIZE", "small")]


# %% [markdown]
# ## 1. The question
#
# A model that writes text makes one token after the other. For each it multiplies every weight matrix, of $M \times K$,
# with the activations of a few texts, $K \times N$ with $N$ from 1 to 64. How much work is that for each byte that is
# read? Take the products of OPT-30B and count.

# %%
from workbench.papers.flash_llm.replay import MACHINE, SHAPES
from workbench.machines.roofline import roofline

(m, k), *_ = SHAPES["OPT-30B"]
table(
    ["columns N", "operations", "bytes", "operations per byte (counted)"],
    [
        [n, f"{r.flops:,.0f}", f"{r.bytes:,.0f}", f"{r.intensity:.1f}"]
        for n, r in ((n, roofline(m, k, n, **MACHINE)) for n in (1, 8, 16, 64, 4096))
    ],
)

# %% [markdown]
# About $N$ operations for each byte. A large GPU of that time, the A100, can do 200 in the time in which it reads one.
# So its multipliers wait for memory nearly all the time, and **time is the bytes of the weights**.
#
# **The question: if only the nonzero weights are read, and multiplications cost nothing, how much faster is it?**

# %% [markdown]
# ## 2. The picture
#
# The roof shows what the machine allows: to the left of its corner memory sets the pace, to the right arithmetic. A
# product moves along the slope to the right when it reads fewer bytes. The points are modelled.

# %%
from widgets.figures.roofline import RooflinePoint, RooflineScene, roofline_alt, roofline_figure


def point(fmt, n, sparsity):
    found = roofline(m, k, n, sparsity, fmt=fmt, **MACHINE)
    label = f"{n} columns" + (f", {sparsity:.0%} sparse" if sparsity else "")
    name = "dense" if fmt == "dense16" else f"sparse, {sparsity:.0%}"
    return RooflinePoint(group=name, label=label, intensity=found.intensity, flops_per_s=found.flops / found.time_s)


points = [point("dense16", n, 0.0) for n in (1, 8, 16, 64)]
points += [point("tiled-csl", n, s) for s in (0.7, 0.8, 0.9) for n in (1, 8, 16, 64)]
scene = RooflineScene(machine="A100", points=tuple(points), kind="modelled", **MACHINE)
show(roofline_figure(scene), roofline_alt(scene))

# %% [markdown]
# **First insight: the zeros are multiplied in time that was idle anyway.** Skipping them saves nothing as long as a
# point lies on the slope. Reading them is what costs.
#
# The expansion from sparse to dense happens on the chip. A thread block of the GPU loads the nonzeros of a *tile* of
# weights, scatters them into a cleared tile in shared memory, and hands the tile to the matrix units. Five activities,
# each on one tile after the other:

# %%
from widgets.figures.pipeline import PipelineScene, pipeline_alt, pipeline_figure
from workbench.papers.flash_llm.pipeline import OVERLAPS, loop, step_cycles

cycles = step_cycles(16, 0.8, conflicts=1.4)


def gantt(overlap):
    scene = PipelineScene(bars=tuple(loop(cycles, 4, overlap)), unit="cycles", kind="modelled")
    return show(pipeline_figure(scene), pipeline_alt(scene))


gantt(OVERLAPS[0])

# %% [markdown]
# One after the other, the memory is idle while the tile is multiplied and scattered. Now the loads of the next tile run
# beside the product of this one, and beside each other. What sets the pace in this model is the memory: first the
# nonzeros, then the activations. The scatter fits beside the activations, except where there are very few columns.

# %%
gantt(OVERLAPS[2])

# %% [markdown]
# ## 3. The formula and its reference
#
# The matrix is cut into tiles of 128 x 64. Each nonzero becomes one word of 32 bits: the value in half precision, and
# its place in the tile.
#
# $$\text{word} = 2^{16}\,(64\, r + c') + \text{bits}(w_{rc}), \qquad c' = c \oplus 8\,(r \bmod 8)$$
#
# Half of every word is position, so the bytes are $2(1-s)$ times those of the dense matrix in 16 bits. At which
# sparsity $s$ do both take the same?
#
# Here is one small tile, and what its first words say.

# %%
from kernels.formats.tiled_csl import TiledCSL
from workbench.papers.flash_llm.packing import random_weights

tile = random_weights(128, 64, 0.8, seed=1)


def words_of(tile):
    rows, columns = np.nonzero(tile)
    position = 64 * rows + (columns ^ 8 * (rows % 8))
    return position.astype(np.uint32) << 16 | tile[rows, columns].view(np.uint16)


plain = TiledCSL.encode(tile, reorder=False)
assert set(words_of(tile)) <= set(plain.nz.tolist())
table(
    ["word", "row", "permuted column", "column", "value"],
    [
        [f"{w:08x}", r, c, c ^ 8 * (r % 8), f"{np.uint16(w & 0xFFFF).view(np.float16):.4f}"]
        for w, r, c in ((int(w), int(w >> 16) // 64, int(w >> 16) % 64) for w in plain.nz[[0, 1, 2, 200, 201]])
    ],
)

# %% [markdown]
# Each tile is padded to a multiple of four words, so that every load is 128 bits wide. A word of padding has the value
# zero, and it must lie *where the tile is zero*: anywhere else it would erase a weight.
#
# Why the permutation, and in which order do the words lie? Shared memory has 32 banks of four bytes, and 32 threads
# store at once. Words that go to one bank wait for each other. In the picture every row is one store, every column a
# bank, and the colour says how many words go there.

# %%
dealt = TiledCSL.encode(tile, reorder=True)


def stores(packed, steps=32):
    bank = (packed.nz >> 17) % 32
    lanes = bank[: steps * 32].reshape(-1, 32, 4).transpose(0, 2, 1).reshape(-1, 32)  # word v of every lane at once
    return np.stack([np.bincount(step, minlength=32) for step in lanes])


both = {"row by row": stores(plain), "reordered": stores(dealt)}
pictures(both, "Words in each bank at each store: uneven row by row, nearly one each when reordered.")

# %%
figure = go.Figure([go.Bar(y=counts.max(axis=1), name=name) for name, counts in both.items()])
figure.update_layout(xaxis_title="store", yaxis_title="words in the fullest bank (counted)", height=300)
show(figure, "The fullest bank of each store: three or more row by row, one or two when reordered.")

# %% [markdown]
# The paper deals the words like cards, ahead of time: the next word always comes from the bank that has most left. The
# tile holds the same words, only their order is another.

# %%
assert np.array_equal(plain.decode(), tile) and np.array_equal(dealt.decode(), tile)
assert set(words_of(tile)) <= set(dealt.nz.tolist())
table(
    ["words", "in the fullest bank, mean (counted)"],
    [["row by row", f"{plain.bank_conflict_degree():.2f}"], ["reordered", f"{dealt.bank_conflict_degree():.2f}"]],
)

# %% [markdown]
# The reference of the product goes word by word, in float64.

# %%
import inspect

from IPython.display import Markdown

from kernels.matmul.skinny_spmm import skinny_spmm, skinny_spmm_reference

Markdown(f"```python\n{inspect.getsource(skinny_spmm_reference)}```")

# %% [markdown]
# ## 4. The fast form
#
# On a CPU the nearest cache takes the place of shared memory, and there are no banks. Our kernel has two methods.
# `dense_tile` is the paper's: expand each tile, multiply it densely. `entries` does one multiply-add of a row of $B$
# for each word, and wants the words row by row. All must agree.

# %%
weights = random_weights(256, 192, 0.8, seed=2)
b = np.random.default_rng(0).standard_normal((192, 8), np.float32)
small = TiledCSL.encode(weights, reorder=False)
wanted = skinny_spmm_reference(small, b)
for packed, method in ((small, "dense_tile"), (small, "entries"), (TiledCSL.encode(weights), "dense_tile")):
    found = skinny_spmm(packed, b, method=method)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
assert np.abs(weights.astype(float) @ b - wanted).max() < 1e-9

# %% [markdown]
# One call puts it into a model, also into yours. Here the language model that ships with the workbench gets weights of
# which 80 per cent are zero; with the same weights dense it must write the same.

# %%
from workbench.models.language import tiny_lm
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.models.sparse_inference.tiled_csl import decode_sparse

model = tiny_lm.load()
sparse = decode_sparse(model, 0.8)
ids = model.encode("The quick brown fox jumps over the lazy dog.")
with torch.no_grad():
    for name, layer in linear_layers(dense := tiny_lm.load()).items():
        layer.weight.copy_(torch.from_numpy(sparse.get_submodule(name).weight.decode()))
    assert torch.allclose(sparse(ids), dense(ids), atol=1e-3)
sparse.layers[0].gate

# %%
layers = [sparse.get_submodule(name) for name in linear_layers(model)]
full = sum(2 * layer.out_features * layer.in_features for layer in layers)
f"{sum(layer.nbytes for layer in layers) / full:.2f} of the bytes of the dense layers in 16 bits (counted)"

# %% [markdown]
# That is a little more than the 0.4 of the format: a CPU also wants to know where each row of a tile ends.

# %% [markdown]
# ## 5. Play
#
# Pruning at random places is what this format is for. The explorer shows what it costs the model, beside patterns that
# other kernels want. Each point is a method at a sparsity.
#
# 1. Add *Magnitude* at 0.5 and at 0.8. How much more does a byte of text cost?
# 2. Add *Wanda* at 0.8, which also knows how large the inputs are. Which of the two would you take?
# 3. Add a pattern that is regular, such as 2:4. It takes as many bytes as some unstructured points. Which lose less?

# %%
from workbench.papers import get

get("flash_llm").view()

# %% [markdown]
# What does a tile of 128 x 64 look like in this format and in others? Step through the stores of 32 lanes, switch the
# dealing off and on, and compare the bytes.

# %%
from workbench.explorers.weight_format.explorer import explorer as weight_formats

weight_formats(rows=128, columns=64, sparsity=0.8, value_bits="16", section="step", format="tiled_csl")

# %% [markdown]
# Now change the machine. How much faster could the product be, if its ridge were elsewhere? Move the peak and the
# sparsity in this cell, and look for the number of columns from which on the sparse format no longer helps.

# %%
peak, bandwidth, sparsity = 300e9, 40e9, 0.8  # a CPU of two cores


def gain(n):
    machine = {"peak_flops": peak, "bandwidth": bandwidth}
    return roofline(m, k, n, **machine).time_s / roofline(m, k, n, sparsity, fmt="tiled-csl", **machine).time_s


table(["columns N", 1, 4, 8, 16, 32, 64], [["gain (modelled)", *(f"{gain(n):.2f}x" for n in (1, 4, 8, 16, 32, 64))]])

# %% [markdown]
# **Second insight: whether zeros are free depends on the ridge.** On the A100 every $N$ up to 64 is on the slope; here
# the gain is gone after a few columns, because arithmetic sets the pace. A CPU does better to skip the zeros.

# %% [markdown]
# ## 6. The experiment
#
# `workbench run flash_llm` repeats everything at full size and writes records; from here on this notebook only reads
# them. First the paper's twelve products on the modelled A100. The bound counts memory and arithmetic only. The loop
# counts what the five activities above leave of it.


# %%
def recorded(experiment):
    try:
        return record.read("flash_llm", experiment)["rows"]
    except FileNotFoundError:
        return []  # not run yet on a machine that is idle


def mean(rows, **labels):
    return np.mean([r["value"] for r in rows if all(r.get(key) == x for key, x in labels.items())])


# %%
from workbench.papers.flash_llm.replay import MEASURED

replay = recorded("replay")
bound = {"quantity": "speed over dense, bound by memory and arithmetic", "format": "tiled-csl"}
whole = {"quantity": "speed over dense, loop", "words": "reordered", "overlap": OVERLAPS[2]}
table(
    ["sparsity", "bound (modelled)", "loop (modelled)", "paper over cuBLAS (measured there)"],
    [
        [f"{s:.0%}", f"{mean(replay, sparsity=s, **bound):.2f}x", f"{mean(replay, sparsity=s, **whole):.2f}x", f"{x}x"]
        for s, x in MEASURED["cuBLAS"].items()
    ],
)

# %% [markdown]
# The bound is far above what the paper measured at 90 per cent. The loop comes nearer because it copies the activations
# from memory for every thread block, which is more than a GPU with a cache does. What the model leaves out counts
# too: launching, summing up the parts of split products, and offsets that must have arrived before the words can be
# asked for.
#
# Next, our CPU. The curves compare the time of one product with 16 columns over the sparsity.

# %%
times = [r for r in recorded("kernel") if r["quantity"] == "time"]
shape = {"m": 4096, "k": 4096}
figure = go.Figure()
for name in dict.fromkeys(r["contender"] for r in times):
    mine = [r for r in times if r["contender"] == name and r["n"] == 16 and r["m"] == r["k"] == shape["m"]]
    figure.add_scatter(x=[r["sparsity"] for r in mine], y=[r["value"] for r in mine], name=name, mode="lines+markers")
figure.update_layout(xaxis_title="sparsity", yaxis_title="ms (measured)", height=380)
show(figure, "Time of a product of 4096 x 4096 weights with 16 columns, by sparsity; empty until it has been recorded.")

# %%
at = {"sparsity": 0.8} | shape
table(
    ["ms at 80% (measured)", *(f"N = {n}" for n in (1, 8, 16, 64))],
    [
        [name, *(f"{mean(times, contender=name, n=n, **at):.2f}" for n in (1, 8, 16, 64))]
        for name in dict.fromkeys(r["contender"] for r in times)
    ],
)

# %% [markdown]
# Look for two things. Where does the curve of the products that are computed dense lie flat? There arithmetic sets the
# pace, and more zeros do not help. And where does a kernel that skips zeros pass below it?
#
# Now a whole model. What does pruning cost the language model, and what does a short training with fixed masks take
# back? The dense model was trained for as long, at the same rate.

# %%
language = [r for r in recorded("language") if r["quantity"] == "bits per byte of the text"]


def cost(masks, sparsity, trained):
    found = [r["value"] for r in language
             if (r["masks"], r["sparsity"], r["steps"] > 0) == (masks, sparsity, trained)]  # fmt: skip
    return f"{np.mean(found):.3f}" if found else ""


sparsities = sorted({r["sparsity"] for r in language})
table(
    ["bits per byte (measured)", *(f"{s:.0%}" for s in sparsities)],
    [
        [f"{masks}{', trained' if trained else ', at once'}", *(cost(masks, s, trained) for s in sparsities)]
        for masks in ("dense", "magnitude", "wanda")
        for trained in (False, True)
        if any(cost(masks, s, trained) for s in sparsities)
    ],
)

# %% [markdown]
# And the speed of writing: tokens per second, one step at a time, of the tiny language model and of single layers at
# the sizes of LLaMA and OPT with random weights.

# %%
steps = [r for r in recorded("decoding") if r["quantity"] == "tokens written"]
ways, batches = (list(dict.fromkeys(r[key] for r in steps)) for key in ("weights", "batch"))
table(
    ["decoder", "batch", *(f"{way} (tokens per second, measured)" for way in ways)],
    [
        [decoder, batch, *(f"{mean(steps, decoder=decoder, batch=batch, weights=way):.1f}" for way in ways)]
        for decoder in dict.fromkeys(r["decoder"] for r in steps)
        for batch in batches
    ],
)

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
try:
    shown = claims("flash_llm")
except FileNotFoundError as missing:
    shown = f"not all experiments have been recorded: {missing}"
shown

# %% [markdown]
# *published* values were read in the paper's abstract, in its repository or in its released code; those *from memory*
# could not be checked. Nothing here ran on a GPU: the kernel itself, its times against cuBLAS, Sputnik and SparTA, and
# the comparison with DeepSpeed and FasterTransformer are not tested. The model of the A100 rests on five constants
# that are given from memory, and is fitted to nothing; it has one thread block on each multiprocessor. Our sparse
# decoder keeps its cache and its attention in float32; the decoder in bfloat16 that it is compared with does not.
#
# Left out: pruning by Taylor scores and training of models with billions of parameters, split products on the model,
# and several GPUs. Our language model has seven million parameters, so its loss says little about OPT-30B.

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("flash_llm/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** Which position does the word of this row and column store?

# %%
from workbench.app.exercises import check, given, hint

row, column = given("flash_llm/position")
row, column

# %%
answer = ...
check("flash_llm/position", answer)

# %% [markdown]
# **2.** Six tiles hold these many nonzeros. How many bytes do they take, words and offsets together? **3.** Thirty-two
# words with these positions are stored at once. How many meet in the fullest bank?

# %%
given("flash_llm/bytes").tolist(), " ".join(map(str, given("flash_llm/conflict")))

# %%
size, conflict = ..., ...
check("flash_llm/bytes", size)

# %%
check("flash_llm/conflict", conflict)

# %% [markdown]
# **4.** How many operations does this product do for each byte? **5.** For how many tokens at most does memory set the
# pace on this machine?

# %%
given("flash_llm/intensity"), given("flash_llm/ridge")

# %%
intensity, tokens = ..., ...
check("flash_llm/intensity", intensity)

# %%
check("flash_llm/ridge", tokens)

# %% [markdown]
# **6.** Write the encoder of one tile, without padding: a function of a tile in half precision that returns its words,
# row by row.

# %%
given("flash_llm/words")  # rows and sparsity of the tiles that your function will be tried on

# %%
encode = ...  # def encode(tile): ...
check("flash_llm/words", encode)

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("flash_llm/words")
