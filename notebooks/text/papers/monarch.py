# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'Two block-diagonal matrices and a permutation in place of a dense one: fast, and still the Fourier
#       transform. Find the nearest one exactly, train with it, and see when low rank is better.'
#     thumbnail: 'record:transforms/projection error?matrix=Hadamard&n=64&structure=Monarch|low rank|block-diagonal'
#     title: 'Monarch: structured matrices that are fast and expressive'
# ---

# %% [markdown]
# # Monarch: structured matrices that are fast and expressive
#
# T. Dao, B. Chen, N. Sohoni, A. Desai, M. Poli, J. Grogan, A. Liu, A. Rao, A. Rudra, C. Ré, *Monarch: Expressive
# Structured Matrices for Efficient and Accurate Training*, 2022, [arXiv 2204.00595](https://arxiv.org/abs/2204.00595).
#
# A dense layer of width $n$ costs $n^2$ multiply-adds. Zeros at random places seldom make it faster, and low rank
# cannot hold a Fourier transform. This paper writes the matrix as two block-diagonal ones with a permutation between
# them. By the end you will have built one, found the nearest one to any matrix, and trained with it.
#
# Numbers carry a label. **counted** follows from structure, **measured** needed a clock or trained weights. Keep your
# changes in your own copy: `workbench copy monarch`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench import record
from workbench.app.notebook import claims, pictures, show, table

SIDE = {"tiny": 16, "small": 64, "full": 64}[os.environ.get("WORKBENCH_SIZE", "small")]

# %% [markdown]
# ## 1. The question
#
# How much does a layer of $n$ inputs and outputs cost as a dense matrix, with rank $\sqrt n$, and as two
# block-diagonal factors of $\sqrt n$ blocks each? Count multiply-adds for each row of inputs.

# %%
from kernels.transforms.monarch import monarch_work

widths = (64, 1024, 4096)


def factors_of(n):
    m = int(n**0.5)
    return monarch_work((m, m, m), (m, m, m), rows=1).flops // 2


table(
    ["width n", "dense (counted)", "rank sqrt(n) (counted)", "two factors (counted)"],
    [[f"{n:,}", f"{n * n:,}", f"{2 * n * int(n**0.5):,}", f"{factors_of(n):,}"] for n in widths],
)

# %% [markdown]
# Low rank and two factors cost the same, $2 n^{1.5}$. But a matrix of rank $\sqrt n$ throws most directions away.
#
# **The question: what can two block-diagonal factors hold that low rank cannot, and does training with them work?**
#
# ## 2. The picture
#
# The first two pictures are the factors, $L$ with the permutation in it, and $R$: of eight places in each, one has an
# entry. The third is their product, which ends without a single zero. Press play: each block of $R$ fills its columns
# in all rows.

# %%
from workbench.explorers.monarch.explorer import explorer

filling = explorer("dft", n=64, nblocks=8, permuted=True, section="factors", filled=3)
filling

# %% [markdown]
# **First insight: the permutation makes the difference.** Two block-diagonal matrices without it multiply to a
# block-diagonal matrix again. With it every input reaches every output, along exactly one path.
#
# ## 3. The formula and its reference
#
# With $R$ and $L$ block-diagonal, and $P$ the permutation that writes a vector as a square by rows and reads it by
# columns,
#
# $$M = P\,L\,P^T R, \qquad M_{s m + j,\; k m + p} = L_j[s, k]\; R_k[j, p]$$
#
# For fixed $j$ and $k$ the entries over $s$ and $p$ are a column times a row: **each part of the matrix has rank one.**
# Check the formula on a small one, entry by entry.

# %%
from kernels.transforms.monarch import monarch_dense

m, rng = 3, np.random.default_rng(0)
R, L = rng.standard_normal((2, m, m, m))
M = monarch_dense(R, L)
for s, j, k, p in np.ndindex(m, m, m, m):
    assert np.isclose(M[s * m + j, k * m + p], L[j, s, k] * R[k, j, p])
pictures({"|M|": np.abs(M), "part j = 0, k = 1": np.abs(M[0::m, m : 2 * m])}, "The product, and one part of rank one.")

# %% [markdown]
# So the nearest Monarch matrix is easy to find. Cut the matrix into its parts, take the singular value decomposition
# of each, and keep the first value. The squared error is what all parts drop.
#
# $$\min_{L, R} \|A - M\|_F^2 = \sum_{j,k} \sum_{i > 1} \sigma_i(A_{jk})^2$$
#
# Which of these matrices has parts of rank one? Guess before you run the cell.

# %%
from kernels.transforms.monarch import monarch_permutation, monarch_project
from workbench.papers.monarch.transforms import matrices, rank_error

order = monarch_permutation(SIDE)


def errors(a):
    return monarch_project(a)[2], monarch_project(a[:, order])[2], rank_error(a, int(SIDE**0.5))


table(
    ["matrix", "Monarch", "Monarch, inputs permuted", "low rank, as many parameters (counted)"],
    [[name, *(f"{x:.2g}" for x in errors(a))] for name, a in matrices(SIDE).items()],
)

