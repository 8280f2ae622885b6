# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     title: Sparsity patterns
#     description: 'Where the entries of a matrix lie: zoom, reorder, measure its blocks; yours or one of ours.'
#     papers: []
#     thumbnail: matrix:rmat
# ---

# %% [markdown]
# # Sparsity patterns
#
# Choose a matrix or upload one. Click into the picture to zoom with the wheel, and move over it with the arrow keys. A
# reordering moves the entries without changing their number: compare the bandwidth and the blocks before and after.

# %% workbench={"step": "Load the drawing tools"}
from widgets.views.sparsity import SparsityView
from workbench.app import request
from workbench.data.matrices import MATRICES
from workbench.data.matrix_market import read_matrix_market

# %% workbench={"step": "Draw the matrix"}
view = SparsityView(
    {key: source.load for key, source in MATRICES.items()},
    read=lambda name, content: read_matrix_market(content),
    titles={key: source.title for key, source in MATRICES.items()},
    sources={key: f'MATRICES["{key}"].load()' for key in MATRICES},
    imports="from workbench.data.matrices import MATRICES",
    query=request.query_string(),
)
view
