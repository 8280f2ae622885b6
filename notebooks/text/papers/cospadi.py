# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: A truncated SVD puts all outputs of a layer into one subspace. Let every output choose its own atoms
#       from a dictionary, and fit them to what the layer gives.
#     thumbnail: 'record:matrices/relative error of a matrix''s
#       outputs?model=minilm&layer=layers.0.query&ratio=0.5&method=SVD|SVD-LLM|CoSpaDi'
#     title: 'CoSpaDi: every output picks its atoms'
# ---

# %% [markdown]
# # CoSpaDi: every output picks its atoms
#
# D. Makhov, D. Shopkhoev, M. Zhussip, A. Ali, S. Lefkimmiatis, *CoSpaDi: Compressing LLMs via Calibration-Guided Sparse
# Dictionary Learning*, 2025, [arXiv 2509.22075](https://arxiv.org/abs/2509.22075).
#
# Two thin matrices in place of a thick one: that is how the truncated SVD compresses a layer. All outputs then live in
# one small subspace. This paper keeps the number of values and gives every output a subspace of its own. By the end
# you will have coded a vector with a dictionary by hand, learnt a dictionary from the weights of a real layer, and
# measured when it pays.
#
# Numbers carry a label. **counted** follows from structure, **measured** needed a clock or trained weights. Keep your
# changes in your own copy: `workbench copy cospadi`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench import record
from workbench.app.notebook import claims, pictures, show, table

SWEEPS = {"tiny": 2, "small": 6, "full": 12}[os.environ.get("WORKBENCH_SIZE", "small")]

# %% [markdown]
# ## 1. The question
#
# Take a layer of a sentence encoder that ships with the workbench: 512 outputs, each a row of 128 weights. Half of the
# values are to go. As a product of two thin matrices it may then have this rank:

# %%
from kernels.factor.svd import rank_for_ratio, svd_plain
from workbench.models.language import small_encoder
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers

NAME, RATIO = "layers.0.feed_in", 0.5
model = small_encoder.load()
weight = linear_layers(model)[NAME].weight.detach().double().numpy()  # (outputs m, inputs n)
m, n = weight.shape
rank = rank_for_ratio(RATIO, (m, n))
f"{m} outputs, {n} inputs: rank {rank}, which takes {rank * (m + n):,} of {m * n:,} values (counted)"

# %% [markdown]
# So all rows must make do with that many directions, **the same ones for all of them**. How much is lost depends on
# how fast the singular values fall.

# %%
low = svd_plain(weight, rank)
figure = go.Figure(go.Bar(y=low.values, marker_color=["#0072B2" if i < rank else "#D55E00" for i in range(n)]))
figure.update_layout(xaxis_title="singular value, the largest first", yaxis_title="size (measured)", height=300)
show(figure, f"Singular values of the layer; those behind the first {rank} are left out by the truncated SVD.")

# %% [markdown]
# **The question: with the same number of values, could every output have its own directions?**
#
# ## 2. The picture
#
# Make $k$ directions, more than the rank, and call them *atoms*. Let each output use $s$ of them, with $s = k / 2$. A
# product of a dictionary and sparse codes takes $k\, n + s\, m$ values: as many as before, if $k$ is chosen well.

# %%
from workbench.data import text
from workbench.models.compression.cospadi import trace

batches = list(model.windows(text.sample(12_000)[0], 64).split(16))
known = gather_statistics(model, batches)
shown = trace(weight, None, RATIO, iters=SWEEPS)
k, s = shown["k"], shown["s"]
use = np.abs(shown["coefficients"])
both = {
    f"SVD: {rank} directions, used by every output": np.abs(low.left.T)[:, :128],
    f"dictionary: {k} atoms, {s} of them for an output": use[:, :128],
}
pictures(both, "Coefficients of 128 outputs: all places taken by the SVD, half of them by the dictionary.", root=True)

# %% [markdown]
# Every column is one output, every row a direction. On the right each column has equally many marks, at places of its
# own. Two neighbouring outputs share some atoms and not others.
#
# **First insight: the number of possible subspaces is huge.** There are $\binom{k}{s}$ ways to choose $s$ of $k$ atoms,
# and every output takes the one that suits it.

# %%
import math

first, second = (set(np.flatnonzero(use[:, i])) for i in (0, 1))
f"output 0 and output 1 share {len(first & second)} of their {s} atoms (measured), out of {math.comb(k, s):.1e} \
possible sets (counted)"

