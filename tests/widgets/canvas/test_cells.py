import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

from widgets.canvas import sheet
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


def area(image):
    """The cells in the image's PNG, each a square of pixels: (h, w, side, side, 3)."""
    printed = image._sheet()
    layout = sheet._Layout(printed, worded=True)
    inside = pixels(image.png())[layout.top : layout.top + layout.area_h, layout.left : layout.left + layout.area_w]
    h, w = printed.pixels.shape[:2]
    return inside.reshape(h, layout.down, w, layout.across, 3).swapaxes(1, 2)


def test_png_shows_every_cell_in_its_colour():
    cells = area(shown([[0, 1], [2, 0], [1, 1]]))
    middles = cells[:, :, cells.shape[2] // 2, cells.shape[3] // 2]
    assert middles[0, 0].tolist() == middles[1, 1].tolist() == [255, 255, 255]
    assert middles[1, 0].tolist() == [0xD5, 0x5E, 0]
    assert middles[2, 1].tolist() == [0, 0x72, 0xB2]


def test_frames_surround_their_cell():
    cells = area(shown([[0, 1], [2, 0]], frames=[(0, 1)], frame_colour="#102030"))
    framed, plain = cells[0, 1], cells[1, 1]
    middle = framed.shape[0] // 2
    assert framed[middle, 4].tolist() == [0x10, 0x20, 0x30] and framed[middle, middle].tolist() == [0, 0x72, 0xB2]
    assert plain[middle, middle].tolist() == [255, 255, 255]


def words_of(image):
    root = ElementTree.fromstring(image.svg())
    return root, [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_svg_is_well_formed_escapes_and_has_axes_title_and_legend():
    image = shown([[1, 2]], texts=[(0, 0, "<3>")], title="A & B", alt="one < two", axes=("table line", "slot"))
    root, words = words_of(image)
    assert root[0].text == "A & B"
    assert {"A & B", "One < two", "<3>", "table line", "slot", "0", "1", "entry", "now"} <= set(words)


def test_axes_count_what_the_picture_stands_for():
    _, words = words_of(shown(np.ones((4, 4)), shape=(400, 8000)))
    assert {"100", "300", "2,000", "6,000"} <= set(words)


def test_empty_pictures_are_fine():
    image = shown(np.zeros((0, 3)))
    assert image.picture["height"] == 0 and image.is_empty and CellImage().is_empty and not shown([[0]]).is_empty
    assert image.png().startswith(b"\x89PNG")


def test_wrong_cells_are_named():
    with pytest.raises(ValueError, match="at most 512 a side"):
        shown(np.zeros((513, 2)))
    with pytest.raises(ValueError, match="class 3 has no colour"):
        shown([[3]])
