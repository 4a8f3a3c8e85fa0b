"""The subscribe command and what follows it, whole and byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.model import Key, Mid
from comet.codec.protocol import RESUME_ACKNOWLEDGED, ClientVersion, Subscribe
from comet.codec.resp import (
    MAX_COMMAND_BYTES,
    MAX_LINE_BYTES,
    Command,
    Fault,
    read_command,
    read_input,
    read_subscribe,
)
from tests.support.subscriber import command

SUBSCRIBE = command("sub", "k1", "30")

MALFORMED = {
    "no arguments": b"*0\r\n",
    "negative count": b"*-1\r\n",
    "too many arguments": b"*8\r\n",
    "count that would fill the memory": b"*999999999\r\n",
    "count without digits": b"*\r\n",
    "count that is no number": b"*x\r\n",
    "count with an underscore": b"*1_0\r\n",
    "negative length": b"*1\r\n$-1\r\n\n",
    "length that would fill the memory": b"*1\r\n$999999999999\r\n",
    "length without its sign": b"*3\r\n3\r\nsub\r\n",
    "length that is no number": b"*3\r\n$x\r\nsub\r\n",
    "length too short": b"*3\r\n$3\r\nsub\r\n$1\r\nk1\r\n$2\r\n30\r\n",
    "length too long": b"*3\r\n$3\r\nsub\r\n$5\r\nk1\r\n$2\r\n30\r\n",
    "bare line feeds": b"*3\n$3\nsub\n$2\nk1\n$2\n30\n",
    "an inline command": b"sub k1 30\r\n",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "a line without end": b"*" + b"0" * MAX_LINE_BYTES,
    "a megabyte without a line end": b"*" * 1024 * 1024,
    "a command over the limit": command("sub", "k" * MAX_COMMAND_BYTES, "30"),
    "long arguments that pass the limit together": command("sub", "k" * 2000, "3" * 2000, "t" * 200),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_command_is_recognised_whole_and_byte_by_byte(data: bytes) -> None:
    assert read_command(data) is Fault.MALFORMED
    ends = [read_command(data[:size]) for size in range(min(len(data), MAX_COMMAND_BYTES + 100) + 1)]
    assert not any(isinstance(end, Command) for end in ends)
    assert ends[-1] is Fault.MALFORMED


@pytest.mark.parametrize(
    "data",
    [SUBSCRIBE, SUBSCRIBE.replace(b"*3", b"*+3").replace(b"$3", b"$+3"), SUBSCRIBE.replace(b"*3", b"*03")],
    ids=["as usual", "with signs", "with leading zeros"],
)
def test_command_is_complete_with_its_last_byte(data: bytes) -> None:
    assert [read_command(data[:size]) for size in range(len(data))] == [None] * len(data)
    assert read_command(data) == Command(["sub", "k1", "30"], len(data))


def test_what_follows_a_command_is_not_part_of_it() -> None:
    assert read_command(SUBSCRIBE + b"hh") == Command(["sub", "k1", "30"], len(SUBSCRIBE))


def test_command_of_the_largest_size_is_read() -> None:
    rest = len(command("sub", "k", "30", ""))
    token = "t" * (MAX_COMMAND_BYTES - rest - 3)
    data = command("sub", "k", "30", token)
    assert len(data) == MAX_COMMAND_BYTES
    assert isinstance(read_command(data), Command)


def test_argument_may_hold_line_ends() -> None:
    assert read_command(command("a\r\nb", "\r\n")) == Command(["a\r\nb", "\r\n"], 22)


def test_command_that_is_not_utf_8_has_no_arguments() -> None:
    data = command("sub", b"\xff", "30")
    assert read_command(data) == Command(None, len(data))
    assert read_subscribe(None) is None


arguments = st.lists(
    st.text(max_size=20) | st.sampled_from(["sub", "\r\n", "a\r\n$3", "30", ""]), min_size=1, max_size=7
)


@given(arguments)
def test_any_split_of_any_command_gives_the_same(given_arguments: list[str]) -> None:
    data = command(*given_arguments)
    for size in range(len(data)):
        assert read_command(data[:size]) is None
    assert read_command(data) == Command(given_arguments, len(data))
    # With something behind it, the general way is taken instead of the short one.
    assert read_command(data + b"h") == Command(given_arguments, len(data))


@given(
    st.binary(max_size=100) | st.text(alphabet="*$0123\r\nsub", max_size=60).map(str.encode),
    st.binary(max_size=9),
)
def test_any_bytes_are_read_without_an_error_and_a_verdict_is_final(data: bytes, more: bytes) -> None:
    verdict = read_command(data)
    if verdict is Fault.MALFORMED:
        assert read_command(data + more) is Fault.MALFORMED
    if isinstance(verdict, Command):
        assert read_command(data + more) == verdict


# -- arguments

WRONG = {
    "another command": ["pub", "k1", "30"],
    "the command in capitals": ["SUB", "k1", "30"],
    "an empty command": ["", "k1", "30"],
    "only the command": ["sub"],
    "no heartbeat": ["sub", "k1"],
    "an empty key": ["sub", "", "30"],
    "a key of 513 bytes": ["sub", "k" * 513, "30"],
    "a key of 513 bytes in 257 characters": ["sub", "k" + "ü" * 256, "30"],
    "a line end in the key": ["sub", "a\rb", "30"],
    "a zero byte in the key": ["sub", "a\0b", "30"],
    "a C1 control in the key": ["sub", "a\x85b", "30"],
    "a short heartbeat": ["sub", "k1", "29"],
    "a negative heartbeat": ["sub", "k1", "-30"],
    "an empty heartbeat": ["sub", "k1", ""],
    "a space in the heartbeat": ["sub", "k1", " 30"],
    "a heartbeat with an underscore": ["sub", "k1", "3_0"],
    "a heartbeat in other digits": ["sub", "k1", "３０"],
    "a heartbeat in words": ["sub", "k1", "thirty"],
    "a heartbeat of 30 digits": ["sub", "k1", "9" * 30],
    "a heartbeat over 63 bits": ["sub", "k1", "9223372036854775808"],
    "a mid without a version": ["sub", "k1", "30", "", "", "0"],
    "a mid with version 1": ["sub", "k1", "30", "tok", "1.0", "x"],
    "a mid that is no number": ["sub", "k1", "30", "", "2", "x"],
    "a negative mid": ["sub", "k1", "30", "", "2", "-1"],
    "a mid over 63 bits": ["sub", "k1", "30", "", "2", "9223372036854775808"],
    "a long device": ["sub", "k1", "30", "", "2", "", "d" * 65],
    "a control character in the device": ["sub", "k1", "30", "", "2", "", "d\n"],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_argument_is_refused(wrong: list[str]) -> None:
    assert read_subscribe(wrong) is None


GOOD = {
    "three arguments": (["sub", "k1", "30"], Subscribe(Key("k1"), 30, "", ClientVersion.OLD, None, "")),
    "a token": (["sub", "k1", "30", "tok"], Subscribe(Key("k1"), 30, "tok", ClientVersion.OLD, None, "")),
    "version 1": (["sub", "k1", "35", "", "1.0"], Subscribe(Key("k1"), 35, "", ClientVersion.ONE, None, "")),
    "version 2": (["sub", "k1", "30", "", "2"], Subscribe(Key("k1"), 30, "", ClientVersion.TWO, None, "")),
    "a later version": (
        ["sub", "k1", "30", "", "10.1"],
        Subscribe(Key("k1"), 30, "", ClientVersion.TWO, None, ""),
    ),
    "resume": (
        ["sub", "k1", "30", "", "2", "80"],
        Subscribe(Key("k1"), 30, "", ClientVersion.TWO, Mid(80), ""),
    ),
    "resume from the beginning": (
        ["sub", "k1", "30", "", "2", "0"],
        Subscribe(Key("k1"), 30, "", ClientVersion.TWO, Mid(0), ""),
    ),
    "no resume, a device": (
        ["sub", "k1", "30", "", "2", "", "phone"],
        Subscribe(Key("k1"), 30, "", ClientVersion.TWO, None, "phone"),
    ),
    "resume from what is acknowledged": (
        ["sub", "k1", "30", "", "2", "ack", "phone"],
        Subscribe(Key("k1"), 30, "", ClientVersion.TWO, RESUME_ACKNOWLEDGED, "phone"),
    ),
    "a heartbeat that is very long": (
        ["sub", "k1", "9223372036854775807"],
        Subscribe(Key("k1"), 3600, "", ClientVersion.OLD, None, ""),
    ),
    "a heartbeat with a sign and zeros": (
        ["sub", "k1", "+0030"],
        Subscribe(Key("k1"), 30, "", ClientVersion.OLD, None, ""),
    ),
    "a key of 512 bytes": (
        ["sub", "ü" * 256, "30"],
        Subscribe(Key("ü" * 256), 30, "", ClientVersion.OLD, None, ""),
    ),
}


@pytest.mark.parametrize(("given_arguments", "expected"), GOOD.values(), ids=GOOD)
def test_good_arguments_become_a_subscription(given_arguments: list[str], expected: Subscribe) -> None:
    assert read_subscribe(given_arguments) == expected


# -- what follows

TWO, ONE = ClientVersion.TWO, ClientVersion.ONE


@pytest.mark.parametrize(
    ("data", "version", "heartbeats", "acknowledged", "rest", "is_broken"),
    [
        (b"", ONE, 0, None, b"", False),
        (b"hhh", ONE, 3, None, b"", False),
        (b"hx", ONE, 1, None, b"", True),
        (b"h\r\n", ONE, 1, None, b"", True),
        (b"x", TWO, 0, None, b"", True),
        (b"a80\r\n", ONE, 0, None, b"", True),
        (b"ha", ONE, 1, None, b"", True),
        (b"a80\r\n", TWO, 0, 80, b"", False),
        (b"ha160\r\nha80\r\nh", TWO, 3, 160, b"", False),
        (b"ha8", TWO, 1, None, b"a8", False),
        (b"a80\r", TWO, 0, None, b"a80\r", False),
        (b"a80\rh", TWO, 0, None, b"", True),
        (b"a\r\n", TWO, 0, None, b"", True),
        (b"a-80\r\n", TWO, 0, None, b"", True),
        (b"a" + b"1" * 20, TWO, 0, None, b"", True),
        (b"hA80\r\n", TWO, 1, None, b"", True),
    ],
)
def test_input_after_the_subscription(
    data: bytes,
    version: ClientVersion,
    heartbeats: int,
    acknowledged: int | None,
    rest: bytes,
    is_broken: bool,
) -> None:
    heard = read_input(data, version)
    assert (heard.heartbeats, heard.acknowledged) == (heartbeats, acknowledged)
    assert (heard.rest, heard.is_broken) == (rest, is_broken)


@given(st.lists(st.sampled_from([b"h", b"hh", b"a80\r\n", b"a0\r\n", b"a1234567890\r\n"]), max_size=12))
def test_input_may_be_split_anywhere(parts: list[bytes]) -> None:
    data = b"".join(parts)
    whole = read_input(data, TWO)
    heartbeats, highest, held = 0, None, b""
    for byte in data:
        heard = read_input(held + bytes([byte]), TWO)
        heartbeats, held = heartbeats + heard.heartbeats, heard.rest
        if heard.acknowledged is not None:
            highest = max(heard.acknowledged, highest or 0)
        assert not heard.is_broken
    assert (whole.heartbeats, whole.acknowledged, whole.rest) == (heartbeats, highest, held)


@given(st.binary(max_size=60), st.sampled_from(list(ClientVersion)))
def test_any_input_is_read_without_an_error(data: bytes, version: ClientVersion) -> None:
    heard = read_input(data, version)
    assert len(heard.rest) <= 21


def test_a_run_of_heartbeats_is_cheap_and_acknowledgements_are_not() -> None:
    assert read_input(b"h" * 6400, ONE).frames == 101
    assert read_input(b"a80\r\n" * 100, TWO).frames == 100
