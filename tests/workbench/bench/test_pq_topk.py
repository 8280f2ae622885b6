import numpy as np
import pytest

from workbench.bench import pq_topk
from workbench.bench.runner import load_peers

LOADED = load_peers(pq_topk.BENCH)[0]


def test_every_contender_passes_the_check():
    case = pq_topk._build((2, 72), 2, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert case.work == 2 * 72 * 73 / 2 and case.result_bytes == 4 * 2 * 72 * 9


def test_the_check_sees_wrong_places():
    case = pq_topk._build((1, 64), 2, ())
    good = case.contenders[0].run()
    other = np.where(good == good[:, -1:, :1], good[:, -1:, -1:], good)
    reverse = np.tile(np.arange(8, dtype=np.int32), (1, 64, 1))
    for wrong, told in ((good[:, :5], "wanted"), (good.astype(int), "wanted"), (other, "keys up to"),
                        (reverse, "keys up to"), (np.where(good < 0, -1, np.sort(good % 8, -1)), "row")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            case.check("ours", wrong)
    first = good.copy()
    for i in range(8, 64):
        first[0, i] = range(8)  # keys that every row sees, but not its best
    with pytest.raises(ValueError, match="keeps a key of"):
        case.check("ours", first)


def test_what_is_run():
    assert [spec.name for spec in pq_topk._specs(True, 2, [])] == ["2x512"]
    assert [spec.group for spec in pq_topk._specs(False, 2, [])] == ["1,024 tokens", "4,096 tokens", "16,384 tokens"]
