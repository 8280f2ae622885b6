"""Grading of exercises: what an exercise is, how an answer is compared, how the verdict is shown."""
