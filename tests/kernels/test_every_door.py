"""Whatever stands in place of an argument: a result, or a sentence of ours that names the function."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from scipy import sparse

import kernels
import workbench.machines
from kernels.factor.omp import omp
from kernels.formats.bitmap_rows import BitmapRows
from kernels.formats.block_groups import BlockGroupedWeight
from kernels.formats.block_mask import BlockMask
from kernels.formats.nm_packed import NMPacked
from kernels.formats.quantised import quantize_groups
from kernels.formats.tiled_csl import TiledCSL
from kernels.matmul.dataflow_order import dataflow_order
from kernels.reorder import reorder
from workbench.machines import roofline
from workbench.machines.piuma import PiumaConfig, hash_trace, plan_windows
from workbench.models.compression.gear import GearConfig, gear_compress

A = sparse.csr_array(np.array([[1.0, 0, 2], [0, 0, 3], [4, 5, 0]]))
A32 = A.astype(np.float32)
X = np.ones((3, 4), np.float32)
Q = np.random.default_rng(0).standard_normal((1, 2, 32, 16)).astype(np.float32)
LSE = np.ones((1, 2, 32), np.float32)
MASK = np.ones((1, 2, 2, 2), bool)
SEEN = np.ones((1, 1, 32, 32), bool)
BITS = np.zeros((4, 2), np.uint8)
CODE_PAIRS = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
BLOCK_WEIGHTS = np.ones((2, 2, 2), np.float32)
ATTENTION = {"q": Q, "k": Q, "v": Q, "block_mask": MASK, "block_size": 16, "causal": True, "scale": 0.5,
             "key_positions": None, "attn_mask": SEEN, "num_threads": 1}  # fmt: skip
RAGGED = np.ones((1, 2, 3, 3), bool)  # a third block, so that too many queries are over the limit of blocks
BLOCKS = {"t": 40, "block_size": 16, "causal": True, "key_positions": None, "query_positions": None}
GROUPED = BlockGroupedWeight.from_dense(np.ones((4, 3), np.int8))
WINDOW = (0, 3, 0, 3)
PLAN = plan_windows(A, A, 64, 0.5)
PAIR = {"a": A, "b": A}
GLOBAL = {"sparsity": 0.5, "scope": "global", "least": 0.0, "most": 0.9, "num_threads": 1}
ENTRIES = {"shape": (4, 8), "nnz": 3, "value_bits": 16}
PACKED = NMPacked.from_dense(np.eye(3, 4, dtype=np.float32), 1, 2)
KV = np.ones((1, 2, 3, 8), np.float16)
KEYS, VALUES = (gear_compress(KV, kind, GearConfig(backbone="kcvt"), 2).blocks for kind in ("key", "value"))
TILED = TiledCSL.encode(X[:, :3], pad=True, reorder=False)
TRACED = PAIR | {"windows": PLAN, "slots": 64, "hash": "low"}

ATOMS = np.eye(3, dtype=np.float32)
CODES = omp(ATOMS, X, 2)
SWEPT = {"dictionary": ATOMS, "codes": CODES, "vectors": X, "num_threads": 1}

# Good arguments of every public function; a new one is missed by the first test below.
DOORS = {
    "kernels.formats.quantised": {
        "quantize_groups": {"x": X, "bits": 2, "axis": 1, "group": 2, "scales": "float16", "num_threads": 1},
        "group_codes": {"x": X, "bits": 2, "axis": 1, "group": 2, "scales": "float16", "num_threads": 1},
        "dequantize": {"q": quantize_groups(X, 2), "num_threads": 1},
        "pack_bits": {"codes": np.ones((3, 4), np.uint8), "bits": 2, "num_threads": 1},
        "unpack_bits": {"packed": np.ones((3, 1, 4), np.uint8), "bits": 2, "n": 16, "num_threads": 1},
        "quantize_groups_work": {"shape": (3, 4), "bits": 2, "group": 2, "scales": "float16"},
    },
    "kernels.masks.outliers": {
        "extract_outliers": {"x": X, "share": 0.5, "axis": 1, "at_least": 0, "num_threads": 1},
        "outlier_count": {"length": 10, "share": 0.5, "at_least": 1},
    },
    "kernels.factor.power_iteration": {
        "power_iteration_lowrank": {"e": X, "rank": 1, "loops": 3, "orthogonalize": "last", "seed": 0},
        "power_iteration_lowrank_work": {"shape": (3, 4), "rank": 1, "loops": 3, "itemsize": 4},
    },
    "kernels.attention.quantised_decode": {
        "quantised_decode": {"q": np.ones((1, 2, 8), np.float32), "keys": [KEYS], "values": [VALUES], "recent_keys": KV,
                             "recent_values": KV, "recent": 1, "scale": 0.5, "mask": np.ones((1, 1, 4), bool),
                             "num_threads": 1},
        "quantised_scores": {"q": np.ones((1, 2, 8), np.float32), "cache": KEYS, "num_threads": 1},
        "quantised_weighted_sum": {"p": np.ones((1, 2, 3), np.float32), "cache": VALUES, "num_threads": 1},
        "quantised_decode_work": {"query_heads": 2, "keys": [KEYS], "values": [VALUES], "recent_keys": KV},
    },
    "kernels.half_precision": {"as_float32": {"x": X}, "float_format": {"x": X}},
    "kernels.cancel": {"check_cancelled": {}},
    "kernels._native": {"set_num_threads": {"n": 2}, "get_num_threads": {}, "isa": {}},
    "kernels.attention.block_sparse": {
        "block_sparse_attention": ATTENTION | {"return_lse": False},
        "block_sparse_attention_backward": ATTENTION | {"out": Q, "lse": LSE, "grad": Q},
        "block_sparse_attention_work": {"block_mask": RAGGED, "t": 40, "d": 16, "block_size": 16, "causal": True,
                                        "key_positions": None, "queries": None},
        "block_shape": {"tq": 32, "tk": 32, "block_size": 16, "causal": True},
    },
    "kernels.attention.cost": {
        "attention_cost": BLOCKS | {"keep": RAGGED[0, 0], "allowed": None, "pairs": None, "d": 16, "summaries": None,
                                    "before": 0},
        "dense_pairs": {"t": 32, "causal": True},
        "kept_pairs": BLOCKS | {"keep": RAGGED, "queries": None},
        "pair_share": BLOCKS | {"keep": RAGGED},
        "block_share": BLOCKS | {"keep": RAGGED},
        "blocks_with_pairs": BLOCKS,
        "pairs_in_blocks": BLOCKS | {"queries": None},
    },
    "kernels.attention.csr_softmax": {
        "csr_softmax": {"scores": A},
        "csr_softmax_gradient": {"probabilities": A, "gradient": np.ones(5)},
    },
    "kernels.transforms.layer_norm": {
        "layer_norm_columns": {"x": X, "weight": X[:, 0].copy(), "bias": X[:, 1].copy(), "eps": 1e-5, "num_threads": 1},
        "layer_norm_columns_work": {"width": 3, "n": 4},
    },
    "kernels.masks.block_scores": {
        "antidiagonal_reshape": {"q": Q, "k": Q, "stride": 4, "mode": "random", "seed": 1, "query_every": 1},
        "lines_read": {"stride": 4, "mode": "random", "seed": 1},
        "xattn_block_scores": {"q": Q, "k": Q, "block_size": 16, "stride": 4, "causal": True, "mode": "random",
                               "seed": 1, "norm": 1.0, "query_every": 1, "attn_mask": SEEN},
        "pooled_block_scores": {"q": Q, "k": Q, "block_size": 16, "hidden": None, "causal": True, "query_pool": "max",
                                "key_pool": "mean"},
        "true_block_mass": {"q": Q, "k": Q, "block_size": 16, "causal": True, "attn_mask": SEEN},
        "visible_blocks": {"attn_mask": SEEN, "tq": 32, "tk": 32, "block_size": 16, "causal": True},
    },
    "kernels.masks.block_select": {
        "select_blocks": {"scores": np.ones((1, 2, 3, 3)), "threshold": 0.9, "causal": True, "keep_sink": True,
                          "keep_diagonal": True, "eligible": None, "method": "topk", "k": 2},
    },
    "kernels.formats.storage": {
        "dense_bits": {"shape": (4, 8), "value_bits": 16},
        "csr_bits": ENTRIES | {"index_bits": 32},
        "bitmap_bits": ENTRIES,
        "position_bound_bits": ENTRIES,
        "nm_bits": {"shape": (4, 8), "n": 2, "m": 4, "value_bits": 16},
        "bsr_bits": {"shape": (4, 8), "blocks": 2, "block": (2, 2), "value_bits": 16, "bitmap": True},
        "tiled_csl_bits": {"tile_nnz": [3, 0], "vector": 4},
        "block_group_bits": {"row_blocks": [3, 0], "block_rows": 4, "group": 4, "value_bits": 8, "index_bits": 64},
        "low_rank_bits": {"shape": (4, 8), "rank": 2, "value_bits": 16},
        "dictionary_bits": {"shape": (4, 8), "atoms": 3, "s": 2, "layers": 2, "value_bits": 16},
        "dense_sparse_bits": {"shape": (4, 8), "block": (4, 2), "atoms": 3, "s": 2, "value_bits": 16},
        "block_diagonal_bits": {"n": 8, "block": 2, "value_bits": 16},
        "quantised_bits": {"shape": (4, 8), "bits": 4, "group": 8, "scale_bits": 16, "zero_bits": 16},
        "whole_bytes": {"bits": 9},
    },
    "kernels.pareto": {"pareto_front": {"points": np.ones((3, 2)), "lower_is_better": (True, False)}},
    "kernels.masks.threshold": {
        "topk_threshold": {"scores": X, "k": 2, "axis": -1, "num_threads": 1},
        "topk_mask": {"scores": X, "k": 2, "axis": -1, "num_threads": 1},
        "quantile_threshold": {"scores": X, "q": 0.5, "method": "linear", "axis": -1, "num_threads": 1},
        "topk_mask_work": {"size": 5, "itemsize": 4},
    },
    "kernels.masks.pq_topk": {
        "pq_encode": {"x": X, "codebook": np.ones((2, 3, 2), np.float32), "num_threads": 1},
        "match_counts": {"qc": CODE_PAIRS, "kc": CODE_PAIRS, "num_threads": 1},
        "pq_topk": {"qc": CODE_PAIRS, "kc": CODE_PAIRS, "L": 2, "causal": True, "visible": np.ones((1, 3), bool),
                    "buckets": 4, "order": "index", "num_threads": 1},
        "fixed_degree_csr": {"indices": np.ones((1, 3, 2), np.int32), "valid": np.ones((1, 3), np.int32), "keys": 3},
        "pq_encode_work": {"n": 3, "M": 2, "E": 3, "w": 2, "itemsize": 4},
        "pq_topk_work": {"b": 1, "tq": 3, "tk": 3, "M": 4, "L": 2},
    },
    "kernels.masks.prune": {"prune_mask": {"scores": [X, X]} | GLOBAL},
    "kernels.masks.magnitude": {"magnitude_mask": {"weights": [X, X]} | GLOBAL},
    "kernels.masks.blocks": {
        "block_prune_mask": {"scores": [X, X], "block": (3, 2), "score": "norm"} | GLOBAL,
        "block_scores": {"scores": X, "block": (3, 2), "score": "norm"},
    },
    "kernels.masks.nm": {"nm_mask": {"scores": X, "n": 2, "m": 4, "num_threads": 1}},
    "kernels.masks.wanda": {
        "wanda_scores": {"w": X, "gram_diagonal": np.ones(4)},
        "wanda_mask": {"w": X, "gram_diagonal": np.ones(4), "sparsity": None, "n": 2, "m": 4, "num_threads": 1},
    },
    "kernels.masks.sparsegpt": {
        "sparsegpt_prune": {"w": X, "gram": np.eye(4), "sparsity": None, "n": 2, "m": 4, "block": 4, "damp": 0.01,
                            "samples": 3, "together": 1, "num_threads": 1},
    },
    "kernels.masks.movement": {
        "movement_scores": {"scores": X, "w": X, "gradient": X, "lr": 0.1},
        "snip_scores": {"w": X, "gradient": X},
        "snip_momentum_scores": {"scores": X, "w": X, "gradient": X, "beta": 0.9},
    },
    "kernels.masks.schedules": {
        "scheduled_sparsity": {"step": 3, "steps": 10, "final": 0.9, "schedule": "cubic"},
    },
    "kernels.masks.formula": {
        "parse_formula": {"text": "q >= k", "constants": None},
        "mask_from_formula": {"text": "q >= k", "t": 4, "head": 0, "batch": 0, "rows": None, "constants": {"w": 3}},
        "formula_pairs": {"text": "q >= k", "t": 4, "block_size": 2, "head": 0, "batch": 0, "causal": True,
                          "ahead": False, "most_steps": None, "constants": None},
    },
    "kernels.factor.omp": {
        "omp": {"dictionary": ATOMS, "vectors": X, "s": 2, "tol": 0.1, "num_threads": 1},
        "omp_work": {"d": 3, "k": 3, "n": 4, "s": 2, "itemsize": 4},
    },
    "kernels.factor.ksvd": {
        "ksvd": {"vectors": X, "k": 3, "s": 2, "iters": 1, "power_iters": 2, "init": "vectors", "dictionary": ATOMS,
                 "seed": 0, "callback": None, "num_threads": 1},
        "first_dictionary": {"vectors": X, "k": 2, "init": "vectors", "seed": 0},
        "ksvd_sweep": SWEPT | {"power_iters": 2, "first": 0, "stop": 2},
        "code_residual": SWEPT,
        "ksvd_sweep_work": {"d": 3, "k": 3, "n": 4, "s": 2, "power_iters": 2, "itemsize": 4},
    },
    "kernels.factor.whitening": {
        "whiten": {"gram": np.eye(3), "jitter": 1e-5}, "unwhiten": {"factor": np.eye(3), "whitened": X},
    },
    "kernels.factor.svd": {
        "rank_for_ratio": {"cr": 0.1, "shape": (4, 8)},
        "svd_plain": {"w": X, "rank": 1},
        "svd_llm": {"w": X, "gram": np.eye(4), "rank": 1, "jitter": 1e-5},
        "truncated_svd_work": {"shape": (4, 8), "rank": 2, "itemsize": 4},
    },
    "kernels.matrix_bytes": {"matrix_bytes": {"matrix": A, "ending": ".npz"}},
    "kernels.matmul.bsr_spmm": {
        "bsr_spmm": {"a": A32.tobsr(blocksize=(1, 3)), "b": X, "num_threads": 1},
        "bsr_spmm_work": {"a": A32.tobsr(blocksize=(1, 3)), "n": 4},
    },
    "kernels.matmul.bitmap_spmm": {
        "bitmap_spmm": {"a": BitmapRows.from_csr(A32), "x": X[:, :3].copy(), "num_threads": 1},
        "bitmap_spmm_work": {"a": BitmapRows.from_csr(A32), "n": 4},
    },
    "kernels.matmul.dataflow": {
        "dataflow_steps": PAIR | {"dataflow": "row", "limit": 5, "bins": 3, "windows": [0], "progress": None},
        "output_births": PAIR | {"dataflow": "row", "progress": None},
    },
    "kernels.matmul.dataflow_order": {
        "dataflow_order": PAIR | {"dataflow": "row"},
        "products_between": {"order": dataflow_order(A, A, "row"), "start": 0, "stop": 3},
    },
    "kernels.matmul.nm_spmm": {
        "nm_spmm": {"a": PACKED, "b": X.T.copy(), "num_threads": 1},
        "nm_spmm_work": {"a": PACKED, "columns": 4},
    },
    "kernels.matmul.wrapped_nm_spmm": {
        "wrapped_nm_spmm": {"s": PACKED, "x": X.T.copy(), "left": None, "right": None, "num_threads": 1},
        "wrapped_nm_spmm_work": {"s": PACKED, "columns": 4, "left_side": 2, "right_side": 2},
    },
    "kernels.matmul.on_chip": {
        "kept_on_chip": {"order": dataflow_order(A, A, "row"), "formed": 3, "windows": [0], "most": 5},
        "probe_slots": {"tags": np.array([3, 1]), "slots": 4},
    },
    "kernels.matmul.quantize": {
        "quantize_activation_u8": {"x": X, "low": -1.0, "high": 2.0, "num_threads": 1},
        "quantize_weight_s8_per_channel": {"w": X},
        "fold_zero_point": {"weight": GROUPED, "x_scale": 0.5, "x_zero": 3, "weight_scale": X[0],
                            "bias": X[1]},
    },
    "kernels.matmul.sddmm": {
        "sddmm": {"pattern": A32, "x": X, "y": X, "num_threads": 1},
        "sddmm_work": {"pattern": A32, "d": 4},
    },
    "kernels.matmul.skinny_spmm": {
        "skinny_spmm": {"a": TILED, "b": X, "split_k": 1, "method": "entries", "num_threads": 1},
        "skinny_spmm_work": {"a": TILED, "n": 4},
    },
    "kernels.matmul.spgemm": {
        "spgemm": PAIR | {"method": "hash", "sort": True, "drop_zeros": False, "num_threads": 1, "hashing": "low",
                          "log2_slots": 8, "load": 0.5},
        "row_flops": PAIR, "symbolic_nnz": PAIR, "spgemm_work": PAIR,
    },
    "kernels.matmul.spmm": {"spmm": {"a": A32, "b": X, "num_threads": 1}, "spmm_work": {"a": A32, "n": 4}},
    "kernels.matmul.spmm_int8": {
        "spmm_int8": {"weight": GROUPED, "x": X.astype(np.uint8), "bias": np.ones(4, np.int32), "scale": X[0],
                      "append": np.ones((4, 4), np.float32), "post": ("gelu",), "out_dtype": "float32",
                      "out_scale": 1.0, "out_zero": 0, "num_threads": 1},
        "spmm_int8_work": {"weight": GROUPED, "n": 4, "out_bytes": 4},
    },
    "kernels.matmul.traffic": {
        "dataflow_traffic": PAIR | {"dataflow": "row", "index_bytes": 4, "value_bytes": 8, "cache": "none"},
    },
    "kernels.optim.selected_adamw": {
        "selected_adamw": {"weights": np.ones(8), "gradients": np.zeros(8), "index": np.array([1, 4]),
                           "first": np.zeros(2), "second": np.zeros(2), "step": 1, "rate": 0.1, "beta1": 0.9,
                           "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1, "num_threads": 1},
        "selected_adamw_work": {"k": 10, "itemsize": 4, "index_bytes": 4, "dense": True},
    },
    "kernels.raster": {
        "raster": {"a": A, "window": WINDOW, "shape": (2, 2), "num_threads": 1},
        "raster_work": {"a": A, "window": WINDOW, "shape": (2, 2)},
        "raster_bits": {"bits": BITS, "columns": 16, "window": WINDOW, "shape": (2, 2), "num_threads": 1},
        "bin_edges": {"size": 10, "bins": 3},
        "bin_areas": {"window": WINDOW, "shape": (2, 2)},
        "window_entries": {"a": A, "window": WINDOW},
        "block_density": {"a": A, "block_size": 2, "num_threads": 1},
    "bit_block_density": {"bits": BITS, "columns": 16, "block_size": 2, "num_threads": 1},
    },
    "kernels.reorder": {
        "reorder": {"a": A, "method": "cluster", "seed": 0},
        "permuted": {"a": A, "ordering": reorder(A, "rcm")},
        "statistics": {"a": A},
        "bit_statistics": {"bits": BITS, "columns": 16},
    },
    "kernels.transforms.block_diagonal": {
        "block_diagonal_multiply": {"x": X, "w": BLOCK_WEIGHTS, "inner": 1, "num_threads": 1},
        "block_diagonal_gradient": {"x": X, "g": X, "shape": (2, 2, 2), "inner": 1, "num_threads": 1},
        "block_diagonal_work": {"blocks": 2, "out": 2, "width": 2, "rows": 3, "itemsize": 4, "parts": 1},
        "block_chain_multiply": {"x": X, "weights": [BLOCK_WEIGHTS], "inner": [2], "num_threads": 1},
        "block_chain_gradient": {"x": X, "weights": [BLOCK_WEIGHTS], "inner": [2], "g": X, "num_threads": 1},
    },
    "kernels.transforms.monarch": {
        "monarch_multiply": {"x": X, "w1": BLOCK_WEIGHTS, "w2": BLOCK_WEIGHTS, "num_threads": 1},
        "monarch_order_p_multiply": {"x": X, "weights": np.ones((2, 2, 2, 2), np.float32), "num_threads": 1},
        "monarch_work": {"first": (2, 2, 2), "second": (2, 2, 2), "rows": 3, "itemsize": 4, "parts": 1},
        "monarch_dense": {"w1": BLOCK_WEIGHTS, "w2": BLOCK_WEIGHTS},
        "monarch_sizes": {"n": 4},
        "monarch_permutation": {"n": 4, "sizes": (2, 2)},
        "monarch_project": {"matrix": np.eye(4), "nblocks": (2, 2), "rank": 1},
        "monarch_spectra": {"matrix": np.eye(4), "nblocks": 2},
    },
    "kernels.transforms.random_projection": {"orthogonal_random_features": {"m": 5, "d": 64, "seed": 0}},
    "workbench.machines.piuma": {
        "simulate_spgemm": PAIR | {"version": 1, "config": PiumaConfig(), "hash": "low", "blocks": 1,
                                   "check_spad": True, "trace": None, "event_limit": 10, "bins": 64, "progress": None},
        "baseline": PAIR | {"dataflow": "row", "config": PiumaConfig()},
        "spad_bytes_needed": {"version": 1, "config": PiumaConfig()},
    },
    "workbench.machines.piuma_tables": {
        "plan_windows": PAIR | {"slots": 64, "load": 0.5},
        "hash_trace": TRACED | {"progress": None},
        "table_snapshot": TRACED | {"window": 0},
    },
    "workbench.machines.peaks": {"stored_peaks": {"threads": 1}},
    "workbench.machines.roofline": {
        "ceilings": {"threads": 1},
        "roofline": {"m": 64, "k": 32, "n": 8, "sparsity": 0.5, "peak_flops": 1e12, "bandwidth": 1e11,
                     "fmt": "tiled-csl", "activation_bytes": 2},
    },
}  # fmt: skip

# Functions that are no door: they trust their arguments, measure what they are handed, or tell about this computer.
INSIDE = {
    "kernels.check",
    *(f"kernels.masks.prune.{name}" for name in ("count_pruned", "like", "mask_at_sparsity", "named_layers")),
    "kernels.masks.nm.as_nm",
    "kernels.masks.wanda.as_sparsity",
    *(f"kernels.masks.threshold.{name}" for name in ("check_scores", "mask_of_largest")),
    "kernels.factor.omp.check_operands",
    *(f"kernels.factor.svd.{name}" for name in ("as_ratio", "check_gram", "check_matrix")),
    "kernels.factor.codes.check_codes",
    "kernels.formats.packed_csr.pack",
    "kernels.masks.formula_bounds",
    "kernels.masks.formula_tree",
    "kernels.masks.formula_values",
    *(f"kernels.matmul.dataflow_order.{name}" for name in ("entries_between", "products_of", "window_starts")),
    "kernels.matmul.spgemm.operands",
    "kernels.matmul.spmm.dense_operand",
    "kernels.matrix_bytes.for_scipy",
    "kernels.raster.check_bits",
    *(f"kernels.transforms.block_diagonal.{name}" for name in ("check_blocks", "check_numbers")),
    "workbench.machines.host",
    "workbench.machines.peaks.measure_peaks",
    "workbench.machines.piuma_reference",
    "workbench.machines.stopwatch",
    "workbench.machines.tensor_memory",
    *(
        f"workbench.machines.piuma_tables.{name}"
        for name in ("batches", "check_plan", "log2_of", "plan_structure", "row_work", "structure", "trace_structure")
    ),
}

BAD = [
    None, True, False, -1, 0, 1, 3, 2**16, 2**31, 2**31 - 1, 2**63, 2**100, -(2**100), 64.0, 2.5, -0.5, float("nan"),
    float("inf"), 1e300, 10**400, np.float32(2), np.int8(2), np.int64(-3), np.uint64(2**63), np.bool_(True), 1j, "2",
    "", "row ", b"2", [], [1], (1, 2), (0, 1, 0, 2), (0.0, 1, 0, 2), (-1, 2, 0, 3), (0, 2**70, 0, 1), ("a", "b"), {},
    {"a": 1}, object(), print, np.array(2), np.array(2.0), np.array("2"), np.array([]), np.array([2]),
    np.array([[2.0, 3.0]]), np.array([None, 1]), np.zeros((1, 1, 4, 0)), np.zeros((0, 0, 0, 0), np.float32),
    np.zeros((1, 2, 32, 0), np.float32), np.full((1, 2, 32, 16), np.nan, np.float32), np.zeros((1, 2, 3, 3), np.int64),
    np.zeros((1, 2, 32, 16), np.float16), torch.zeros(1, 2, 32, 16), torch.zeros(1, 2, 32, 16, dtype=torch.float64),
    torch.tensor(3), torch.tensor(3.5), torch.float64, sparse.csr_array((0, 0)), sparse.csr_array((3, 0)),
    sparse.csr_array((3, 2**40)), sparse.coo_array((3, 3)),
    A.toarray(), A.astype(np.int64), A.astype(complex), A.tocsc(), sparse.csr_array(np.ones(3)),
]  # fmt: skip
# Read by their truth, which an array has none of.
FLAGS = {"causal", "return_lse", "keep_sink", "keep_diagonal", "sort", "drop_zeros", "check_spad", "ahead", "dense"}


def public_functions():
    for package in (kernels, workbench.machines):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            parts = found.name.split(".")
            if found.ispkg or any(part.startswith("_native_") for part in parts):
                continue
            module = importlib.import_module(found.name)
            for name, function in inspect.getmembers(module, inspect.isfunction):
                if function.__module__ == found.name and not name.startswith("_") and not name.endswith("_reference"):
                    yield found.name, name, function


def test_every_public_function_is_tried():
    listed = {f"{module}.{name}" for module, functions in DOORS.items() for name in functions}
    found = {f"{module}.{name}" for module, name, _ in public_functions() if module not in INSIDE}
    assert found - INSIDE == listed


def complaint(call, function):
    """Say what is wrong with how ``call()`` ends; None if it returns or refuses in the form of the house."""
    try:
        call()
    except (ValueError, TypeError) as error:
        words = str(error)
        ours = words.startswith(function) and ":" in words and "incompatible function arguments" not in words
        return None if ours else f"{type(error).__name__}: {words[:200]}"
    except MemoryError as error:  # a permutation of 2^40 columns is what was asked for
        return None if function == ("reorder",) else f"MemoryError: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


# Functions that hand on to others, whose name the sentence then has.
HELPERS = {
    "block_sparse_attention_work": ("block_sparse_attention_work", "pairs_in_blocks"),
    "dataflow_steps": ("dataflow_steps", "dataflow_order"),
    "output_births": ("output_births", "dataflow_order"),
    "baseline": ("baseline", "dataflow_traffic"),
    "simulate_spgemm": ("simulate_spgemm", "plan_windows"),
    "svd_llm": ("svd_llm", "whiten"),
    "bit_block_density": ("bit_block_density", "raster_bits"),
    "block_chain_gradient": ("block_chain_gradient", "block_diagonal_gradient", "block_diagonal_multiply"),
    "monarch_multiply": ("monarch_multiply", "block_chain_multiply"),
    "monarch_order_p_multiply": ("monarch_order_p_multiply", "block_chain_multiply"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, functions in DOORS.items() for name in functions]
)
def test_bad_arguments_are_refused_in_a_sentence(module, name, monkeypatch):
    monkeypatch.setattr(roofline, "_measured", lambda threads: threads)
    function, good = getattr(importlib.import_module(module), name), DOORS[module][name]
    assert set(good) == set(inspect.signature(function).parameters)
    function(**good)
    wrong = []
    for argument in good:
        for value in BAD:
            if argument in FLAGS and hasattr(value, "shape"):
                continue
            found = complaint(lambda a=argument, v=value: function(**(good | {a: v})), HELPERS.get(name, (name,)))
            if found:
                wrong.append(f"{argument}={type(value).__name__} {repr(value)[:60]} -> {found}")
    assert not wrong, "\n".join(wrong)


WHOLE = {
    "block_size", "num_threads", "stride", "query_every", "limit", "bins", "start", "stop", "index_bytes",
    "value_bytes", "log2_slots", "columns", "size", "version", "blocks", "event_limit", "slots", "threads",
    "n", "m", "d", "t", "head", "batch",
}  # fmt: skip


@pytest.mark.parametrize("value", [64.0, "2", True, np.float32(2), np.bool_(True), 2.5, 1j, [2], np.array(2.0)])
def test_whole_numbers_are_asked_for_in_words(value):
    tried = 0
    for module, functions in DOORS.items():
        for name, good in functions.items():
            for argument in WHOLE & set(good):
                with pytest.raises(TypeError, match=f"{argument} must be an int"):
                    getattr(importlib.import_module(module), name)(**(good | {argument: value}))
                tried += 1
    assert tried > 40


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint64, np.array, torch.tensor])
def test_any_integral_type_will_do(kind, monkeypatch):
    monkeypatch.setattr(roofline, "_measured", lambda threads: threads)
    for module, functions in DOORS.items():
        for name, good in functions.items():
            for argument in WHOLE & set(good):
                getattr(importlib.import_module(module), name)(**(good | {argument: kind(good[argument])}))


@pytest.mark.parametrize("change", [{"block_shape": 2}, {"block_shape": (2.0, 2)}, {"shape": (3,)}, {"shape": "ab"}])
def test_a_block_mask_is_refused_in_a_sentence(change):
    good = {"blocks": np.ones((2, 2), bool), "block_shape": (2, 2), "shape": (4, 4)}
    with pytest.raises((ValueError, TypeError), match=r"BlockMask: .* must be"):
        BlockMask(**(good | change))


@pytest.mark.parametrize("block_size", [4, 7, 2**31, 2**62])
@pytest.mark.parametrize("tokens", [(4, 4), (2, 4), (4, 1)])
def test_a_block_larger_than_the_tokens_takes_memory_by_tokens(block_size, tokens):
    from kernels.masks.block_scores import pooled_block_scores, true_block_mass, xattn_block_scores

    rng = np.random.default_rng(1)
    q, k = (rng.standard_normal((1, 1, t, 3)) for t in tokens)
    causal = tokens[0] <= tokens[1]
    np.testing.assert_allclose(true_block_mass(q, k, block_size=block_size, causal=causal), tokens[0])
    np.testing.assert_allclose(pooled_block_scores(q, k, block_size=block_size, causal=causal), 1)
    found = xattn_block_scores(q, k, block_size=4 * block_size, stride=2, causal=causal)
    np.testing.assert_allclose(found, -(-tokens[0] // 2))
    assert found.shape == (1, 1, 1, 1)


def test_hash_trace_takes_what_it_was_planned_for():
    assert hash_trace(A, A, PLAN, np.int32(64)).nnz == (A @ A).nnz