# %% [markdown]
# The Fourier transform is exact once its inputs stand in the right order: the first step of the fast Fourier transform.
# Hadamard and Kronecker products need no order. A convolution (*circulant*) is **not** a single Monarch matrix. It is a
# product: transform, multiply, transform back. The cell below checks that. Then it prints the reference of a single
# Monarch product, which does each step as the formula writes it.

# %%
import inspect

from IPython.display import Markdown, display

from kernels.transforms.monarch import monarch_multiply, monarch_multiply_reference
from workbench.models.compression.monarch import monarch_conv

x, kernel = torch.randn(2, SIDE), torch.randn(SIDE)
wanted = torch.fft.ifft(torch.fft.fft(x) * torch.fft.fft(kernel)).real
assert torch.allclose(monarch_conv(x, kernel), wanted, atol=1e-4)
Markdown(f"```python\n{inspect.getsource(monarch_multiply_reference)}```")

# %% [markdown]
# ## 4. The fast form
#
# The kernel never permutes anything in memory. It takes a panel of inputs through both products while they lie in
# cache, and the second product reads across what the first one wrote. Both forms must agree, for any shape of blocks.

# %%
w1, w2 = rng.standard_normal((3, 8, 4)), rng.standard_normal((6, 5, 4))  # k q = l r = 24
x = rng.standard_normal((10, 12))
assert np.allclose(monarch_multiply(x, w1, w2), monarch_multiply_reference(x, w1, w2))
assert np.allclose(monarch_multiply(x, w1, w2), x @ monarch_dense(w1, w2).T)

# %% [markdown]
# `MonarchLinear` stands in the place of `torch.nn.Linear`, with gradients. One call projects a trained model, also
# yours, and another multiplies the factors out again.

# %%
from torch import nn

from workbench.models.compression.monarch import d2s_project, reverse_sparsify

mine = nn.Sequential(nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 48))
small = d2s_project(mine, nblocks=4)
before = small(torch.ones(1, 48))
reverse_sparsify(small)
assert torch.allclose(small(torch.ones(1, 48)), before, atol=1e-5)
d2s_project(mine, nblocks=4)

# %% [markdown]
# ## 5. Play
#
# Each cell of the grid is one part of the matrix, its bars are singular values. A projection keeps the first of each.
#
# 1. Start with the Fourier transform, inputs in their order. How much does a projection keep? Then permute the inputs.
# 2. Choose the convolution. Which order is better, and is either good?
# 3. Choose the layer of a sentence encoder and open *Error and size*. Which structure wins before any training?
# 4. Choose *Your own* and give it a matrix. `explorer(your_array)` does the same.

# %%
from workbench.papers import get

get("monarch").view(permuted=False)

# %% [markdown]
# **Second insight: flat or one bar.** All singular values of the transform as a whole are equal, so low rank must fail.
# The spectra of its parts are flat too, in the usual order. In the right order each part has a single bar.
#
# ## 6. The experiment
#
# `workbench run monarch` repeats everything at full size and writes records; from here on this notebook only reads
# them. First: can training *find* the Fourier transform? Three structures with equally many real numbers see random
# vectors and their transforms. The error is that of vectors which they have not seen.


# %%
def recorded(experiment):
    try:
        return record.read("monarch", experiment)["rows"]
    except FileNotFoundError:
        return []  # not run yet


def found(rows, quantity, **labels):
    return [r["value"] for r in rows if r["quantity"] == quantity and all(r.get(k) == x for k, x in labels.items())]


learnt = recorded("learned")
table(
    ["structure", "real numbers (counted)", "relative squared error, each seed (measured)"],
    [
        [name, f"{found(learnt, 'parameters', structure=name)[0]:,}",
         ", ".join(f"{x:.1e}" for x in found(learnt, "squared error", structure=name))]
        for name in dict.fromkeys(r["structure"] for r in learnt)
    ],
)  # fmt: skip

# %% [markdown]
# Now real training. A small net recognises handwritten digits: dense, with Monarch hidden layers, and with Monarch
# layers that are multiplied out for the last tenth of the steps. *Continue* leaves the learning rate as it was planned,
# *keep* lowers it only to a half before the switch, *rewarm* raises it again after the switch. Which of the three is
# best is decided on validation digits, which are neither trained on nor tested on.

# %%
net = recorded("digits")
table(
    ["training", "validation accuracy, mean", "test accuracy, mean (measured)", "parameters while sparse (counted)"],
    [
        [way, *(f"{np.mean(found(net, f'{part} accuracy', training=way)):.1%}" for part in ("validation", "test")),
         f"{found(net, 'parameters while sparse', training=way)[0]:,}"]
        for way in dict.fromkeys(r["training"] for r in net)
    ],
)  # fmt: skip

# %% [markdown]
# And a language model of bytes, with Monarch layers in its feed-forward part. Watch the loss where the factors are
# multiplied out: the outputs do not change, what follows may.

