"""PreCropping: channels are cropped before training to the layerwise densities that a pruner asks for."""
