# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'Every row of a weight picks a few atoms of its own from a small basis: a product of a dense and a
#       sparse matrix, and a training that chooses the places.'
#     thumbnail: 'record:digits/test accuracy?seed=1&ratio=16&way=dense|SVD, trained|frozen places|straight through'
#     title: 'DSFormer: a dense basis times a sparse choice'
# ---

# %% [markdown]
# # DSFormer: a dense basis times a sparse choice
#
# R. Chand, Y. Prabhu, P. Kumar, *DSFormer: Effective Compression of Text-Transformers by Dense-Sparse Weight
# Factorization*, 2023, [arXiv 2312.13211](https://arxiv.org/abs/2312.13211).
#
# A truncated SVD squeezes all rows of a weight matrix into one subspace of few dimensions. What if each row could
# choose its own? By the end you will have written such a product, counted what its choices cost in bits, and seen a
# training choose them.
#
# We could read the abstract and summaries of this paper, not its full text. **Block sizes, the search for the factors
# and the details of the training are reconstructions of ours**, and are called so below. Numbers carry a label:
# **counted** follows from structure, **measured** needed a clock or trained weights. Keep your changes in your own
# copy: `workbench copy dsformer`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench import record
from workbench.app.notebook import claims, pictures, show, table
from workbench.models.language import small_encoder

SWEEPS = {"tiny": 1, "small": 4, "full": 6}[os.environ.get("WORKBENCH_SIZE", "small")]
model = small_encoder.load()
weight = model.layers[0].query.weight.detach().numpy()

# %% [markdown]
# ## 1. The question
#
# How many directions does a weight matrix need? If few, a truncated SVD stores little and loses little. Here is what
# the best matrix of each rank leaves of the query matrix of a small sentence encoder.

# %%
spectrum = np.linalg.svd(weight, compute_uv=False)
left = np.sqrt(np.cumsum(spectrum[::-1] ** 2)[::-1]) / np.linalg.norm(spectrum)
figure = go.Figure(go.Scatter(x=np.arange(len(left)), y=left, name="truncated SVD"))
figure.update_layout(xaxis_title="rank", yaxis_title="relative error (measured)", height=320)
show(figure, "The relative error falls slowly with the rank: no small rank comes near the matrix.")

# %% [markdown]
# The curve falls slowly. At half of the values, a rank of a quarter of the side, much is lost.
#
# **The question: at equally many values, how much less is lost if every row picks a subspace of its own?**
#
# ## 2. The picture
#
# The matrix is cut into blocks of columns. Each block becomes a *basis* of atoms, dense and small, times a matrix $S$
# of which every row has the same few entries. Below are the entries of $S$ for a few rows of one block: which atoms
# they take.

# %%
from workbench.models.compression.dsformer import DSBlockSpec, ds_factorize

spec = DSBlockSpec(block_cols=32, atoms=32, nnz_per_row=8)
factors = ds_factorize(weight, spec, sweeps=SWEEPS)
chosen = np.zeros((24, spec.atoms))
np.put_along_axis(chosen, factors.idx[0, 0, :24].astype(int), np.abs(factors.val[0, 0, :24]), axis=1)
pictures({"|S|, 24 rows of the first block": chosen}, "Eight marks in each of 24 rows, at other places in every row.")

# %% [markdown]
# Each row has eight marks. Many rows take the first atoms, which serve most of them; the others differ from row to row.
# Each set of eight atoms spans another subspace. How many different sets are there, and what is the product's rank?

# %%
from math import comb

sets, taken = comb(spec.atoms, spec.nnz_per_row), len(np.unique(factors.idx[0, 0], axis=0))
rank = np.linalg.matrix_rank(factors.to_dense())
f"{sets:,} sets of atoms are possible in a block (counted); the {len(weight)} rows of the first block take {taken} of \
them, and the rank of the product is {rank} (measured)"

# %% [markdown]
# **First insight: the product has few values, but not a low rank.** It owes that to the choice of every row.
#
# ## 3. The formula and its reference
#
# For a block of $b_r$ rows and $b_c$ columns, with $r$ atoms and $s$ entries in a row:
#
# $$W_{pq} \approx S_{pq} D_{pq}, \qquad y_p = \sum_q S_{pq}\,(D_{pq}\, x_q), \qquad
# \text{values} = PQ\,(r\, b_c + b_r\, s)$$
#
# It is a product, not a sum of a dense and a sparse matrix. Each row of $S$ is found by *orthogonal matching pursuit*:
# take the atom most alike to what is left, fit all taken atoms again, and repeat. Then *K-SVD* fits each atom to the
# rows that use it, and both take turns. That search is a reconstruction.

# %%
import inspect

from IPython.display import Markdown, display

from kernels.factor.omp import omp, omp_reference

