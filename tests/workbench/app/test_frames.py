"""What may come through a page's websocket: every frame of the protocol, and nothing that only looks like one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1, serialize_msg_to_ws_v1

from workbench.app.frames import PARTS, BadFrameError, check_frame

HEADER = {"msg_id": "1", "msg_type": "comm_msg"}


def frame(header=HEADER, parts=({}, {}, {}), buffers=(), channel="shell"):
    return serialize_msg_to_ws_v1(
        [json.dumps(header).encode(), *(json.dumps(p).encode() for p in parts), *buffers], channel
    )


def offset(place, value, of=None):
    changed = bytearray(of or frame())
    changed[8 * place : 8 * place + 8] = value.to_bytes(8, "little")
    return bytes(changed)


@pytest.mark.parametrize("channel", ["shell", "control", "stdin"])
@pytest.mark.parametrize("buffers", [(), (b"",), (b"x" * 1000,) * 50])
def test_frames_of_the_protocol_pass(channel, buffers):
    check_frame(frame(buffers=buffers, channel=channel))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"", "0 bytes"),
        (b"x" * 15, "15 bytes"),
        (offset(0, 2**40), f"{2**40} offsets"),
        (offset(0, 2**63), "offsets"),
        (offset(0, 5), "5 offsets"),
        (frame(buffers=[b""] * PARTS), "offsets"),
        (offset(1, 0), "do not rise"),
        (offset(1, 8 * 7 - 1), "do not rise"),  # the channel would begin in the last of the six offsets
        (offset(2, 0), "do not rise"),
        (offset(6, 10**6), "do not rise"),
        (frame(channel="iopub"), "channel"),
        (frame(channel=""), "channel"),
        (frame(header=[1]), "header that is no JSON object"),
        (frame(header={}), "msg_id"),
        (frame(header={"msg_id": "1", "msg_type": ["execute_request"]}), "msg_type"),
        (frame(parts=({}, {}, "text")), "content that is no JSON object"),
        (serialize_msg_to_ws_v1([b"\xff{}", b"{}", b"{}", b"{}"], "shell"), "header"),
        (serialize_msg_to_ws_v1([b"[" * 10**5, b"{}", b"{}", b"{}"], "shell"), "header"),
    ],
)
def test_other_frames_are_refused_in_a_sentence(bad, told):
    with pytest.raises(BadFrameError, match=told) as refused:
        check_frame(bad)
    assert refused.value.close_code == 1002
    assert len(str(refused.value)) < 120, "a websocket's closing sentence has 123 bytes"


def test_text_is_refused_as_the_wrong_kind_of_data():
    with pytest.raises(BadFrameError) as refused:
        check_frame(json.dumps({"channel": "shell", "header": HEADER}))
    assert refused.value.close_code == 1003


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 2**64 - 1))
def test_what_passes_can_be_taken_apart(noise, at, value):
    """Random bytes over a good frame: it is refused, or the server's own reader gets the parts that were checked."""
    good = frame(buffers=[noise])
    changed = bytearray(good)
    changed[at : at + 8] = value.to_bytes(8, "little")
    try:
        check_frame(bytes(changed))
    except BadFrameError:
        return
    channel, parts = deserialize_msg_from_ws_v1(bytes(changed))
    assert channel in ("shell", "control", "stdin") and len(parts) <= PARTS
    assert isinstance(json.loads(parts[0])["msg_type"], str)
