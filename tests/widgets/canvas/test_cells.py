import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

from widgets.canvas.cells import CellImage

PALETTE = ("#ffffff", "#0072b2", "#d55e00")


def shown(cells, **more):
    image = CellImage()
    image.show(np.array(cells, np.uint8), PALETTE, ("", "entry", "now"), **more)
    return image


def pixels(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    length = struct.unpack(">I", png[33:37])[0]
    lines = np.frombuffer(zlib.decompress(png[41 : 41 + length]), np.uint8).reshape(height, 1 + 3 * width)
    return lines[:, 1:].reshape(height, width, 3)


def test_png_shows_every_cell_in_its_colour():
    image = shown([[0, 1], [2, 0], [1, 1]])
    picture = pixels(image.png(side=30))
    assert picture.shape == (30, 20, 3)
    assert picture[5, 5].tolist() == [255, 255, 255]
    assert picture[15, 5].tolist() == [0xD5, 0x5E, 0]
    assert picture[25, 15].tolist() == [0, 0x72, 0xB2]


def test_frames_surround_their_cell():
    image = shown([[0, 1], [2, 0]], frames=[(1, 0)], frame_colour="#102030")
    picture = pixels(image.png(side=40))
    assert picture[20, 0].tolist() == [0x10, 0x20, 0x30]
    assert picture[30, 10].tolist() == [0xD5, 0x5E, 0]
    assert picture[5, 30].tolist() == [0, 0x72, 0xB2]


def test_svg_is_well_formed_and_escapes():
    image = shown([[1]], texts=[(0, 0, "<3>")], title="A & B", alt="one < two")
    root = ElementTree.fromstring(image.svg())
    assert [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")] == ["<3>"]
    assert root[0].text == "A & B"


def test_empty_pictures_are_fine():
    image = shown(np.zeros((0, 3)))
    assert image.picture["height"] == 0
    assert image.png().startswith(b"\x89PNG")


def test_wrong_cells_are_named():
    with pytest.raises(ValueError, match="at most 512 a side"):
        shown(np.zeros((513, 2)))
    with pytest.raises(ValueError, match="class 3 has no colour"):
        shown([[3]])
