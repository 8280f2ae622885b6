# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     needs: [torch]
#     title: Compressed caches
#     description: 'Keys and values of a language model in few bits: what quantising loses, and what repairs it.'
#     papers: [gear]
#     thumbnail: 'record:drift/KL to the exact cache?bits=2&backbone=kivi&window=0&positions=all&method=quantiser
#       alone|with low rank|with outliers|with both'
# ---

# %% [markdown]
# # Compressed caches
#
# A language model keeps keys and values of every token. Here they are in a few bits: the exact ones, what the quantiser
# keeps, the low-rank part and the outliers that repair it, and the error that is left, in one colour scale. Turn the
# bits, the rank and the share of outliers, and watch errors and bytes.

# %% workbench={"step": "Load the drawing tools"}
from workbench.app import request
from workbench.explorers.kv_cache.explorer import explorer

# %% workbench={"step": "Compress a cache"}
explorer(query=request.query_string())
