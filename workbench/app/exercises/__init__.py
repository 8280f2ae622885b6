"""Exercises with self-check: a notebook's are in one file that exports ``EXERCISES``.

A paper's stand in ``workbench/papers/<key>/exercises.py``, those of a notebook that is no paper's in this folder.

In a notebook, and nothing of the solution is in its source::

    from workbench.app.exercises import check, given, hint

    a, b = given("smash/multiplications")   # this learner's own input, seeded by their name
    answer = ...                            # stays `...` until the learner fills it in
    check("smash/multiplications", answer)  # last line of the cell: shows an explained verdict, never raises
    hint("smash/multiplications")           # one more hint at each call

Names are ``"<notebook>/<exercise>"``. A file is a tuple of :class:`~workbench.grading.exercise.Exercise`::

    from workbench.grading.exercise import Exercise, Mistake

    EXERCISES = (
        Exercise(
            name="multiplications",
            question="How many multiplications does a @ b take?",
            given=lambda rng: (random_matrix(rng), random_matrix(rng)),
            answer=lambda pair: int(row_flops(*pair).sum()),
            unit="multiplications",
            hints=("Each entry of a meets one whole row of b.", "np.diff(b.indptr) are the row lengths of b."),
            mistakes=(Mistake(lambda pair: pair[0].nnz * pair[1].nnz, "Not every entry of a meets every entry of b."),),
        ),
    )

The answer may be a bool, an int (compared exactly), a float (four significant digits are enough), a string, a NumPy
array, a SciPy sparse array, a tuple or dict of these, or a function: then the learner's function is called on
``cases(given)`` and compared call by call. ``check`` adds to the question which of these is wanted and how precisely,
and judges a learner's answer by its value, whatever its type. On a page of the dashboards' server it shows a form; what
is typed there is parsed (`workbench.grading.typed`) and never evaluated.
The right answer is computed by ``answer`` from what ``given`` returned, never typed in. Heavy imports belong inside
functions. ``tests/workbench/app/exercises`` holds every exercise to this: its right answer passes for several
learners, learners get different inputs, every mistake differs from the right answer, there are at least two hints, and
the notebook of the same key asks it.

The learner is ``WORKBENCH_STUDENT``, else ``JUPYTERHUB_USER``, else the name of the account.
"""

from workbench.app.grader import check, given, hint

__all__ = ["check", "given", "hint"]
