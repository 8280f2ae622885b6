"""A Knob becomes a slider, dropdown or play button."""
