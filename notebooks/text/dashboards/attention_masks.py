# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     needs: [torch]
#     title: Attention masks
#     description: 'What sparse attention keeps of a real model''s attention, what it costs, and what it leaves out.'
#     papers: []
#     thumbnail: ''
# ---

# %% [markdown]
# # Attention masks
#
# Queries and keys come from a real model on real text, from a generator, or from your own file. Pick a method and look
# at what it keeps: true attention at the left, what the method computes at the right. Both pictures zoom together.
# Choose a second method under *Beside it* to see two masks side by side.

# %% workbench={"step": "Load the models and the drawing tools"}
from workbench.app import request
from workbench.attention_explorer import explorer

# %% workbench={"step": "Run the method and draw it"}
view = explorer(query=request.query_string())
view
