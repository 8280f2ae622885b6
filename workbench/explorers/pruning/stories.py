"""Settings of the pruning explorer worth seeing."""

from widgets.views.frame.story import Story

STORIES = (
    Story(
        "Same bytes, different harm",
        {"within": 0.57, "cost": "stored"},
        "All bars cost at most 0.57 of the dense bytes. Rounding every weight to 8 bits hardly changes the model. Of "
        "the methods that leave weights out in one pattern, those that know the layers' inputs (SparseGPT, Wanda) "
        "keep more of the model than those that look at the weights alone. Of the factors, CoSpaDi and SVD-LLM keep "
        "more than the truncated SVD.",
    ),
    Story(
        "Leave weights out, or round them all?",
        {"within": 0.3, "cost": "stored", "point": "quant@4"},
        "With 4 bits a weight the encoder takes 0.28 of its bytes and is nearer to the model before than with half of "
        "the weights gone, whatever method chose them. But rounding saves no multiply-add: choose the multiply-adds "
        "for the horizontal axis, and it has no bar within the budget.",
    ),
    Story(
        "Does a regular pattern buy speed?",
        {"within": 0.57, "cost": "time_512"},
        "At half of the weights, 2:4 and unstructured pruning with a bitmap take the same bytes, and the unstructured "
        "model is better. On a GPU, 2:4 pays in time. Compare the times on this CPU, where weights at any places run "
        "about as fast once they are packed for the kernel, and move to 1 and 32 tokens.",
    ),
    Story(
        "The layers are not equal",
        {"point": "magnitude@0.7", "loss": "output_error", "layer": "layers.0.query"},
        "The grid shows how much every layer's outputs change. Click a cell, and the picture below shows which weights "
        "of that layer stay.",
    ),
    Story(
        "Who spares which layer",
        {"point": "magnitude@0.7", "kept": "wanda@0.7,sparsegpt@0.7", "loss": "output_error"},
        "Three models with equally many weights, layer by layer. Which layers does magnitude pruning hurt most, and "
        "does it hurt the weights there, too? Choose the error of the weights to see that the order turns round.",
    ),
    Story(
        "Narrow values make indices dear",
        {"within": 0.57, "cost": "stored", "value_bits": "4"},
        "With 4 bits a value, a bit for every place is a quarter of the dense bytes: half of the weights no longer "
        "halve them. Which methods still have a point within the budget? Then leave the indices out.",
    ),
    Story(
        "After a short training",
        {"stage": "recovered", "within": 0.57, "cost": "stored"},
        "The same models after twenty steps in which each learnt to give what the dense model gives, whatever had "
        "pruned it. Methods lie closer together than before. Weights that SparseGPT had adjusted gain little or lose, "
        "and movement pruning, which chooses during the training, had too few steps.",
    ),
)
