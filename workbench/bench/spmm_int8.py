"""SpMM of int8 weights in 4 x 1 blocks against dense int8 products of torch and ONNX Runtime, and dense float32.

The shapes are those of Shen et al. 2023: the linear layers of BERT-Mini, BERT-base (DistilBERT has the same) and
BERT-large with 128 to 384 tokens, 70 to 90 per cent of their blocks gone. A *product* takes bytes to int32 sums; a
*layer* takes float32 to float32, the quantisation of its input included. Every library gets its operands as it likes
them best: the peers tokens by features, with the weight packed beforehand where they can.
"""

from functools import cache, partial

import numpy as np

from kernels.formats.block_groups import BlockGroupedWeight
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

SPARSITIES = (70, 80, 90)
QUICK = ((768, 768, 256),)
PRODUCTS = (
    *((256, 256, 128), (1024, 256, 128), (256, 1024, 128)),
    *((768, 768, 256), (3072, 768, 256), (768, 3072, 256)),
    *((1024, 1024, 384), (4096, 1024, 384), (1024, 4096, 384)),
)
LAYERS = ((768, 768, 256), (3072, 768, 256), (768, 3072, 256), (1024, 1024, 384))


def weights(m, k, sparsity, seed=0) -> np.ndarray:
    """Draw int8 weights m x k in 4 x 1 blocks; each block is kept with probability 1 - sparsity / 100."""
    rng = np.random.default_rng(seed)
    kept = np.repeat(rng.random((m // 4, k)) < 1 - sparsity / 100, 4, axis=0)
    return np.where(kept, rng.integers(-127, 128, (m, k)), 0).astype(np.int8)


@cache
def _load_torch():
    import torch

    return torch


@cache
def _load_ort():
    import onnx
    import onnxruntime

    return onnx, onnxruntime


def _ort_run(node, x, constants, result, threads):
    """Return a call of one ONNX operator with constant operands behind its first."""
    onnx, ort = _load_ort()
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for name, dtype in result}
    graph = onnx.helper.make_graph(
        [node],
        "bench",
        [onnx.helper.make_tensor_value_info("x", onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0].T


def _product_ours(w, x, threads):
    from kernels.matmul.spmm_int8 import spmm_int8

    return partial(spmm_int8, BlockGroupedWeight.from_dense(w), x)


def _product_torch(w, x, threads):
    torch = _load_torch()
    left, right = torch.from_numpy(np.ascontiguousarray(x.T).astype(np.int8)), torch.from_numpy(w).t()
    return lambda: torch._int_mm(left, right).numpy().T


def _product_ort(w, x, threads):
    onnx, _ = _load_ort()
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    return _ort_run(node, np.ascontiguousarray(x.T), {"w": np.ascontiguousarray(w.T)}, [("y", np.int32)], threads)


def _product_float(w, x, threads):
    torch = _load_torch()
    left, right = torch.from_numpy(w.astype(np.float32)), torch.from_numpy(x.astype(np.float32))
    return lambda: (left @ right).numpy()


def _layer_ours(w, x, threads):
    from kernels.matmul.quantize import fold_zero_point, quantize_activation_u8
    from kernels.matmul.spmm_int8 import spmm_int8

    weight, step = BlockGroupedWeight.from_dense(w), np.full(len(w), 1 / 127, np.float32)

    def run():
        q, x_scale, x_zero = quantize_activation_u8(x)
        bias, scale = fold_zero_point(weight, x_scale=x_scale, x_zero=x_zero, weight_scale=step)
        return spmm_int8(weight, q, bias=bias, scale=scale, out_dtype="float32")

    return run


def _layer_torch(w, x, threads):
    torch = _load_torch()
    dense = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    dense.weight.data = torch.from_numpy(w.astype(np.float32) / 127)
    dense.qconfig = torch.ao.quantization.default_dynamic_qconfig
    layer, tokens = torch.ao.nn.quantized.dynamic.Linear.from_float(dense), torch.from_numpy(np.ascontiguousarray(x.T))
    return lambda: layer(tokens).numpy().T


def _layer_ort(w, x, threads):
    """Weights have 7 bits where the CPU adds pairs of products in 16 bits, which overflow with 8."""
    import kernels

    onnx, _ = _load_ort()
    node = onnx.helper.make_node("DynamicQuantizeMatMul", ["x", "w", "step"], ["y"], domain="com.microsoft")
    shrunk, step = (w, 1 / 127) if kernels.isa() == "avx512" else (np.rint(w / 2).astype(np.int8), 2 / 127)
    constants = {"w": np.ascontiguousarray(shrunk.T), "step": np.array(step, np.float32)}
    return _ort_run(node, np.ascontiguousarray(x.T), constants, [("y", np.float32)], threads)


def _layer_float(w, x, threads):
    torch = _load_torch()
    left, right = torch.from_numpy(w.astype(np.float32) / 127), torch.from_numpy(x)
    return lambda: (left @ right).numpy()


CONTENDERS = {
    "product": {
        "ours": _product_ours,
        "torch int8": _product_torch,
        "ONNX Runtime": _product_ort,
        "torch f32": _product_float,
    },
    "layer": {
        "ours": _layer_ours,
        "torch int8": _layer_torch,
        "ONNX Runtime": _layer_ort,
        "torch f32": _layer_float,
    },
}
PEERS = (
    Peer("torch int8", _load_torch, "pip install torch==2.13.0"),
    Peer("ONNX Runtime", _load_ort, "pip install .[bench]"),
    Peer("torch f32", _load_torch, "pip install torch==2.13.0"),
)


def _set_threads(threads, loaded):
    """Give libraries that have a setting their threads; ONNX Runtime gets them with each model."""
    import kernels

    kernels.set_num_threads(threads)
    _load_torch().set_num_threads(threads)


def _activations(kind, k, n):
    """Return bytes up to 127, which signed bytes hold too, or floats."""
    rng = np.random.default_rng(1)
    return (
        rng.integers(0, 128, (k, n)).astype(np.uint8) if kind == "product" else rng.standard_normal((k, n), np.float32)
    )


def _checker(kind, w, x):
    want = w.astype(np.float64) @ x.astype(np.float64) / (1 if kind == "product" else 127)
    size = float(np.abs(want).max(initial=1e-30))

    def check(name, result):
        if result.shape != want.shape:
            raise ValueError(f"result is {result.shape}, wanted {want.shape}")
        tolerance = 1e-5 if name == "torch f32" else 0 if kind == "product" else 0.03
        worst = float(np.abs(result - want).max(initial=0.0)) / size
        if not worst <= tolerance:
            raise ValueError(f"values differ from float64 by {worst:.1e}, tolerance {tolerance:.0e}")

    return check


def _build(kind, shape, sparsity, threads, loaded):
    m, k, n = shape
    w, x = weights(m, k, sparsity), _activations(kind, k, n)
    weight = BlockGroupedWeight.from_dense(w)
    operations = 2.0 * 4 * weight.nnz_blocks * n
    result_bytes = 4 * m * n
    return Case(
        work=operations,
        work_unit="op",
        contenders=tuple(
            Contender(name, CONTENDERS[kind][name](w, x, threads), threads, ours=name == "ours")
            for name in ("ours", *loaded)
        ),
        check=_checker(kind, w, x),
        bytes=float(weight.nbytes + x.nbytes + result_bytes),
        facts={"m": m, "k": k, "n": n, "blocks": weight.nnz_blocks, "padding": weight.padding},
        result_bytes=result_bytes,
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{'x'.join(map(str, shape))}/{sparsity}/{kind}",
            f"{kind}, {sparsity} per cent gone",
            partial(_build, kind, shape, sparsity, threads, tuple(loaded)),
        )
        for kind, shapes in (("product", PRODUCTS), ("layer", LAYERS))
        for sparsity in SPARSITIES
        for shape in (QUICK if quick else shapes)
    ]


BENCH = Bench(
    key="spmm_int8",
    title="Sparse int8 weights (4 x 1 blocks) times dense bytes",
    peers=PEERS,
    specs=_specs,
    set_threads=_set_threads,
    own_process=True,
    goals=(
        Goal("product, 70 per cent gone", "best", 1.8),
        Goal("product, 90 per cent gone", "best", 5.0),
    ),
)
