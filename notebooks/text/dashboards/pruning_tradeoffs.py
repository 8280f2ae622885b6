# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     needs: [torch]
#     title: Pruning trade-offs
#     description: 'What pruning saves in bytes, operations and time, and what it costs a real model.'
#     papers: [sparse_cpu_inference, flash_llm, cospadi, dsformer, monarch, gear]
#     thumbnail: pruning_tradeoffs.png
# ---

# %% [markdown]
# # Pruning trade-offs
#
# Every point is a real model after pruning, factorising or rounding: how good it still is, over what its matrices cost
# in bytes, in operations or in measured time. The line joins the points that no other one beats. The bars line the
# methods up at an equal budget. Click a point to see the layers of that model, and below which of their weights stay.
# Choose a method and how far it prunes to compute a point of your own.

# %% workbench={"step": "Load the models and the drawing tools"}
from workbench.app import request
from workbench.explorers.pruning.budget_table import budget_tables
from workbench.explorers.pruning.explorer import explorer, kept_weights_view

# %% workbench={"step": "Draw the trade-offs"}
view = explorer(query=request.query_string(), point="magnitude@0.7")
view

# %% [markdown]
# ## Which weights stay
#
# One layer of the chosen point, as it is right after pruning; without a chosen point, all of its weights.

# %% workbench={"step": "Draw the kept weights"}
kept_weights_view(view, query=request.query_string())

# %% [markdown]
# ## At equal bytes
#
# The best recorded point of every method within a budget of bytes, right after pruning, without training. Each method
# was brought as near below the budget as its knob allows, and the third column says what it takes. A line opens its
# table.

# %% workbench={"step": "Line the methods up at equal bytes"}
budget_tables()
