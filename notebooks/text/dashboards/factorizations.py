# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     needs: [torch]
#     title: Factorisations
#     description: 'A weight matrix as a product of dense and sparse factors, and what the product misses.'
#     papers: [cospadi, dsformer, armor, monarch]
#     thumbnail: factorizations.png
# ---

# %% [markdown]
# # Factorisations
#
# A layer of a model, or a matrix of your own, becomes a product of factors that take fewer bytes. The pictures show the
# factors, the matrix, the product, and what is left of the matrix. Choose a method and turn its settings: the factors
# are sought anew at once. The other parts show the errors, step by step and layer by layer, and the bytes.

# %% workbench={"step": "Load the models and the drawing tools"}
from workbench.app import request
from workbench.explorers.factorization.explorer import explorer

# %% workbench={"step": "Factorise a layer"}
explorer(query=request.query_string())
