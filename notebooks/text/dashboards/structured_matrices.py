# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     title: Structured matrices
#     description: 'Two block-diagonal factors and a permutation: which matrices they hold exactly, which only nearly.'
#     papers: [monarch]
#     thumbnail: structured_matrices.png
# ---

# %% [markdown]
# # Structured matrices
#
# A Monarch matrix is a product of two block-diagonal ones with a permutation between them. Each cell of the grid is one
# part of the matrix, and its bars are singular values; the nearest Monarch matrix keeps the first of each. Choose a
# matrix, the number of blocks and the order of the inputs, or bring your own.

# %% workbench={"step": "Load the drawing tools"}
from workbench.app import request
from workbench.explorers.monarch.explorer import explorer

# %% workbench={"step": "Draw the matrix"}
explorer(query=request.query_string())