atoms, rows = factors.D[0, 0].T.astype(float), weight[:6, :32].T.astype(float)
wanted = omp_reference(atoms, rows, 3)
found = omp(np.ascontiguousarray(atoms), np.ascontiguousarray(rows), 3)
assert np.allclose(found.as_csr().toarray().T, wanted)
Markdown(f"```python\n{inspect.getsource(omp_reference)}```")

# %% [markdown]
# Two ends are known in closed form. If a row takes all atoms of one block as wide as the matrix, $s = r$, the product
# is the truncated SVD. If it takes all atoms of a full basis, it is the matrix.

# %%
rank = 20
one = ds_factorize(weight.astype(float), DSBlockSpec(block_cols=128, atoms=rank, nnz_per_row=rank), sweeps=0)
assert np.isclose(np.linalg.norm(weight - one.to_dense()), np.linalg.norm(spectrum[rank:]), rtol=1e-6)
full = ds_factorize(weight.astype(float), DSBlockSpec(block_cols=16, atoms=16, nnz_per_row=16), sweeps=0)
assert np.allclose(full.to_dense(), weight)


# %% [markdown]
# Now make the blocks narrower, with sizes chosen so that the number of values stays the same. How far below that of
# the SVD does the error fall?


# %%
def error(near):
    return np.linalg.norm(weight - near) / np.linalg.norm(weight)


from workbench.models.compression.dsformer import spec_for_ratio

lines = [["truncated SVD", f"{left[weight.size // 2 // sum(weight.shape)]:.3f}"]]
for width in (128, 64, 32, 16):
    sizes = spec_for_ratio(weight.shape, 2, width)
    near = ds_factorize(weight, sizes, sweeps=SWEEPS).to_dense()
    lines.append([f"blocks of {width}: {sizes.nnz_per_row} of {sizes.atoms} atoms", f"{error(near):.3f}"])
table(["half of the values", "relative error (measured)"], lines)

# %% [markdown]
# ## 4. The fast form
#
# A dense product for each block of inputs, then one sparse product. They run on the workbench's kernels and must agree
# with the plain matrix.

# %%
x = np.random.default_rng(0).standard_normal((5, weight.shape[1]), np.float32)
assert np.abs(factors.matmul(x) - x @ factors.to_dense().T).max() < 1e-4

# %% [markdown]
# One call puts it into a model, also into yours. `workbench.models.layer_files` keeps it in a file.

# %%
from workbench.models.compression.ds_linear import dsformer

small = dsformer(model, 2.0, sweeps=SWEEPS)
small.layers[0].query

# %% [markdown]
# **The training.** Factors of the weights alone know nothing of the task. The *straight-through factorizer* holds a
# dense matrix $L$, multiplies with its factorisation, and lets the gradient pass as if nothing had happened:
#
# $$\hat W = F(L), \qquad \frac{\partial \ell}{\partial L} := \frac{\partial \ell}{\partial \hat W}$$
#
# So the task moves $L$, and with it which atoms a row takes. Each factorisation starts from the bases of the last one;
# that, too, is our reconstruction.

# %%
from workbench.models.compression.ds_linear import DSLinear

layer = DSLinear(factors, None, "stf", torch.from_numpy(weight))
given = torch.randn(weight.shape)
(layer.weight_now() * given).sum().backward()
assert torch.equal(layer.latent.grad, given)

# %% [markdown]
# ## 5. Play
#
# The explorer factorises any layer, or your own matrix.
#
# 1. Find two rows of $S$ that share no atom in the first block.
# 2. Make the blocks narrower and wider. What happens to the error, and what to the bytes of the indices?
# 3. Take one block and pull the coefficients up to the atoms. Which line does the error meet?

# %%
from workbench.papers import get

get("dsformer").view()

# %% [markdown]
# ## 6. The experiment
#
# `workbench run dsformer` repeats everything at full size and writes records; from here on this notebook only reads
# them. First the query and value matrices of a larger encoder, MiniLM, at equal values and at equal bits.


# %%
def recorded(experiment):
    try:
        return record.read("dsformer", experiment)["rows"]
    except FileNotFoundError:
        return []  # not run yet


def mean(rows, quantity, **labels):
    found = [r["value"] for r in rows if r["quantity"] == quantity and all(r.get(k) == v for k, v in labels.items())]
    return np.mean(found) if found else float("nan")


ERROR = "relative error of a matrix's weights"
matrices = recorded("matrices")
kinds = [{"method": "SVD"}, {"method": "magnitude"}]
kinds += [{"method": "dense-sparse blocks", "columns": w} for w in (384, 64, 32, 16)]
table(
    ["mean error (measured)", *(f"{ratio}x, {count}" for count in ("values", "bits") for ratio in (2.0, 2.8, 3.57))],
    [
        [f"blocks of {kind['columns']} columns" if "columns" in kind else kind["method"]]
        + [
            f"{mean(matrices, ERROR, count=c, ratio=r, **kind):.3f}"
            for c in ("values", "bits")
            for r in (2.0, 2.8, 3.57)
        ]
        for kind in kinds
    ],
)

