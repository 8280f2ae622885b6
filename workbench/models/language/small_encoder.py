"""The sentence encoder that ships with the workbench: a `MiniLM` of four layers that learnt from the pretrained one.

It needs no other package and no network. Its word pieces are those of the tiny language model, whose end mark stands
where MiniLM has [CLS] and [SEP]. What it was trained on, and how near it comes to its teacher, is told in
``weights/small_encoder.md``.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from workbench.data.tokenizer import END
from workbench.folders import WEIGHTS
from workbench.models.language import minilm
from workbench.models.language.minilm import MiniConfig, MiniLM

__all__ = ["CONFIG", "FILE", "encoder", "load", "tokenizer"]

CONFIG = MiniConfig(vocabulary=4096, layers=4, heads=4, width=128, hidden=512, context=256)
FILE = WEIGHTS / "small_encoder.safetensors"


def encoder() -> MiniLM:
    """Return the pretrained MiniLM where its weights are installed, and the small encoder elsewhere."""
    return minilm.load() if find_spec(minilm.PACKAGE) else load()


@cache
def load(path=FILE) -> MiniLM:
    """Return the small encoder in float32, shared by all callers.

    Raises
    ------
    FileNotFoundError : the weights are missing: ``python -m workbench.models.language.train_small_encoder``.
    """
    from safetensors import safe_open

    if not Path(path).exists():
        raise FileNotFoundError(
            f"small_encoder.load: no {path}; train one with python -m workbench.models.language.train_small_encoder"
        )
    with safe_open(str(path), framework="pt") as stored:
        sizes = {name: int(value) for name, value in stored.metadata().items()}
        weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    model = MiniLM(MiniConfig(**sizes), tokenizer())
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def tokenizer():
    """Return the embedded word pieces with an end mark before and after each text: a ``tokenizers.Tokenizer``."""
    from tokenizers import Tokenizer, processors

    found = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    found.encode_special_tokens = True  # the characters of the end mark in a text are text
    found.post_processor = processors.TemplateProcessing(
        single=f"{END} $A {END}", special_tokens=[(END, found.token_to_id(END))]
    )
    return found
