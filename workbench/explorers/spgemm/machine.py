"""The machine that runs the product, a model of Intel's PIUMA: its knobs, and what they describe."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from widgets.controls.knob import Knob
from workbench.machines.piuma import VERSION_HASH, PiumaConfig

NAME = "PIUMA"
HIGH_LOAD = 0.5  # from here on high-order bits need hundreds of probes a product
_FILE = PiumaConfig()
_TAGS = {constant.name: constant.tag for constant in PiumaConfig.constants()}


def _constant(key, label, low, high, step, **more):
    return Knob(key, label, getattr(_FILE, key), low, high, step, tag=_TAGS[key], **more)


VERSION = Knob(
    "version",
    "Kernel version",
    3,
    1,
    3,
    1,
    help="1 splits the work beforehand, 2 hands it out in tokens, 3 also has the DMA engine write back.",
)
HASH = Knob(
    "hash",
    "Hash bits",
    "own",
    choices=(
        ("own", "the version's own"),
        ("high", "high (keeps order)"),
        ("low", "low"),
        ("multiplicative", "multiplicative (ours)"),
    ),
    help="Which bits of a product's place in C choose its slot in the table.",
)
CONSTANTS = (
    _constant("log2_slots", "Table slots (log2)", 4, 18, 1, help="Above 2^17 version 3 no longer fits the scratchpad."),
    _constant("load", "Table load", 0.01, 0.5, 0.005, help="Share of the table that a window may fill."),
    _constant("threads_per_mtc", "Threads per pipeline", 1, 64, 1, scale="log2", help="Four pipelines per block."),
    _constant("bw", "DRAM bandwidth (bytes/cycle)", 0.5, 17.0, 0.1, help="Also what the DMA engine asks for."),
    _constant(
        "token_pp", "Token size (products)", 1, 4096, 1, scale="log2", help="Products per token in versions 2 and 3."
    ),
)
BLOCKS = Knob(
    "blocks", "PIUMA blocks", 1, 1, 16, 1, scale="log2", help="Rows are spread over the blocks, an extension of ours."
)
KNOBS = (VERSION, HASH, *CONSTANTS, BLOCKS)


def machine_config(settings: Mapping[str, Any]) -> PiumaConfig:
    """Return the machine that the knobs describe; the bandwidth knob turns DRAM and DMA engine alike.

    Parameters
    ----------
    settings : values of the knobs; what is left out has the machine file's value.
    """
    chosen = {knob.key: settings.get(knob.key, knob.default) for knob in CONSTANTS}
    return replace(_FILE, **chosen, dma_bw=chosen["bw"])


def hash_bits(settings: Mapping[str, Any], version: int) -> str:
    """Return the bits that a kernel version hashes by: the chosen ones, or its own."""
    return VERSION_HASH[version] if settings["hash"] == "own" else settings["hash"]


def refuse(settings: Mapping[str, Any]) -> str | None:
    """Return the sentence that refuses what the live view cannot run, or None."""
    if settings["load"] >= HIGH_LOAD and hash_bits(settings, settings["version"]) == "high":
        return (
            f"High-order bits at load {settings['load']:g} need hundreds of probes a product and more; the limit "
            f"of the live view is a load below {HIGH_LOAD:g}: lower it or choose another hash."
        )
    return None
