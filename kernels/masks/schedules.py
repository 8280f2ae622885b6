r"""How sparsity grows while a network trains, from 0 to its final value.

With p = step / steps, from 0 to 1, and the final sparsity f:

.. math:: \text{exp: } 1 - (1 - f)^p, \quad \text{cos: } f (1 - \cos(p \pi / 2)), \quad \text{linear: } f p, \quad
          \text{cube: } f p^3, \quad \text{cubic: } f (1 - (1 - p)^3)
"""

from math import cos, pi

from kernels.check import as_int, as_number, check_choice

__all__ = ["scheduled_sparsity"]

SCHEDULES = {
    "exp": lambda p, final: 1 - (1 - final) ** p,
    "cos": lambda p, final: final * (1 - cos(p * pi / 2)),
    "linear": lambda p, final: final * p,
    "cube": lambda p, final: final * p**3,
    "cubic": lambda p, final: final * (1 - (1 - p) ** 3),
}


def scheduled_sparsity(step, steps, final, *, schedule="exp") -> float:
    """Return the sparsity at a step.

    Parameters
    ----------
    step : at least 0; from ``steps`` on the sparsity is the final one.
    steps : how many steps the growth takes, at least 1.
    final : sparsity at the end, in [0, 1].
    schedule : "exp" removes the same share of what is left in every step; "cos" and "cube" begin slowly; "linear";
        "cubic" begins fast and ends slowly.

    Returns
    -------
    Sparsity in [0, final], exactly 0 at step 0 and exactly ``final`` at ``steps``; it never falls.

    Raises
    ------
    TypeError : step or steps is no integer, final no number.
    ValueError : out of range, or an unknown schedule.

    Source
    ------
    Intel Neural Compressor ("exp", its default, "cos", "linear", "cube"); Zhu and Gupta 2017, Eq. 1 ("cubic").
    """
    name = "scheduled_sparsity"
    step = as_int(step, function=name, name="step", low=0)
    steps = as_int(steps, function=name, name="steps", low=1)
    final = as_number(final, function=name, name="final", low=0, high=1)
    check_choice(schedule, SCHEDULES, function=name, name="schedule")
    if step == 0 or step >= steps:
        return 0.0 if step == 0 else final
    return min(final, max(0.0, SCHEDULES[schedule](step / steps, final)))
