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
#     papers: [xattention, pbs_attn, sea, combiner, ponet, favit]
#     thumbnail: attention_masks.png
# ---

# %% [markdown]
# # Attention masks
#
# Queries and keys come from a real model on real text, from a generator, from a picture, or from your own file. Choose
# a method and see what it keeps: true attention is on the left, what the method computes is on the right, and both zoom
# together. Click a picture to see what one query attends to. Choose a second method under *Compare with*, or press one
# of the buttons for a setting worth seeing.

# %% workbench={"step": "Load the models and the drawing tools"}
from workbench.app import request
from workbench.explorers.attention.explorer import explorer

# %% workbench={"step": "Run the method and draw it"}
view = explorer(query=request.query_string())
view
