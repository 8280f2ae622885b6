"""Components that make models, or what they keep while they run, smaller, one file for each method."""
