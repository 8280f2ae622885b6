# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'A tour in ten minutes: run a kernel, see a matrix, meet the papers,
#       try an exercise.'
#     title: Start here
# ---

# %% [markdown]
# # Start here
#
# Sparse Workbench lets you run and inspect methods of sparse computing, one paper at a time. This tour takes ten
# minutes: you run a kernel, see a matrix, meet the papers, open a dashboard and try an exercise.
#
# Run a cell with Shift+Enter. To keep your changes, work on a copy of your own: `workbench copy start_here` in a
# terminal makes one that updates never touch.

# %% workbench={"step": "Loading"}
import os

import numpy as np

import kernels
from workbench.data.matrices import rmat

SCALE = {"tiny": 6, "small": 10, "full": 13}[os.environ.get("WORKBENCH_SIZE", "small")]

# %% [markdown]
# ## 1. The folders
#
# | folder | content | which others it uses |
# |---|---|---|
# | `kernels` | what is computed: arrays in, arrays out, fast in C++ | nothing |
# | `widgets` | what is seen: plain data in, a picture out | kernels |
# | `workbench` | papers, machine models, data, experiments, the command line | both |
# | `notebooks` | walk-throughs of papers, and dashboards | all |
#
# The import line is the address: what stands in `kernels/matmul/spgemm.py` is `kernels.matmul.spgemm`.

# %%
f"instruction set in use: {kernels.isa()}, threads: {kernels.get_num_threads()}"

# %% [markdown]
# ## 2. Run a kernel
#
# A sparse matrix stores its entries only. Here is a random graph with a power law, as a matrix: most rows are short,
# a few are long.

# %%
graph = rmat(SCALE, edge_factor=8)
row_lengths = np.diff(graph.indptr)
f"{graph.shape[0]:,} rows, {graph.nnz:,} entries; longest row {row_lengths.max()}, median {np.median(row_lengths):.0f}"

# %% [markdown]
# The entry $(i, j)$ of $C = A B$ is $c_{ij} = \sum_k a_{ik} b_{kj}$; only places where both are stored count. For a
# graph, $A A$ counts the paths of two steps. `spgemm` is our fast form. Every kernel has two companions:
# `spgemm_reference` is the shortest correct NumPy, written to be read, and `spgemm_work` counts the operations.

# %%
from kernels.matmul.spgemm import spgemm, spgemm_work

paths = spgemm(graph, graph)
paths

# %%
peer = graph @ graph  # SciPy's
peer.sort_indices()
assert (paths.indptr == peer.indptr).all() and (paths.indices == peer.indices).all()
assert np.allclose(paths.data, peer.data, rtol=1e-12)
spgemm_work(graph, graph)

# %% [markdown]
# ## 3. See a matrix
#
# Drag to zoom, move over entries with the arrow keys, reorder the rows, and look at the strips at the margins. At full
# zoom every square is one entry. The menu exports the picture, its data, and the five lines of Python that remake it.

# %%
from widgets.views.sparsity import SparsityView

SparsityView(graph)

# %% [markdown]
# ## 4. The papers
#
# Each paper has one key, which names its folder, notebook, results and tests. `state` says how complete it is.

# %%
from IPython.display import Markdown

from workbench.papers import catalog

rows = [f"| `{p.key}` | {p.title} | {p.year} | {p.family} | {p.state} |" for p in catalog().values()]
Markdown("\n".join(["| key | title | year | family | state |", "|---|---|---|---|---|", *rows]))

# %% [markdown]
# Open a walk-through from the folder `papers` on the left. In a terminal, `workbench papers` prints this table with
# all claims, and `workbench run smash` runs a paper's experiment on this machine and judges each claim.

# %% [markdown]
# ## 5. Dashboards
#
# The launcher (the + above the file list) has a card for the dashboards; `workbench serve` shows the same gallery to
# your browser without JupyterLab. A dashboard's address holds its whole state: whoever opens a copied link sees
# the same picture.

# %% [markdown]
# ## 6. Try an exercise
#
# Every walk-through ends with exercises. Your input differs from your neighbour's; `check` compares your answer and
# explains the difference, and `hint` gives one more hint each time. A whole number must be exact; of any other number,
# four significant digits are enough.

# %%
from workbench.app.exercises import check, given, hint

matrix = given("start_here/density")
matrix

# %%
density = ...  # which fraction of the places of `matrix` holds an entry?
check("start_here/density", density)

# %%
matrix = given("start_here/multiplications")
multiplications = ...  # how many multiplications of two entries does `matrix @ matrix` take?
check("start_here/multiplications", multiplications)

# %%
hint("start_here/multiplications")
