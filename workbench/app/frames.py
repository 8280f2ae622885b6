"""Looks at what comes through a page's websocket before anything reads it: the size of a frame is the visitor's word.

A frame of Jupyter's protocol v1.kernel.websocket.jupyter.org is a number of offsets (8 bytes, little-endian), the
offsets (8 bytes each), and what lies between them: the channel's name, then header, parent header, metadata and content
as JSON, then buffers.
"""

import json
from itertools import pairwise

PROTOCOL = "v1.kernel.websocket.jupyter.org"
PARTS = 64
CHANNELS = (b"shell", b"control", b"stdin")
JSON_PARTS = ("header", "parent header", "metadata", "content")


class BadFrameError(ValueError):
    """The frame is not one that a page would send; the websocket is closed with ``close_code``."""

    def __init__(self, sentence: str, close_code: int = 1002):
        super().__init__(sentence)
        self.close_code = close_code


def check_frame(frame: bytes | str):
    """Raise BadFrameError unless the frame can be taken apart in few steps and names a channel and a message."""
    if isinstance(frame, str):
        raise BadFrameError("a text frame, where the protocol has binary ones", close_code=1003)
    if len(frame) < 16:
        raise BadFrameError(f"a frame of {len(frame)} bytes; the shortest has 16")
    count = int.from_bytes(frame[:8], "little")
    least = len(JSON_PARTS) + 2  # channel, the parts, the end
    if not least <= count <= PARTS:
        raise BadFrameError(f"a frame of {count} offsets; there are {least} to {PARTS}")
    offsets = [int.from_bytes(frame[8 * i : 8 * i + 8], "little") for i in range(1, count + 1)]
    if offsets[0] < 8 * (count + 1) or offsets[-1] > len(frame) or any(a > b for a, b in pairwise(offsets)):
        raise BadFrameError(f"offsets that do not rise from {8 * (count + 1)} to at most {len(frame)}")
    parts = [frame[a:b] for a, b in pairwise(offsets[:least])]
    if parts[0] not in CHANNELS:
        raise BadFrameError("a channel that is none of " + ", ".join(name.decode() for name in CHANNELS))
    read = {name: _json_object(name, part) for name, part in zip(JSON_PARTS, parts[1:], strict=True)}
    for key in ("msg_id", "msg_type"):
        if not isinstance(read["header"].get(key), str):
            raise BadFrameError(f"a header without {key}")


def _json_object(name: str, part: bytes) -> dict:
    try:
        read = json.loads(part)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise BadFrameError(f"a {name} that is no JSON object")
    return read
