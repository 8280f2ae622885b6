"""The pixels of a photograph of an astronaut."""

from functools import partial

from workbench.data import images
from workbench.explorers.attention.source import of_picture

SOURCE = of_picture(key="astronaut", title="Picture: astronaut", make=partial(images.picture, "astronaut"))
