"""Held-out cost of the embedded model beside byte n-gram models: the record, and the model card made from it."""

import hashlib
import json
import time
from math import log

from workbench.data import text
from workbench.data.text import Document
from workbench.folders import WEIGHTS
from workbench.models.language import byte_ngram, text_cost
from workbench.models.language.tiny_lm import TinyLM

RECORD, CARD = WEIGHTS / "tiny_lm.json", WEIGHTS / "tiny_lm.md"
CONTEXTS = (512, 2048)
ORDERS = (5, 8)
PROBES, PROBE_BYTES = 8, (300, 4000)


def read() -> dict:
    """Return the shipped record, or an empty one."""
    return json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}


def write(record):
    """Store a record and the card made from it."""
    RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    CARD.write_text(card(record), "utf-8")


def measure(model: TinyLM, run: dict, earlier: dict) -> dict:
    """Measure a model on the held-out documents of this Python.

    Parameters
    ----------
    model : the model as shipped.
    run : what the training run says of itself.
    earlier : an earlier record; its n-gram costs are kept if they come from the same text.

    Returns
    -------
    dict, the record.
    """
    held_out = text.documents(split="held_out")
    record = {
        "schema": 1,
        "model": vars(model.config) | {"parameters": sum(p.numel() for p in model.parameters())},
        "training": run,
        "held_out": {"text": text.provenance(), "sha256": digest(held_out), "bytes": sizes(held_out)},
        "bits_per_byte": {f"tiny_lm, context {context}": model_cost(model, held_out, context) for context in CONTEXTS},
        "probes": [probe(model, document) for document in probes(held_out)],
    }
    train = [document for corpus in run["corpora_tokens"] for document in text.documents(corpus, "train")]
    known = earlier.get("yardstick", {})
    source = {"train_sha256": digest(train), "held_out_sha256": digest(held_out), "orders": list(ORDERS)}
    if any(known.get(name) != value for name, value in source.items()):
        known = source | {"bits_per_byte": ngram_costs(train, held_out)}
    return record | {"yardstick": known}


def model_cost(model, documents, context) -> dict:
    """Return bits per byte for each corpus and for all documents, and the time it took."""
    start, total, bits = time.monotonic(), sizes(documents), {}
    for document in documents:
        cost = text_cost.nats(model, document.text, context=context) / log(2)
        bits[document.corpus] = bits.get(document.corpus, 0.0) + cost
    return _per_byte(bits, total) | {"seconds": round(time.monotonic() - start, 1)}


def ngram_costs(train, held_out) -> dict:
    """Return bits per byte of byte n-gram models, per order and corpus."""
    costs, total = {}, sizes(held_out)
    for order in ORDERS:
        model = byte_ngram.fit((document.text.encode() for document in train), order)
        bits = {
            corpus: byte_ngram.bits(model, (d.text.encode() for d in held_out if d.corpus == corpus))
            for corpus in total
        }
        costs[f"byte {order}-gram"] = _per_byte(bits, total)
    return costs


def probes(documents) -> list[Document]:
    """Return a few short held-out documents, so that a test can measure them again in a moment."""
    low, high = PROBE_BYTES
    return [document for document in documents if low <= len(document.text.encode()) <= high][:PROBES]


def probe(model, document) -> dict:
    """Return the cost of one document and what identifies its text."""
    return {
        "name": document.name,
        "sha256": digest([document]),
        "bytes": len(document.text.encode()),
        "bits_per_byte": round(model.bits_per_byte(document.text, context=CONTEXTS[0]), 5),
    }


def digest(documents) -> str:
    """Return the SHA-256 of names and texts."""
    state = hashlib.sha256()
    for document in documents:
        state.update(f"{document.name}\0{document.text}\0".encode())
    return state.hexdigest()


def sizes(documents) -> dict[str, int]:
    """Return the bytes of text per corpus."""
    total = {}
    for document in documents:
        total[document.corpus] = total.get(document.corpus, 0) + len(document.text.encode())
    return total


