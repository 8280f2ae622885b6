# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     needs: [torch]
#     title: Layer densities
#     description: 'How much of every layer a pruner keeps before training, and the channels that are cropped to it.'
#     papers: [precropping]
#     thumbnail: 'record:evidence/test accuracy?net=residual&density=0.03&seed=1&training=SynFlow|uniform
#       density|PreCrop, tied|uniform width'
# ---

# %% [markdown]
# # Layer densities
#
# A pruner at initialisation scores the weights of a net that has learned nothing yet, and keeps the highest. The bars
# show how much of every layer it keeps. The boxes around them show the same net with whole channels cropped, small and
# dense. Choose the net, the pruner, the density and the rounds; shuffle a layer's mask; and see what nets so made reach
# after their training.

# %% workbench={"step": "Load the nets and the drawing tools"}
from workbench.app import request
from workbench.explorers.layer_density.explorer import explorer

# %% workbench={"step": "Score the weights and crop the channels"}
view = explorer(query=request.query_string())
view
