"""The pixels of a photograph of a cup of coffee."""

from functools import partial

from workbench.data import images
from workbench.explorers.attention.source import of_picture

SOURCE = of_picture(key="coffee", title="Picture: coffee", make=partial(images.picture, "coffee"))
