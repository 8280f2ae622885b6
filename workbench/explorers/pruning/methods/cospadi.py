"""CoSpaDi: every output is a combination of a few atoms of a dictionary that is learnt on whitened weights."""

from functools import partial

from workbench.explorers.pruning.factored import dictionary_count, dictionary_sizes, from_dictionary
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod
from workbench.models.compression.cospadi import dictionary_factors
from workbench.models.compression.dictionary_linear import SparseDictLinear

SWEEPS = 3  # of the paper's 60, which give most of what all of them do


def compress(weight, known, level, sweeps=SWEEPS):
    """Learn a dictionary in a few sweeps."""
    k, s = dictionary_sizes(weight.shape, level, "cospadi")
    found = dictionary_factors([weight], known.gram, k, s, iters=sweeps)
    return from_dictionary(SparseDictLinear.from_codes(found.dictionary, found.codes[0]))


METHOD = PruningMethod(
    key="cospadi", title="Sparse dictionary (CoSpaDi)", levels=SHARES, compress=compress,
    source="Makhov et al. 2025, arXiv 2509.22075", needs="gram", count=dictionary_count("cospadi"), masks=False,
    outline=partial(compress, sweeps=0),
)  # fmt: skip