def card(record) -> str:
    """Return the model card of a record, in Markdown; no figure in it comes from elsewhere."""
    model, run, held_out = record["model"], record["training"], record["held_out"]
    corpora = list(held_out["bytes"])
    rows = record["bits_per_byte"] | {
        f"{name} (modified Kneser-Ney)": costs for name, costs in record["yardstick"]["bits_per_byte"].items()
    }
    best, five = record["bits_per_byte"][f"tiny_lm, context {CONTEXTS[0]}"]["all"], f"byte {ORDERS[0]}-gram"
    gain = 1 - best / record["yardstick"]["bits_per_byte"][five]["all"]
    trained = ", ".join(
        f"{name} ({run['corpora_tokens'][name]:,} tokens, {share:.0%} of windows)"
        for name, share in run["mixture"].items()
    )
    windows = ", ".join(f"{steps:,} of {window} tokens" for window, steps in run["windows"].items())
    extended = run.get("schedule_from", {}).get("steps", 0)
    schedule = "cosine schedule" + (f", and from step {extended:,} a second one" if extended else "")
    lines = [
        "# Model card: tiny_lm",
        "",
        "Written by `workbench/models/language/model_card.py` from `tiny_lm.json`; do not edit.",
        "",
        f"A causal language model: {model['parameters'] / 1e6:.2f} M parameters, {model['layers']} layers, "
        f"{model['heads']} heads, width {model['width']}, SwiGLU {model['hidden']}, RoPE base {model['rope_base']:g}, "
        f"byte-level BPE of {model['vocabulary']} pieces; stored in float16.",
        "",
        "## Data",
        "",
        f"Text: {run['text']}. Corpora: {trained}. A document is held out if the first byte of the SHA-256 of its name "
        f"is below {text.HELD_OUT_OF_256}; paragraphs of {text.SHARED_PARAGRAPH_CHARACTERS} characters or more that a "
        "held-out document shares are cut from the training text. The tokenizer saw training documents only.",
        "",
        "## Training",
        "",
        f"{run['steps']:,} steps, {run['tokens']:,} tokens, {run['wall_s'] / 60:.1f} minutes of wall time on "
        f"{run['threads']} CPU threads that it shared with other work; steps by window: {windows}. Embeddings start "
        "from the statistics of neighbouring tokens (`pair_statistics.py`). Muon for the layers' matrices, AdamW for "
        f"the rest, {schedule}, bfloat16 autocast, torch {run['torch']}, seed {run['seed']}. "
        f"Last training loss (moving average): {run['curve'][-1][2]:.3f} nats per token.",
        "",
        "## Held-out bits per byte",
        "",
        f"On {held_out['text']}: "
        + ", ".join(f"{name} {size:,} bytes" for name, size in held_out["bytes"].items())
        + ".",
        "",
        "| model | " + " | ".join([*corpora, "all"]) + " |",
        "|---|" + "---|" * (len(corpora) + 1),
        *(
            f"| {name} | " + " | ".join(f"{costs[column]:.3f}" for column in [*corpora, "all"]) + " |"
            for name, costs in rows.items()
        ),
        "",
        f"At context {CONTEXTS[0]} it needs {gain:.0%} fewer bits than the {five}. The n-gram models are trained on "
        "the same training text. Windows move by half their length.",
        "",
        "## Limits",
        "",
        "It has seen little text and only Python and its documentation: use it to look at real attention, not for its "
        "answers. Held-out sources come from the same project as the training sources.",
        "",
        "## Retrain",
        "",
        "`python -m workbench.models.language.train_tiny_lm --minutes 90` trains, ships and measures; "
        "`--resume --minutes 180` goes on from the last state, `--extend --minutes 20` from the shipped weights. "
        "Another Python version has other text, so other figures.",
        "",
    ]
    return "\n".join(lines)


def _per_byte(bits, total) -> dict:
    per_corpus = {corpus: round(bits[corpus] / size, 5) for corpus, size in total.items()}
    return per_corpus | {"all": round(sum(bits.values()) / sum(total.values()), 5)}
