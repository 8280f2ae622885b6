"""Settings of the explorer worth seeing, and what to look at."""

from widgets.views.frame.story import Story

STORIES = {
    "level": Story(
        "As many weights in every layer",
        {"density": 0.03, "rounds": 100, "section": "rounds"},
        "Layers differ in size more than two hundredfold. How much do the counts of weights that stay differ? The "
        "marks are the water level: the same number everywhere, or all of a layer that has fewer.",
    ),
    "collapse": Story(
        "A layer is lost",
        {"density": 0.01, "rounds": 1, "section": "rounds"},
        "With one round the late layers keep nothing, and no signal passes through them. Raise the rounds: after how "
        "many does every layer keep a weight?",
    ),
    "crop": Story(
        "The same share, as whole channels",
        {"density": 0.1, "section": "layers"},
        "A box is the share of a layer after whole channels went. Residual streams are shared by many layers, so not "
        "every box fits its bar. Which layers pay for it?",
    ),
    "shuffle": Story(
        "Which weights stay does not matter",
        {"density": 0.1, "section": "mask", "layer": "blocks.3.conv1"},
        "Three masks keep about as many weights of one layer. Shuffle the second one again: does a dense kernel have "
        "less to multiply? Only the third one is a smaller layer. What shuffling does to the accuracy is recorded in "
        "the last part of the view.",
    ),
    "accuracy": Story(
        "What it costs, and what it saves",
        {"density": 0.03, "section": "accuracy", "axis": "time"},
        "Masked nets take the time of the dense one, or more when sparse products run them. Where do the cropped nets "
        "stand? Then look at the weights that stay in place of the time.",
    ),
}
