# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     title: SpGEMM traffic
#     description: 'One product in six orders of work: what each reads, keeps on the chip
#       and writes, and how a model of a sparse machine runs it.'
#     papers: [smash]
#     thumbnail: record:traffic/elements moved
# ---

# %% [markdown]
# # SpGEMM traffic
#
# A sparse product needs the same multiplications in every order of work, but not the same memory traffic. Step through
# an order and watch what is kept on the chip, and when it is written to memory. Then let a model of Intel's PIUMA run
# SMASH's three versions on the same operands. Products and traffic are counted; the machine's times are modelled.
# *Your own files* under Operands takes matrices of yours: A, and B where it is another one.

# %% workbench={"step": "Load the paper and the drawing tools"}
from workbench.app import request
from workbench.papers import get

smash = get("smash")

# %% workbench={"step": "Run the method and draw it"}
view = smash.view(query=request.query_string())
view
