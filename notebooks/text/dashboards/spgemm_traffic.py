# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     title: SpGEMM traffic
#     description: 'One product, five orders of work: what each reads, holds
#       and writes, and how a machine made for it copes.'
#     papers: [smash]
#     thumbnail: record:traffic/elements moved
# ---

# %% [markdown]
# # SpGEMM traffic
#
# A sparse product takes the same multiplications in every order of work, but not the same traffic. Step through an
# order and watch its partial products; then let a model of Intel's PIUMA run SMASH's three versions on the same
# operands. Counts are exact; the machine is modelled.

# %% workbench={"step": "Load the paper and the drawing tools"}
from workbench.app import request
from workbench.papers import get

smash = get("smash")

# %% workbench={"step": "Run the method and draw it"}
view = smash.view(query=request.query_string())
view
