"""The machine of the SpGEMM explorer: knobs start at the machine file, reach the machine, and are refused in words."""

import pytest

from workbench.explorers.spgemm import machine
from workbench.machines.piuma import PiumaConfig

DEFAULTS = {knob.key: knob.default for knob in machine.KNOBS}


def test_knobs_reach_the_machine():
    config = machine.machine_config({"bw": 4.2, "log2_slots": 12, "load": 0.1, "threads_per_mtc": 8, "token_pp": 32})
    assert (config.bw, config.dma_bw, config.log2_slots, config.load) == (4.2, 4.2, 12, 0.1)
    assert (config.threads_per_mtc, config.token_pp) == (8, 32)


def test_knobs_start_at_the_machine_file():
    config = PiumaConfig()
    assert [knob.key for knob in machine.CONSTANTS] == ["log2_slots", "load", "threads_per_mtc", "bw", "token_pp"]
    for knob in machine.CONSTANTS:
        assert knob.default == getattr(config, knob.key)
        assert knob.tag in ("published", "from memory", "calibrated")
    assert machine.machine_config({}) == machine.machine_config(DEFAULTS)


@pytest.mark.parametrize(
    "chosen, version, bits",
    [
        ("own", 1, "high"),
        ("own", 2, "low"),
        ("own", 3, "low"),
        ("low", 1, "low"),
        ("multiplicative", 1, "multiplicative"),
    ],
)
def test_a_version_hashes_by_its_own_bits_unless_others_are_chosen(chosen, version, bits):
    assert machine.hash_bits({"hash": chosen}, version) == bits


@pytest.mark.parametrize(
    "changed, refused",
    [
        ({"version": 1, "load": 0.5}, True),
        ({"hash": "high", "load": 0.5}, True),
        ({"version": 1, "load": 0.495}, False),
        ({"version": 1, "load": 0.5, "hash": "low"}, False),
        ({"load": 0.5}, False),
    ],
)
def test_high_order_bits_at_high_load_are_refused(changed, refused):
    sentence = machine.refuse(DEFAULTS | changed)
    assert ("the limit of the live view is a load below 0.5" in sentence) if refused else sentence is None
