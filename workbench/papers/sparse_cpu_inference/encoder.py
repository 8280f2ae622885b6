"""A sentence encoder, sparse from end to end: what it still knows, and how long it takes."""

import copy
import tempfile
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import torch

import kernels
from workbench.explorers.pruning import sentence_encoder
from workbench.explorers.pruning.source import source
from workbench.machines.stopwatch import measure
from workbench.models.language import minilm, small_encoder
from workbench.models.sparse_inference.compress import prune_blocks_at_once, prune_while_distilling, quantise
from workbench.models.sparse_inference.encoder import SparseEncoder
from workbench.models.sparse_inference.recovery import recover, refit
from workbench.models.sparse_inference.sparse_linear import SparseLinear
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers
from workbench.paper import row
from workbench.papers.sparse_cpu_inference.patterns import vector_rows, vectors

SPARSITIES = {"tiny": (0.8,), "small": (0.8,), "full": (0.7, 0.8, 0.9)}
DENSE, AT_ONCE, REFITTED = "dense", "pruned at once", "refitted"
DISTILLED, REFITTED_DISTILLED = "pruned while distilling", "refitted, then distilled"
STEPS = {"tiny": 1, "small": 40, "full": 80}
KNOWN = 4  # batches of calibration text: 8,192 tokens
RATE, BATCH = 1e-3, 16
TEXTS = {"tiny": 4, "small": 64, "full": 200}  # windows of the documentation that the encoder is judged on
LENGTHS = {"tiny": ((1, 32),), "small": ((1, 128),), "full": tuple((b, t) for b in (1, 8) for t in (32, 128, 384))}
ROUNDS = {"tiny": 1, "small": 3, "full": 7}
_MOST_TOKEN = {"tiny": 4000, "small": 30000, "full": 30000}


def quality(size, seed, report, keep):
    """Prune to 4 x 1 blocks at once and while distilling, quantise, and compare with the dense encoder.

    The blocks that went at once are also followed by a refit of the weights that stay, and that by as many training
    steps. Training text is library sources; what is judged is documentation, and other windows than are calibrated on.
    """
    rows = []
    for i, sparsity in enumerate(SPARSITIES[size]):
        part = report.part(i, len(SPARSITIES[size]), f"{sparsity:.0%} of the blocks")
        rows += keep({"sparsity": sparsity}, partial(_pruned, sparsity, size, seed, part))
    dense = _dense(size)
    rows += _judged(dense, dense, size, training=DENSE, sparsity=0.0, form="float32")
    held = sum(4 * p.numel() for layer in linear_layers(dense).values() for p in layer.parameters())
    return [*rows, row("bytes, linear layers", held, "bytes", "counted", training=DENSE, sparsity=0.0)]


def _pruned(sparsity, size, seed, report):
    dense, of = _dense(size), source("minilm")
    known = [_windows(size, slice(0, 2))[:, :16]] if size == "tiny" else of.calibration()[:KNOWN]
    taught = known if size == "tiny" else of.training(STEPS[size], seed)
    how = {"steps": STEPS[size], "rate": RATE, "loss": of.distil, "seed": seed}
    report(0.0, "prune at once")
    at_once = prune_blocks_at_once(dense, known, sparsity=sparsity)
    refitted = refit(at_once, dense, gather_statistics(dense, known))
    first, second = (report.part(i, 3, name) for i, name in enumerate((DISTILLED, REFITTED_DISTILLED)))
    pruned = {
        AT_ONCE: at_once,
        REFITTED: refitted,
        DISTILLED: prune_while_distilling(dense, taught, sparsity=sparsity, report=first, **how),
        REFITTED_DISTILLED: recover(refitted, dense, taught, report=second, **how),
    }
    rows = []
    for i, (name, model) in enumerate(pruned.items()):
        report((2 + i / len(pruned)) / 3, f"judge: {name}")
        labels = {"training": name, "sparsity": sparsity}
        small = quantise(model, known, least_sparsity=0.0)
        rows += _judged(SparseEncoder(small), dense, size, form="int8", **labels)
        held = sum(layer.nbytes for layer in small.modules() if isinstance(layer, SparseLinear))
        rows.append(row("bytes, linear layers", held, "bytes", "counted", **labels))
    return [*rows, *_judged(pruned[REFITTED_DISTILLED], dense, size, form="float32", **labels)]


