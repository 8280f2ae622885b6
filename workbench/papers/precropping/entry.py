"""PreCropping: a pruner at initialisation says how much of each layer to keep; whole channels are cropped to it."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.precropping.claims import CLAIMS

PAPER = Paper(
    key="precropping",
    title="Structured Pruning is All You Need for Pruning CNNs at Initialization",
    authors="Yaohui Cai, Weizhe Hua, Hongzheng Chen, G. Edward Suh, Christopher De Sa, Zhiru Zhang",
    year=2022,
    arxiv="2203.02549",
    family="compression",
    summary=(
        "Pruning at initialisation removes single weights before training, which needs sparse kernels that rarely run "
        "faster. The paper observes that within a layer it does not matter which weights go, so it takes from the "
        "pruner only how much of every layer to keep, and crops whole channels to it. The cropped net is small and "
        "dense, and the authors report the accuracy of pruned weights with the speed of a smaller net."
    ),
    state="complete on handwritten digits; CIFAR-10 can be loaded, but neither it nor ImageNet was trained on",
    claims=CLAIMS,
    view=view_in("layer_density"),
    experiments=(
        Experiment(
            key="structure",
            title="What stays of every layer before training",
            kind="accuracy",
            run=loaded_later("precropping.structure", "structure"),
        ),
        Experiment(
            key="evidence",
            title="Accuracy of nets pruned or cropped before training",
            kind="accuracy",
            run=loaded_later("precropping.evidence", "evidence"),
        ),
        Experiment(
            key="speed",
            title="Time of dense, masked and cropped nets",
            kind="timing",
            run=loaded_later("precropping.speed", "speed"),
        ),
    ),
)