# %% [markdown]
# ## 3. The formula and its reference
#
# With $y = W x$, $W$ of $m \times n$, a dictionary $D$ of $n \times k$ and codes $S$ of $k \times m$:
#
# $$W^T \approx D S, \qquad \min_{D, S} \|W^T - D S\|_F \quad \text{with } s \text{ entries in each column of } S$$
#
# To find the best $s$ atoms of a vector is hard. *Orthogonal matching pursuit* takes them one by one: the atom that
# points most along what is left, then all coefficients anew by least squares. In two dimensions, with three atoms:


# %%
def pursue(d, y, s):
    taken, left = [], y
    for _ in range(s):
        taken.append(int(np.argmax(np.abs(d.T @ left))))
        x = np.linalg.lstsq(d[:, taken], y, rcond=None)[0]
        left = y - d[:, taken] @ x
    return taken, x, np.linalg.norm(left)


atoms = np.array([[1.0, 0.6, 0.0], [0.0, 0.8, 1.0]])
table(["atoms of an output", "which", "coefficients", "length of what is left"],
      [[count, str(taken), str(x.round(3)), f"{left:.3f}"]
       for count in (1, 2) for taken, x, left in [pursue(atoms, np.array([2.0, 1.4]), count)]])  # fmt: skip

# %% [markdown]
# The dictionary itself is learnt by *K-SVD*. An atom is used by some outputs. Take away from them what the other atoms
# explain: what is left, $E$, should be as nearly as possible of rank one. A few power iterations, begun at the old
# atom, give a better one:
#
# $$d \leftarrow \frac{E E^T d}{\|E E^T d\|} \quad \text{(8 times)}, \qquad x = E^T d$$
#
# This is the reference of one sweep over all atoms.

# %%
import inspect

from IPython.display import Markdown, display

from kernels.factor.ksvd import ksvd_sweep_reference

Markdown(f"```python\n{inspect.getsource(ksvd_sweep_reference)}```")

# %% [markdown]
# Which error matters? Not that of the weights: that of the outputs, for the inputs $X$ that the layer really sees. With
# the *Gram matrix* $X^T X = R^T R$ the two become one problem, by *whitening*:
#
# $$\|X (W^T - D S)\|_F = \|R\, W^T - (R D)\, S\|_F$$
#
# Learn the dictionary of $R W^T$, and multiply it with $R^{-1}$ at the end. Try the identity on numbers:

# %%
from kernels.factor.whitening import whiten

rng = np.random.default_rng(0)
x, change = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6)), rng.standard_normal((6, 4))
r = whiten(x.T @ x).factor
assert np.isclose(np.linalg.norm(x @ change), np.linalg.norm(r @ change), rtol=1e-9)
f"{np.linalg.norm(x @ change):.6f} from 500 inputs, {np.linalg.norm(r @ change):.6f} from a 6 x 6 matrix (counted)"

# %% [markdown]
# ## 4. The fast form
#
# The kernel codes all vectors at once and never looks at them: it needs the Gram matrix of the atoms and the products
# with them. Both kernels must agree with their references.

# %%
from kernels.factor.ksvd import ksvd_sweep
from kernels.factor.omp import omp, omp_reference

small, vectors = rng.standard_normal((20, 30)), rng.standard_normal((20, 50))
small /= np.linalg.norm(small, axis=0)
codes = omp(small, vectors, 5)
assert np.abs(codes.as_csr().toarray().T - omp_reference(small, vectors, 5)).max() < 1e-9
swept, recoded, _ = ksvd_sweep(small, codes, vectors)
wanted, x = ksvd_sweep_reference(small, codes.as_csr().toarray().T, vectors)
assert np.abs(swept - wanted).max() < 1e-9 and np.abs(recoded.as_csr().toarray().T - x).max() < 1e-9

# %% [markdown]
# With $s = k$ every output uses all atoms, and nothing is left to choose. What does the method become then?

# %%
from kernels.factor.svd import svd_llm
from workbench.models.compression.cospadi import dictionary_factors

gram = known[NAME].gram
same = dictionary_factors([weight], gram, 20, 20, iters=0, precision=np.float64).weights()[0]
low_rank = svd_llm(weight, gram, 20)
assert np.allclose(same, low_rank.left @ low_rank.right, atol=1e-6)

# %% [markdown]
# The truncated SVD of the whitened weights, known as SVD-LLM. The codes need no training, so one call puts the method
# into a model, also into yours:

