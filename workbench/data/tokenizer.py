"""Byte-level byte-pair encoding: a few thousand pieces, any text encodes and comes back unchanged (Sennrich 2016)."""

from pathlib import Path

import numpy as np

END = "<|end|>"


class Tokenizer:
    """Pieces of text to integers and back; ``end`` is the id that separates documents."""

    def __init__(self, inner):
        inner.encode_special_tokens = True  # the characters of the end mark in a text are text
        self._inner = inner
        self.end = inner.token_to_id(END)
        self.size = inner.get_vocab_size()

    @classmethod
    def train(cls, texts, size: int) -> "Tokenizer":
        """Learn ``size`` pieces (257 or more) from an iterable of str."""
        from tokenizers import Tokenizer as Inner
        from tokenizers import decoders, models, pre_tokenizers, trainers

        if size < 257:
            raise ValueError(f"Tokenizer.train: size must be at least 257 (256 bytes and the end mark), got {size}")
        inner = Inner(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False, max_token_length=24
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    @classmethod
    def read(cls, path) -> "Tokenizer":
        """Load a tokenizer.json."""
        from tokenizers import Tokenizer as Inner

        return cls(Inner.from_file(str(path)))

    def write(self, path):
        """Save as tokenizer.json."""
        Path(path).write_text(self._inner.to_str(pretty=False) + "\n", encoding="utf-8")

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text, int64, shape (tokens,)."""
        if not isinstance(text, str):
            raise TypeError(f"Tokenizer.encode: text must be str, got {type(text).__name__}; decode bytes first")
        return np.asarray(self._inner.encode(text, add_special_tokens=False).ids, np.int64)

    def encode_documents(self, texts) -> np.ndarray:
        """Return the ids of all texts in one array, the end mark before each text and after the last."""
        parts = [np.array([self.end], np.int64)]
        for encoding in self._inner.encode_batch(list(texts), add_special_tokens=False):
            parts += [np.asarray(encoding.ids, np.int64), parts[0]]
        return np.concatenate(parts)

    def decode(self, ids) -> str:
        """Return the text of ids; bytes that are no UTF-8 (a character cut in two) become the replacement character."""
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=False)

    def spans(self, text: str) -> np.ndarray:
        """Return where each token of a text lies in it: int64 (tokens, 2), first character and one past the last."""
        return np.asarray(self._inner.encode(text, add_special_tokens=False).offsets, np.int64).reshape(-1, 2)
