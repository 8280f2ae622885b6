"""CoSpaDi: weights as sparse combinations of the atoms of a dictionary, fitted to what the layers give."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.cospadi.claims import CLAIMS

PAPER = Paper(
    key="cospadi",
    title="CoSpaDi: Compressing LLMs via Calibration-Guided Sparse Dictionary Learning",
    authors="Denis Makhov, Dmitriy Shopkhoev, Magauiya Zhussip, Ammar Ali, Stamatios Lefkimmiatis",
    year=2025,
    arxiv="2509.22075",
    family="compression",
    summary=(
        "A truncated SVD puts all outputs of a layer into one subspace. CoSpaDi learns a dictionary of more atoms and "
        "lets every output pick a few of its own, at equally many values, and it fits them to the layer's outputs on "
        "calibration text without any training. The authors report higher accuracy than SVD-LLM at 20 to 50 per cent "
        "of compression, and as many tokens per second."
    ),
    state=(
        "complete; a language model of seven million parameters and two sentence encoders stand in for models of "
        "billions"
    ),
    claims=CLAIMS,
    view=view_in("pruning", point="cospadi@0.5", cost="stored", loss="output_error"),
    experiments=(
        Experiment(
            key="matrices",
            title="Every matrix by SVD, SVD-LLM and CoSpaDi, sweep by sweep",
            kind="accuracy",
            run=loaded_later("cospadi.matrices", "matrices"),
        ),
        Experiment(
            key="spreads",
            title="Other ratios of atoms to coefficients",
            kind="accuracy",
            run=loaded_later("cospadi.matrices", "spreads"),
        ),
        Experiment(
            key="shared",
            title="One dictionary for several matrices",
            kind="accuracy",
            run=loaded_later("cospadi.shared", "shared"),
        ),
        Experiment(
            key="encoder",
            title="Sentence encoders at the bytes of 2:4, indices counted",
            kind="accuracy",
            run=loaded_later("cospadi.encoder", "encoder"),
        ),
        Experiment(
            key="tradeoffs",
            title="Truncated SVDs and CoSpaDi in the pruning explorer: quality and bytes",
            kind="accuracy",
            run=loaded_later("cospadi.tradeoffs", "tradeoffs"),
        ),
        Experiment(
            key="tradeoffs_embedded",
            title="Truncated SVDs and CoSpaDi, on the encoder that ships with the workbench",
            kind="accuracy",
            run=loaded_later("cospadi.tradeoffs", "tradeoffs_embedded"),
        ),
        Experiment(
            key="products",
            title="Products of a block: dense, low rank, and dictionary with sparse codes",
            kind="timing",
            run=loaded_later("cospadi.products", "products"),
        ),
    ),
)
