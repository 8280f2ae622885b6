"""One sparse weight in several storage formats: weights, formats and machines of the view."""
