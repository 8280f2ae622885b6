"""What SEA's knobs do to a trained estimate: where the budget flows, and keys that are turned after training."""

import pytest

from workbench.explorers.attention.method import methods
from workbench.explorers.attention.source import load_input
from workbench.models.attention.sea_cells import GROUPS

SETTINGS = {"estimator": "trained_180", "cells": 32, "keys_per_query": 4, "group": "query"}


def trace(**settings):
    return methods()["sea"].trace(load_input("minilm", tokens=64, layer=3, head=2), SETTINGS | settings)


def test_the_budget_flows_between_heads_only_where_the_group_lets_it():
    for group in GROUPS:
        told = trace(group=group).facts["keys per query, head by head (measured)"].split()
        spent = [float(keys) for keys in told]
        assert sum(spent) / len(spent) == pytest.approx(4, abs=0.01)
        assert (len(set(spent)) > 1) == (group in ("batch", "causal_batch")), group


def test_more_keys_after_training_cover_more():
    found = [trace(keys_per_query=keys) for keys in (4, 8, 16)]
    assert [seen.density for seen in found] == pytest.approx([4 / 64, 8 / 64, 16 / 64], rel=0.01)
    covered = [seen.coverage for seen in found]
    assert covered == sorted(covered) and covered[0] < covered[2]
