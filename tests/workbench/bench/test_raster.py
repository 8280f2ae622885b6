import numpy as np
import pytest

from workbench.bench import piuma, raster
from workbench.bench.runner import load_peers
from workbench.data.matrices import erdos_renyi


@pytest.mark.slow
def test_every_raster_contender_passes_the_check_and_a_wrong_picture_does_not():
    loaded = load_peers(raster.BENCH)[0]
    case = raster._build(lambda: erdos_renyi(3000, 2000, 5), 2, loaded)
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    picture = np.array(case.contenders[0].run())
    i, j = np.argwhere(picture)[0]
    picture[i, j] -= 1
    with pytest.raises(ValueError, match="sum to"):
        case.check("ours", picture)
    picture[(i + 1) % 512, j] += 1
    with pytest.raises(ValueError, match="another pixel"):
        case.check("ours", picture)


def test_the_model_is_checked_against_the_count_of_products():
    case = piuma._build(lambda: (erdos_renyi(200, nnz_per_row=4),) * 2, 3)
    result = case.contenders[0].run()
    case.check("ours", result)
    assert case.work == result.products
