"""The pixels of a photograph of a cat."""

from functools import partial

from workbench.data import images
from workbench.explorers.attention.source import of_picture

SOURCE = of_picture(key="chelsea", title="Picture: cat", make=partial(images.picture, "chelsea"))