# %%
from workbench.models.compression.cospadi import cospadi

compressed = cospadi(model, batches, RATIO, iters=1)
with torch.no_grad():
    before, after = (torch.nn.functional.normalize(each(batches[0]).mean(1), dim=1) for each in (model, compressed))
print(f"cosine of sentence vectors before and after: {float((before * after).sum(1).mean()):.3f} (measured, same text)")
compressed.layers[0].feed_in

# %% [markdown]
# ## 5. Play
#
# The explorer shows whole models, each matrix compressed to the same share.
#
# 1. *Sparse dictionary (CoSpaDi)* at 0.5 is marked. Find the SVD of whitened weights at 0.5. It stores fewer bytes.
#    Why, although both have as many values?
# 2. Which of the two is better at *equal bytes*? Look along the axis.
# 3. Add *Truncated SVD*, which does not know the inputs. How far does it fall behind?

# %%
from workbench.papers import get

get("cospadi").view()

# %% [markdown]
# And one matrix, sweep by sweep. Change the ratio, the number of atoms for each coefficient $k / s$, and whether the
# error is that of the outputs or of the weights (`use_inputs`), and run the cell again.

# %%
ratio, rho, use_inputs = 0.5, 2.0, True
found = trace(weight, known[NAME].gram if use_inputs else None, ratio, rho=rho, iters=SWEEPS)
stages = ["coded" if i % 2 == 0 else "swept" for i in range(len(found["history"]))]
figure = go.Figure(
    go.Scatter(y=found["history"], text=stages, mode="lines+markers", name=f"k = {found['k']}, s = {found['s']}")
)
figure.add_hline(y=found["svd_error"], line_dash="dash", annotation_text=f"SVD of rank {found['rank']}")
figure.update_layout(xaxis_title="stage: coded, swept, coded, ...", yaxis_title="relative error (measured)", height=340)
show(
    figure, "The error by stage: it falls in every sweep and may rise when codes are chosen anew; the SVD's is a line."
)

# %% [markdown]
# Sweeps never raise the error. Choosing codes anew may: pursuit is greedy, and a set of atoms that was good for the old
# dictionary can be better than the one it takes for the new. So the best of all stages is kept.
#
# How many outputs use each atom? Nobody decided that.

# %%
figure = go.Figure(go.Histogram(x=found["uses"], nbinsx=30))
figure.update_layout(xaxis_title="outputs that use an atom (measured)", yaxis_title="atoms", height=280)
show(figure, "Histogram of how many outputs use each atom.")

# %% [markdown]
# ## 6. The experiment
#
# `workbench run cospadi` repeats everything at full size and writes records; from here on this notebook only reads
# them. First single matrices: the error of the outputs on calibration text, with equally many values.


# %%
def recorded(experiment):
    try:
        return record.read("cospadi", experiment)["rows"]
    except FileNotFoundError:
        return []  # not run yet


def mean(rows, quantity, **labels):
    found = [
        r["value"] for r in rows if r["quantity"] == quantity and all(r.get(key) == x for key, x in labels.items())
    ]
    return np.mean(found) if found else np.nan


from workbench.explorers.pruning.source import source

ERROR = "relative error of a matrix's outputs"
matrices = recorded("matrices")
cases = sorted({(r["model"], r["ratio"]) for r in matrices})
titles = {model: source(model).title for model, _ in cases}
table(
    ["mean error of the outputs (measured)", "SVD", "SVD-LLM", "CoSpaDi"],
    [
        [f"{titles[model]}, {ratio:.0%} fewer values",
         *(f"{mean(matrices, ERROR, model=model, ratio=ratio, method=x):.4f}" for x in ("SVD", "SVD-LLM", "CoSpaDi"))]
        for model, ratio in cases
    ],
)  # fmt: skip

# %% [markdown]
# Why twice as many atoms as coefficients? Many atoms leave few coefficients, and the other way round.

# %%
spreads = recorded("spreads")
ratios = sorted({r["rho"] for r in spreads})
figure = go.Figure()
for counted in ("values", "values and mask"):
    errors = [mean(spreads, ERROR, counted=counted, rho=rho) for rho in ratios]
    figure.add_scatter(x=ratios, y=errors, name=f"{counted} counted", mode="lines+markers")
