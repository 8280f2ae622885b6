"""The small sentence encoder that ships with the workbench."""

from workbench.explorers.pruning.sentence_encoder import of_encoder
from workbench.models.language import small_encoder

SOURCE = of_encoder(key="small_encoder", title="Small sentence encoder", load=small_encoder.load, characters_a_token=6)
