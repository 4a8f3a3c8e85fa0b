"""The frame codec of the server's side, whole and byte by byte."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comet.codec.frames import (
    MAX_FRAGMENTS,
    Close,
    CloseCode,
    Event,
    FrameDecoder,
    FrameFailure,
    FrameMessage,
    Opcode,
    Ping,
    close_frame,
    data_frame,
    pong_frame,
    text_frame,
    unmask,
)

LIMIT = 4096
MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes, *, is_final: bool = True, reserved: int = 0) -> bytes:
    """A masked frame of a client."""
    head = bytes([is_final << 7 | reserved | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 0x10000:
        head += b"\xfe" + len(payload).to_bytes(2, "big")
    else:
        head += b"\xff" + len(payload).to_bytes(8, "big")
    return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


def decode(*chunks: bytes, limit: int = LIMIT) -> list[Event]:
    decoder = FrameDecoder(limit)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


GOOD = {
    "text": (frame(1, b"h"), [FrameMessage(True, b"h")]),
    "empty text": (frame(1, b""), [FrameMessage(True, b"")]),
    "binary": (frame(2, b"\xff\x00"), [FrameMessage(False, b"\xff\x00")]),
    "text of 126 bytes": (frame(1, b"x" * 126), [FrameMessage(True, b"x" * 126)]),
    "text of the largest size": (frame(1, b"x" * LIMIT), [FrameMessage(True, b"x" * LIMIT)]),
    "text in other alphabets": (frame(1, "ü€😀".encode()), [FrameMessage(True, "ü€😀".encode())]),
    "two at once": (frame(1, b"a") + frame(2, b"b"), [FrameMessage(True, b"a"), FrameMessage(False, b"b")]),
    "fragments": (
        frame(1, b"a", is_final=False) + frame(0, b"", is_final=False) + frame(0, b"b"),
        [FrameMessage(True, b"ab")],
    ),
    "a character in two fragments": (
        frame(1, b"\xe2\x82", is_final=False) + frame(0, b"\xac"),
        [FrameMessage(True, "€".encode())],
    ),
    "a ping between fragments": (
        frame(1, b"a", is_final=False) + frame(9, b"?") + frame(0, b"b"),
        [Ping(b"?"), FrameMessage(True, b"ab")],
    ),
    "pings": (frame(9, b"") + frame(9, b"x" * 125), [Ping(b""), Ping(b"x" * 125)]),
    "a pong that nobody asked for": (frame(10, b"x") + frame(1, b"h"), [FrameMessage(True, b"h")]),
    "close without a code": (frame(8, b""), [Close(None)]),
    "close with a code": (frame(8, b"\x03\xe8bye"), [Close(1000)]),
    "close with a private code": (frame(8, (4999).to_bytes(2, "big")), [Close(4999)]),
    "nothing counts after a close": (frame(8, b"") + b"garbage", [Close(None)]),
}


@pytest.mark.parametrize(("data", "events"), GOOD.values(), ids=GOOD)
def test_good_frames_are_read_whole_and_byte_by_byte(data: bytes, events: list[Event]) -> None:
    assert decode(data) == events
    assert decode(*one_by_one(data)) == events


BROKEN = {
    "not masked": (b"\x81\x01", CloseCode.PROTOCOL_ERROR),
    "reserved bit 1": (frame(1, b"h", reserved=0x40)[:2], CloseCode.PROTOCOL_ERROR),
    "reserved bit 2": (frame(1, b"h", reserved=0x20)[:2], CloseCode.PROTOCOL_ERROR),
    "reserved bit 3": (frame(1, b"h", reserved=0x10)[:2], CloseCode.PROTOCOL_ERROR),
    "reserved opcode": (frame(3, b"h")[:2], CloseCode.PROTOCOL_ERROR),
    "reserved control opcode": (frame(11, b"h")[:2], CloseCode.PROTOCOL_ERROR),
    "long ping": (b"\x89\xfe", CloseCode.PROTOCOL_ERROR),
    "fragmented ping": (b"\x09\x80", CloseCode.PROTOCOL_ERROR),
    "continuation of nothing": (frame(0, b"h")[:2], CloseCode.PROTOCOL_ERROR),
    "a message inside another": (
        frame(1, b"a", is_final=False) + frame(1, b"b")[:2],
        CloseCode.PROTOCOL_ERROR,
    ),
    "length in more bytes than needed": (b"\x81\xfe\x00\x7d", CloseCode.PROTOCOL_ERROR),
    "length in far more bytes than needed": (
        b"\x81\xff" + (4000).to_bytes(8, "big"),
        CloseCode.PROTOCOL_ERROR,
    ),
    "length of 64 bits": (b"\x82\xff" + b"\xff" * 8, CloseCode.PROTOCOL_ERROR),
    "a huge message": (b"\x82\xff" + (2**62).to_bytes(8, "big"), CloseCode.TOO_BIG),
    "a message one byte too long": (b"\x81\xfe" + (LIMIT + 1).to_bytes(2, "big"), CloseCode.TOO_BIG),
    "fragments that are too long together": (
        frame(1, b"x" * LIMIT, is_final=False) + frame(0, b"x")[:2],
        CloseCode.TOO_BIG,
    ),
    "endless empty fragments": (
        frame(1, b"", is_final=False) + frame(0, b"", is_final=False) * MAX_FRAGMENTS,
        CloseCode.TOO_BIG,
    ),
    "close with half a code": (frame(8, b"\x03"), CloseCode.PROTOCOL_ERROR),
    "close with a code that is never sent": (frame(8, (1006).to_bytes(2, "big")), CloseCode.PROTOCOL_ERROR),
    "close with an unknown code": (frame(8, (2999).to_bytes(2, "big")), CloseCode.PROTOCOL_ERROR),
    "close with a code over all": (frame(8, (5000).to_bytes(2, "big")), CloseCode.PROTOCOL_ERROR),
    "close with a reason that is not UTF-8": (frame(8, b"\x03\xe8\xff"), CloseCode.INVALID_TEXT),
    "text that is not UTF-8": (frame(1, b"\xff"), CloseCode.INVALID_TEXT),
    "text that ends inside a character": (frame(1, b"\xe2\x82"), CloseCode.INVALID_TEXT),
    "a surrogate": (frame(1, b"\xed\xa0\x80"), CloseCode.INVALID_TEXT),
    "a fragment that cannot become UTF-8": (frame(1, b"\xc0", is_final=False), CloseCode.INVALID_TEXT),
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN)
def test_violation_fails_at_its_first_byte_however_it_is_split(data: bytes, code: CloseCode) -> None:
    for chunks in ([data], one_by_one(data)):
        *_, failure = decode(*chunks)
        assert isinstance(failure, FrameFailure)
        assert failure.code is code
    assert not any(isinstance(event, FrameFailure) for event in decode(data[:-1]))


def test_text_fails_at_its_first_wrong_byte_inside_a_frame() -> None:
    data = frame(1, b"ok \xf4\x90 and much more")
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(data[: 6 + 4]) == []
    (failure,) = decoder.feed(data[6 + 4 : 6 + 5])
    assert isinstance(failure, FrameFailure)
    assert failure.code is CloseCode.INVALID_TEXT


def test_messages_before_a_violation_count_and_nothing_after_it() -> None:
    decoder = FrameDecoder(LIMIT)
    first, second = decoder.feed(frame(1, b"h") + b"\x81\x01h" + frame(1, b"h"))
    assert first == FrameMessage(True, b"h")
    assert isinstance(second, FrameFailure)
    assert decoder.feed(frame(1, b"h")) == []


@pytest.mark.parametrize(
    ("data", "is_idle"),
    [
        (b"", True),
        (frame(1, b"h"), True),
        (frame(9, b"h"), True),
        (b"\x81", False),
        (frame(1, b"hh")[:-1], False),
        (frame(1, b"h")[:-1], False),
        (frame(1, b"h", is_final=False), False),
        (frame(8, b""), False),
        (b"\x81\x01", False),
    ],
)
def test_decoder_is_idle_between_messages(data: bytes, is_idle: bool) -> None:
    decoder = FrameDecoder(LIMIT)
    decoder.feed(data)
    assert decoder.is_idle is is_idle


frames = st.lists(
    st.one_of(
        st.text(max_size=200).map(lambda text: frame(1, text.encode())),
        st.binary(max_size=200).map(lambda data: frame(2, data)),
        st.binary(max_size=125).map(lambda data: frame(9, data)),
        st.tuples(st.binary(max_size=99), st.binary(max_size=99)).map(
            lambda two: frame(2, two[0], is_final=False) + frame(0, two[1])
        ),
    ),
    max_size=5,
)


@given(frames, st.lists(st.integers(0, 1000), max_size=8))
def test_any_split_of_any_frames_gives_the_same(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    chunks = [data[a:b] for a, b in pairwise(edges)]
    assert decode(*chunks) == decode(data)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_read_without_an_error(data: bytes, cut: int) -> None:
    whole, split = decode(data), decode(data[:cut], data[cut:])
    assert whole == split


@given(st.binary(max_size=70), st.binary(min_size=4, max_size=4))
def test_unmask_is_its_own_inverse_and_xor(data: bytes, mask: bytes) -> None:
    masked = unmask(data, mask)
    assert masked == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert unmask(masked, mask) == data


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (0xFFFF, b"\x81\x7e\xff\xff"),
        (0x10000, b"\x81\x7f" + (0x10000).to_bytes(8, "big")),
    ],
)
def test_text_frame_announces_its_size_in_the_shortest_form(size: int, head: bytes) -> None:
    assert text_frame(b"x" * size) == head + b"x" * size


def test_other_frames() -> None:
    assert data_frame(Opcode.BINARY, b"x") == b"\x82\x01x"
    assert pong_frame(b"abc") == b"\x8a\x03abc"
    assert close_frame(None) == b"\x88\x00"
    assert close_frame(1001, "going away") == b"\x88\x0c\x03\xe9going away"