figure.update_layout(xaxis_title="atoms for each coefficient, k / s", yaxis_title="mean error (measured)", height=320)
show(figure, "Mean error of the outputs by k / s, with values and with values and mask counted.")

# %% [markdown]
# Matrices can share a dictionary. Those of query, key and value have the same inputs; the same projection of two blocks
# has not, so that its whitening is a compromise.

# %%
GROUP = "relative error of a group's outputs"
groups = recorded("shared")
kinds = list(dict.fromkeys(r["group"] for r in groups))
table(
    ["mean error of a group (measured)", *kinds],
    [
        [method, *(f"{mean(groups, GROUP, method=method, group=kind):.4f}" for kind in kinds)]
        for method in dict.fromkeys(r["method"] for r in groups)
    ],
)

# %% [markdown]
# Values are not bytes. Which atoms an output takes must be stored too: one bit for every atom and output. With those
# counted, and every method held to the bytes of 2:4, this is what is left of two encoders.

# %%
encoders, names = recorded("encoder"), {"svd": "SVD", "nm_magnitude": "magnitude 2:4", "nm_wanda": "Wanda 2:4",
                                        "asvd": "SVD-LLM", "cospadi": "CoSpaDi"}  # fmt: skip
quantities = ("mean cosine of sentence vectors before and after", "mean output error of the layers",
              "mean weight error of the layers")  # fmt: skip
models = dict.fromkeys(r["model"] for r in encoders)
table(
    ["model, method (measured)", "cosine", "error of outputs", "error of weights"],
    [[f"{titles[model]}, {names[key]}", *(f"{mean(encoders, q, model=model, method=key):.3f}" for q in quantities)]
     for model in models for key in names],
)  # fmt: skip

# %% [markdown]
# **Second insight: compare the last two columns for the two SVDs.** Plain SVD changes the weights less than SVD-LLM,
# and the outputs more. Who is judged by outputs must be fitted to them.
#
# And time: the products of one transformer block of width 1,024, of which 30 per cent of the values are gone.

# %%
times = [r for r in recorded("products") if r["width"] == 1024 and r["ratio"] == 0.3]
tokens = sorted({r["tokens"] for r in times})
table(
    ["ms (measured)", *(f"{t} tokens" for t in tokens)],
    [
        [run, *(f"{mean(times, 'time of the products of a block', run=run, tokens=t):.2f}" for t in tokens)]
        for run in dict.fromkeys(r["run"] for r in times)
    ],
)

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
try:
    shown_claims = claims("cospadi")
except FileNotFoundError as missing:
    shown_claims = f"not all experiments have been recorded: {missing}"
shown_claims

# %% [markdown]
# *published* values were read in the abstract or in the tables of a follow-up by the same group; those *from memory*
# could not be checked. Our models are small: two sentence encoders and a language model of seven million parameters,
# compressed with 3 to 6 sweeps, where the paper takes 60.
#
# Left out: models of billions of parameters and their benchmarks, coefficients with fewer bits (the paper pays for the
# places by shortening the coefficients), and another ratio for every layer.
#
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("cospadi/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** How many atoms, and how many of them for each output, does this layer get with $k / s = 2$? Give both as a
# list. **2.** How many bits do these factors take, with 16 bits a value and a bitmap? **3.** Which two atoms (columns,
# from 0) does orthogonal matching pursuit take for this vector, and in which order? Give a list of two numbers.

# %%
from workbench.app.exercises import check, given, hint

given("cospadi/sizes"), given("cospadi/bits"), given("cospadi/pursuit")

# %%
sizes, bits, taken = ..., ..., ...
display(check("cospadi/sizes", sizes), check("cospadi/bits", bits))
check("cospadi/pursuit", taken)

# %% [markdown]
# **4.** By how much do the outputs on all calibration data change, if a row of the weights changes by this much? **5.**
# How many multiply-adds does a token take with these factors, if every atom is used?

# %%
given("cospadi/whitened"), given("cospadi/multiply_adds")

# %%
change, multiply_adds = ..., ...
display(check("cospadi/whitened", change))
check("cospadi/multiply_adds", multiply_adds)

# %% [markdown]
# **6.** Write orthogonal matching pursuit for one vector: a function of the dictionary, the vector and the number of
# atoms that returns the code, an array with one number for every atom.

# %%
given("cospadi/code")  # seeds of the dictionaries and vectors that your function will be tried on

# %%
code = ...  # def code(d, y, s): ...
check("cospadi/code", code)

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("cospadi/code")
