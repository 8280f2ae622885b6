"""The pixels of a drawn landscape with two like houses."""

from workbench.data import images
from workbench.explorers.attention.source import of_picture

SOURCE = of_picture(key="landscape", title="Picture: drawn landscape", make=images.landscape)
