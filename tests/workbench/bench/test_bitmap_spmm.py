import pytest

from workbench.bench import bitmap_spmm
from workbench.bench.runner import load_peers

LOADED = load_peers(bitmap_spmm.BENCH)[0]


@pytest.mark.parametrize("n", [1, 5])
def test_every_contender_passes_the_check(n):
    case = bitmap_spmm._build((48, 40), n, 50, 2, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    with pytest.raises(ValueError, match="values differ"):
        case.check("ours", case.contenders[0].run() + 1)


def test_shapes_of_dictionaries_are_run():
    assert [case.name for case in bitmap_spmm._specs(True, 2, [])] == [
        f"1536x256x{n}/{sparsity}" for sparsity in (50, 75) for n in (1, 4, 8)
    ]
    assert len(bitmap_spmm._specs(False, 2, [])) == 24