# %%
language = recorded("language")
figure = go.Figure()
for way in dict.fromkeys(r["training"] for r in language):
    mine = [r for r in language if r["training"] == way and r["quantity"] == "training loss"]
    figure.add_scatter(x=[r["step"] for r in mine], y=[r["value"] for r in mine], name=way, mode="lines")
figure.update_layout(xaxis_title="training step", yaxis_title="loss in nats (measured)", height=400)
show(figure, "Training loss of the language model in each way of training; empty until it has been recorded.")


# %%
def bits(way):
    """Return the bits per byte of the first half of the held-out text, and of the second."""
    return [np.mean(half) for half in np.array_split(found(language, "bits per byte of the text", training=way), 2)]


table(
    ["training", "bits per byte, text to choose on", "text to judge on (measured)", "feed-forward numbers (counted)"],
    [
        [way, *(f"{x:.3f}" for x in bits(way)), f"{found(language, 'parameters, feed-forward', training=way)[0]:,}"]
        for way in dict.fromkeys(r["training"] for r in language)
    ],
)

# %% [markdown]
# Compare the ways; each was trained once. Which of them lets the dense steps do something, and why does *continue*
# change so little? How far is each from the model that was dense all along?
#
# Last: a trained sentence encoder is projected, and trained for a short while to give what it gave. Low rank gets as
# many parameters and the same training. The cosine compares sentence vectors with those of the dense encoder.

# %%
from workbench.explorers.pruning.source import source

projected = recorded("projection")
cases = dict.fromkeys((r["model"], r["nblocks"], r["structure"]) for r in projected)


def cosine(trained, **labels):
    mine = [r for r in projected if r["quantity"] == "quality, cosine" and (r["steps"] > 0) == trained]
    return f"{np.mean(found(mine, 'quality, cosine', **labels)):.3f}"


table(
    ["model", "blocks", "structure", "relative error of weights", "cosine, projected", "cosine, trained (measured)"],
    [
        [source(model).title, blocks, structure,
         f"{found(projected, 'weight error', **labels)[0]:.3f}", cosine(False, **labels), cosine(True, **labels)]
        for model, blocks, structure in cases
        for labels in [{"model": model, "nblocks": blocks, "structure": structure}]
    ],
)  # fmt: skip

# %% [markdown]
# How fast is it? Layers of several widths, dense and with Monarch factors, for 32 and 512 rows of inputs.

# %%
times = [r for r in recorded("times") if r["work"] == "layer" and r["batch"] > 1]
sizes = dict.fromkeys((r["n"], r["nblocks"], r["batch"]) for r in times)


def milliseconds(n, nblocks, batch, run):
    return found(times, "time", n=n, nblocks=nblocks, batch=batch, run=run)[0]


table(
    ["width", "blocks", "rows", "dense, ms", "Monarch, ms (measured)"],
    [
        [n, blocks, batch, *(f"{milliseconds(n, blocks, batch, run):.3g}" for run in ("dense", "Monarch"))]
        for n, blocks, batch in sizes
    ],
)

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
try:
    shown = claims("monarch")
except FileNotFoundError as missing:
    shown = f"not all experiments have been recorded: {missing}"
shown

# %% [markdown]
# *published* values were read in the paper's abstract; those *from memory* could not be checked. Nothing here ran on a
# GPU. ViT, MLP-Mixer, GPT-2 and BERT are replaced by a net for digits, a language model of two layers that is trained
# for minutes, and sentence encoders; so a verdict on quality here says little about trainings of days.
#
# Left out: trainings that start from the Fourier transform (partial differential equations, magnetic resonance images),
# attention projections in the language model, and the recovery of the factors of a product of two Monarch matrices.
#
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("monarch/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** How many numbers do the two factors of this layer hold? **2.** Which number stands at this row and column of
# the product? Blocks of `R` and `L` are listed one by one.

# %%
from workbench.app.exercises import check, given, hint

given("monarch/parameters"), given("monarch/entry")

# %%
parameters, entry = ..., ...
display(check("monarch/parameters", parameters))
check("monarch/entry", entry)

# %% [markdown]
# **3.** These are the singular values of all four parts of a matrix. What is the relative error of its projection with
# rank 1? **4.** In which order must the inputs of the Fourier transform stand, for so many blocks? **5.** A matrix of
# order $p$ has one small matrix along each axis of a tensor. How many multiply-adds does one row of inputs take?

# %%
given("monarch/error"), given("monarch/order"), given("monarch/higher_order")

# %%
error, inputs, adds = ..., ..., ...
display(check("monarch/error", error), check("monarch/order", inputs))
check("monarch/higher_order", adds)

# %% [markdown]
# **6.** Write the product: a function of `x` (rows, k p), `w1` (k, q, p) and `w2` (l, s, r) with l r = k q.

# %%
given("monarch/product")  # k, and two widths of the factors that your function will be tried on

# %%
multiply = ...  # def multiply(x, w1, w2): ...
check("monarch/product", multiply)

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("monarch/product")
