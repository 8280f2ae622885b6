"""The explorer of layer densities: what pruners keep of every layer before training, and channels cropped to it."""