def _load(size):
    return small_encoder.load if size == "tiny" else minilm.load


def _dense(size):
    """Return the encoder; at size "tiny" the first layer of the small one alone."""
    dense = _load(size)()
    if size == "tiny":
        dense = copy.deepcopy(dense)
        dense.layers = dense.layers[:1]
    return dense


def _judged(encoder, dense, size, **labels):
    """Compare sentence vectors of documentation with the dense ones; search with half of a text for the other half."""
    windows = _windows(size, sentence_encoder.NEIGHBOURS)[: TEXTS[size]]
    now, before = (vectors(each, windows.split(BATCH)) for each in (encoder, dense))
    first, second = (vectors(encoder, half.split(BATCH)) for half in windows.chunk(2, dim=1))
    found = (first @ second.T).argmax(1) == torch.arange(len(windows))
    share = row("second halves found by the first", float(found.float().mean()), "fraction", "measured", **labels)
    return [*vector_rows(before, now, labels), share]


def _windows(size, part):
    return sentence_encoder.windows(_load(size), part)


def times(size, seed, report):
    """Time the whole encoder, block-sparse int8 beside torch in float32, bfloat16 and dynamic int8, and ONNX Runtime.

    The weights are pruned at once, since training does not change how long they take.
    """
    threads, before = kernels.get_num_threads(), torch.get_num_threads()
    torch.set_num_threads(threads)
    rows, cases = [], [(sparsity, b, t) for sparsity in SPARSITIES[size] for b, t in LENGTHS[size]]
    try:
        peers = _peers(_load(size)(), size)
        for i, (sparsity, b, t) in enumerate(cases):
            report(i / len(cases), f"{sparsity:.0%}, batch {b}, {t} tokens")
            tokens = torch.randint(1000, _MOST_TOKEN[size], (b, t), generator=torch.Generator().manual_seed(seed))
            runs = {name: partial(run, tokens) for name, run in peers.items()}
            runs["block-sparse int8"] = partial(_sparse(sparsity, size), tokens)
            with torch.inference_mode():
                found = measure(runs, rounds=ROUNDS[size])
            for name, timing in found.items():
                labels = {"run": name, "sparsity": sparsity, "batch": b, "tokens": t, "threads": threads}
                labels["spread_ms"] = 1e3 * timing.spread_s
                rows.append(row("time of the encoder", 1e3 * timing.median_s, "ms", "measured", **labels))
    finally:
        torch.set_num_threads(before)
    return rows


@cache
def _sparse(sparsity, size):
    batches = [_windows(size, slice(0, 2))]
    pruned = prune_blocks_at_once(_load(size)(), batches, sparsity=sparsity)
    return SparseEncoder(quantise(pruned, batches, least_sparsity=0.0))


def _peers(dense, size):
    """Return the dense encoder in every form that is installed: name -> function of the tokens."""
    if size == "tiny":
        return {"float32": dense}
    found = {"float32": dense, "bfloat16": copy.deepcopy(dense).bfloat16()}
    dynamic = torch.ao.quantization.quantize_dynamic(copy.deepcopy(dense), {torch.nn.Linear}, dtype=torch.qint8)
    found["dynamic int8"] = dynamic
    if find_spec("onnxruntime") and find_spec("onnx"):
        found |= _onnx(dense)
    return found


class _TokensAlone(torch.nn.Module):
    """The encoder without its keyword arguments, which the exporter cannot pass on."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens):
        """Return the stream."""
        return self.encoder(tokens)


def _onnx(dense):
    """Return the encoder on ONNX Runtime, in float32 and with dynamic int8 weights."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = kernels.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder, f"{name}.onnx")) for name in ("float32", "int8")}
        axes = {"tokens": {0: "batch", 1: "length"}}
        torch.onnx.export(
            _TokensAlone(dense), (torch.ones(1, 32, dtype=torch.long),), paths["float32"], dynamo=False,
            input_names=["tokens"], output_names=["stream"], dynamic_axes=axes,
        )  # fmt: skip
        quantize_dynamic(paths["float32"], paths["int8"], weight_type=QuantType.QInt8)
        sessions = {f"ONNX Runtime {name}": onnxruntime.InferenceSession(path, options) for name, path in paths.items()}
    return {
        name: lambda tokens, session=session: session.run(None, {"tokens": tokens.numpy()})
        for name, session in sessions.items()
    }
