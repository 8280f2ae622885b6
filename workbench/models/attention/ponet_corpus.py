"""Python's documentation as sentences of word pieces, for PoNet to learn from."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from workbench.data import text
from workbench.models.language import minilm

__all__ = [
    "CLS",
    "GAP",
    "LONGEST",
    "MASK",
    "PAD",
    "SEP",
    "SHORTEST",
    "SPECIAL",
    "UNKNOWN",
    "Corpus",
    "tokenizer",
    "topics",
    "vocabulary",
]

SHORTEST, LONGEST = 4, 60  # word pieces of a sentence
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
PAD, CLS, SEP, MASK, UNKNOWN = range(5)  # our own numbering: word pieces that the training text has follow
GAP = re.compile(r"\n\s*\n|(?<=[.!?:])\s+")  # between paragraphs, and between sentences


@dataclass(frozen=True)
class Corpus:
    """Sentences as word pieces: chunks of consecutive sentences to train and to test on, and the vocabulary's size."""

    train: list
    test: list
    vocabulary: int


def topics(pieces, largest=None) -> Corpus:
    """Cut into topics, of sentences of 4 to 60 ``pieces``; ``largest`` takes that many of each part only."""
    found = {}
    for split in text.SPLITS:
        cut = _sentences(split, lambda words: tokenizer(pieces).encode(words).ids, largest)
        chunks = [[sentence for paragraph in topic for sentence in paragraph] for topic in cut]
        found[split] = [chunk for chunk in chunks if len(chunk) >= 2]
    return Corpus(found["train"], found["held_out"], len(pieces))


def vocabulary() -> tuple[str, ...]:
    """Return the special tokens and MiniLM's word pieces that the training text has twice or more: [UNK] is learnt."""
    cut = _sentences("train", _minilm_pieces)
    counts = Counter(i for topic in cut for paragraph in topic for sentence in paragraph for i in sentence)
    tokens = minilm.load()._tokens()
    return (*SPECIAL, *(tokens.id_to_token(i) for i in sorted(counts) if counts[i] >= 2))


@lru_cache(maxsize=2)
def tokenizer(pieces):
    """Return a ``tokenizers.Tokenizer`` that cuts words as MiniLM does, into ``pieces`` (a tuple) and no others."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=SPECIAL[UNKNOWN]))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return made


def _sentences(split, pieces_of, largest=None):
    """Sentences of 4 to 60 word pieces: a list of paragraphs for every topic."""
    found = []
    for document in text.documents("documentation", split)[:largest]:
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", document.text):
            pieces = map(pieces_of, GAP.split(" ".join(paragraph.split())))
            paragraphs.append([p for p in pieces if SHORTEST <= len(p) <= LONGEST])
        found.append(paragraphs)
    return found


def _minilm_pieces(words):
    return minilm.load()._tokens().encode(words, add_special_tokens=False).ids