# %% [markdown]
# The narrower the blocks, the smaller the error, as long as only values count. But each value then needs more bits to
# say where it belongs. **Second insight: count the places.** Once the bits of the places are part of the budget, to
# keep the largest weights wherever they are, which is magnitude pruning, is hard to beat.
#
# Next, a net for handwritten digits, whose two hidden layers are made 9, 16 and 21 times smaller and trained on.

# %%
digits = recorded("digits")
ways = ("SVD, trained", "frozen places", "straight through", "straight through, largest")
stages = ("test accuracy before training", "test accuracy before the polish", "test accuracy")
table(
    ["way, 16x", "before training", "after the search", "at the end (measured)"],
    [[way, *(f"{mean(digits, stage, way=way, ratio=16):.1%}" for stage in stages)] for way in ways],
)

# %%
figure = go.Figure()
for ratio in (9, 16, 21):
    y = [mean(digits, "share of places that change in a step", way=ways[2], ratio=ratio, part=p) for p in range(10)]
    figure.add_scatter(x=np.arange(1, 11), y=y, name=f"{ratio}x", mode="lines+markers")
figure.update_layout(
    xaxis_title="tenth of the search", yaxis_title="places that change in a step (measured)", height=340
)
show(figure, "The share of places that change in a step, by tenths of the search; empty until it has been recorded.")

# %% [markdown]
# The places are chosen early and settle. Compare the two middle rows of the table: on digits, to train only the values,
# at places that the weights alone have chosen, reaches as far in the end. What the paper gains on language tasks by
# choosing the places does not show here.
#
# Last, two sentence encoders: the small one that ships with the workbench, and MiniLM, which is itself distilled from a
# larger model. Each way is trained for so many steps to give what the dense encoder gives. Texts near each other before
# should stay near each other.

# %%
from workbench.explorers.pruning.source import source

encoder = recorded("encoder")
NEAR, WAYS = "share of the 10 nearest texts that stay", ("SVD", "frozen places", "straight through")
trained = {(r["model"], r["ratio"]): r["steps"] for r in encoder if r["quantity"] == NEAR and r["stage"] == "trained"}
table(
    ["nearest texts that stay (measured)", "steps", *(f"{way}, {s}" for s in ("before", "after") for way in WAYS)],
    [
        [f"{source(model).title}, {ratio:g}x", steps]
        + [f"{mean(encoder, NEAR, model=model, ratio=ratio, way=way, stage=stage):.1%}"
           for stage in ("one-shot", "trained") for way in WAYS]
        for (model, ratio), steps in trained.items()
    ],
)  # fmt: skip

# %% [markdown]
# The small encoder is an easy case: even the truncated SVD keeps nine of ten neighbours. MiniLM tells the methods
# apart. Which is ahead there, and by how much? And do so few steps bring back what was lost?
#
# ## 7. The claim beside ours, and what was left out

# %%
try:
    shown = claims("dsformer")
except FileNotFoundError as missing:
    shown = f"not all experiments have been recorded: {missing}"
shown

# %% [markdown]
# *published* values stand in the abstract; those *from memory* come from summaries by others. Reconstructions of ours:
# the sizes of blocks and the rule that turns a ratio into sizes, orthogonal matching pursuit and K-SVD as the search,
# the warm start of every factorisation, and the polish of the values at the end. The way called *straight through,
# largest* is ours.
#
# Left out: GLUE and SQuAD, BERT and ALBERT, quantised models, and the paper's own baselines with Fisher weights. Digits
# are easy, and the encoder is judged by how alike its vectors stay, not by a task.
#
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("dsformer/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# The first three have sizes of their own. **1.** How many values do these factors hold? **2.** How many bits do these
# take, places included? **3.** Which rank may a truncated SVD have with as many values as these?

# %%
from workbench.app.exercises import check, given, hint

given("dsformer/values"), given("dsformer/bits"), given("dsformer/rank")

# %%
values, bits, rank = ..., ..., ...
display(check("dsformer/values", values), check("dsformer/bits", bits))
check("dsformer/rank", rank)

# %% [markdown]
# **4.** From how many sets of atoms can a row choose? **5.** Which two atoms does the pursuit take?

# %%
given("dsformer/subspaces"), given("dsformer/pursuit")

# %%
sets, atoms = ..., ...
display(check("dsformer/subspaces", sets))
check("dsformer/pursuit", atoms)

# %% [markdown]
# **6.** Write the product for one vector: a function of `D` (blocks, atoms, columns), `idx` and `val` (blocks, rows, s)
# and `x` that returns one number for each row.

# %%
given("dsformer/multiply")  # sizes of the factors that your function will be tried on

# %%
multiply = ...  # def multiply(D, idx, val, x): ...
check("dsformer/multiply", multiply)

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("dsformer/multiply")
