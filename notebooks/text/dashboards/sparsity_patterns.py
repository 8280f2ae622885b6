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
# Choose a matrix or upload one: a Matrix Market file (.mtx), an .npz that SciPy saved, or a dense .npy, compressed or
# not. Click into the picture to zoom with the wheel, and move over it with the arrow keys. A reordering moves the
# entries without changing their number; the matrix as given then stands beside it, in the same colours. Compare the
# bandwidth and the blocks before and after. The export menu saves the matrix in the order that is shown.

# %% workbench={"step": "Load the drawing tools"}
from widgets.views.sparsity import SparsityView
from workbench.app import request
from workbench.data.limits import VISITOR
from workbench.data.matrices import MATRICES
from workbench.data.matrix_files import ENDINGS, READ, read_matrix

# %% workbench={"step": "Draw the matrix"}
view = SparsityView(
    {key: source.load for key, source in MATRICES.items()},
    read=lambda name, content: read_matrix(content, VISITOR, name, keep_duplicates=True),
    upload_label=f"Your own matrix: {READ}",
    upload_endings=ENDINGS,
    upload_limit_bytes=VISITOR.file_bytes,
    titles={key: source.title for key, source in MATRICES.items()},
    sources={key: f'MATRICES["{key}"].load()' for key in MATRICES},
    imports="from workbench.data.matrices import MATRICES",
    query=request.query_string(),
)
view
