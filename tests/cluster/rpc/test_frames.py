"""Frames: any split of any frames reads the same; what is too large is refused before it is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import RemoteProtocolError
from cluster.rpc.frames import (
    HEAD,
    LENGTH,
    MAX_TIMEOUT_MS,
    PING,
    REPLY,
    REQUEST,
    REQUEST_HEAD,
    FrameReader,
    frame_head,
    request_head,
    timeout_ms,
)

LIMIT = 1000


def framed(*bodies: bytes) -> bytes:
    return b"".join(LENGTH.pack(len(body)) + body for body in bodies)


def test_request_says_its_call_method_and_time_left() -> None:
    (body,) = FrameReader(LIMIT).feed(request_head(3, 7, 2, 1500) + b"abc")

    assert REQUEST_HEAD.unpack_from(body) == (REQUEST, 7, 2, 1500)
    assert body[REQUEST_HEAD.size :] == b"abc"


def test_reply_says_its_call() -> None:
    (body,) = FrameReader(LIMIT).feed(frame_head(1, REPLY, 2**40) + b"x")

    assert HEAD.unpack_from(body) == (REPLY, 2**40)
    assert body[HEAD.size :] == b"x"


def test_frames_fed_byte_by_byte_are_complete_with_their_last_byte() -> None:
    reader = FrameReader(LIMIT)
    data = framed(b"first", b"second")

    got = [(index, frames) for index in range(len(data)) if (frames := reader.feed(data[index : index + 1]))]

    assert got == [(8, [b"first"]), (len(data) - 1, [b"second"])]


@given(st.lists(st.binary(min_size=0, max_size=300), max_size=8), st.lists(st.integers(1, 400), min_size=1))
def test_any_split_gives_the_same_frames(bodies: list[bytes], sizes: list[int]) -> None:
    data = framed(*bodies)
    reader = FrameReader(LIMIT)
    frames: list[bytes] = []
    start = turn = 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        frames += reader.feed(data[start : start + size])
        start, turn = start + size, turn + 1

    assert frames == [body for body in bodies if body]
    assert reader.buffered_bytes == 0


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_garbage_is_frames_or_an_error_and_never_more_than_the_limit(chunks: list[bytes]) -> None:
    reader = FrameReader(20)
    for chunk in chunks:
        try:
            frames = reader.feed(chunk)
        except RemoteProtocolError:
            return
        assert all(0 < len(frame) <= 20 for frame in frames)
        assert reader.buffered_bytes <= 20 + LENGTH.size


def test_frame_of_exactly_the_limit_is_accepted() -> None:
    assert FrameReader(5).feed(framed(b"12345")) == [b"12345"]


def test_frame_over_the_limit_is_refused_by_its_length_alone() -> None:
    reader = FrameReader(5)

    with pytest.raises(RemoteProtocolError, match="6 bytes is announced"):
        reader.feed(LENGTH.pack(6))


def test_what_is_no_frame_at_all_looks_too_large() -> None:
    with pytest.raises(RemoteProtocolError):
        FrameReader(32 * 1024 * 1024).feed(b"GET / HTTP/1.1\r\n\r\n")


def test_announced_bytes_are_not_kept_before_they_arrive() -> None:
    reader = FrameReader(2**31)

    assert reader.feed(LENGTH.pack(2**30) + b"abc") == []
    assert reader.buffered_bytes == 7


def test_ping_is_no_frame() -> None:
    assert FrameReader(LIMIT).feed(PING + framed(b"a") + PING) == [b"a"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, 0), (-1.0, 0), (0.0001, 1), (1.5, 1501), (1e9, MAX_TIMEOUT_MS)],
)
def test_time_left_is_rounded_up_and_fits_its_field(seconds: float, expected: int) -> None:
    (body,) = FrameReader(LIMIT).feed(request_head(0, 7, 2, timeout_ms(seconds)))

    assert REQUEST_HEAD.unpack_from(body) == (REQUEST, 7, 2, expected)
