"""What the tests of the papers' judges share."""

import numpy as np
import pytest


@pytest.fixture
def words_at_a_tie():
    """Return ``words(judge, rows)``: all verdicts on rows as they are, and with their last digits changed.

    Every value that is no count is moved by 1e-12 of itself, up or down by chance, eight times over.
    """

    def words(judge, rows):
        rng = np.random.default_rng(1)

        def moved(row):
            if isinstance(row["value"], int):
                return row
            return row | {"value": row["value"] * (1 + rng.choice((-1e-12, 1e-12)))}

        return {judge(found)[1] for found in (rows, *([moved(row) for row in rows] for _ in range(8)))}

    return words
