"""What a key may be, and values that cross between nodes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.model import MAX_KEY_BYTES, Message, Mid, NodeInfo, NodeKind, NodeName, key_fault


@pytest.mark.parametrize(
    "key",
    [
        "a",
        " a ",
        "bob@example.org/phone?x=1&y=%20",
        "k" * MAX_KEY_BYTES,
        "ключ",
        "é" * (MAX_KEY_BYTES // 2),
        "\U0001f600",
        "no\u00a0break",
        "line\u2028separator",
    ],
)
def test_good_keys(key: str) -> None:
    assert key_fault(key) is None


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("", "empty"),
        ("k" * (MAX_KEY_BYTES + 1), "longer than 512 bytes"),
        ("é" * (MAX_KEY_BYTES // 2) + "k", "longer than 512 bytes"),
        ("a\nb", "control character"),
        ("\x00", "control character"),
        ("\x01helper", "control character"),
        ("del\x7f", "control character"),
        ("é\r", "control character"),
        ("é\x7f", "control character"),
        ("c1\x85", "control character"),
        ("half \ud83d", "not valid UTF-8"),
    ],
)
def test_bad_keys_are_told_what_is_wrong(key: str, fault: str) -> None:
    found = key_fault(key)
    assert found is not None
    assert fault in found


@given(st.text(max_size=600))
def test_a_good_key_is_short_utf_8_without_control_characters(key: str) -> None:
    is_good = (
        bool(key)
        and not any("\ud800" <= c <= "\udfff" for c in key)
        and len(key.encode(errors="surrogatepass")) <= MAX_KEY_BYTES
        and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in key)
    )
    assert (key_fault(key) is None) == is_good


def test_values_are_frozen_and_cross_the_wire_unchanged() -> None:
    message = Message(Mid(80), b"1")
    info = NodeInfo(NodeKind.COMET, NodeName("n"), "i", {"ws": ("h:1", "h:2")}, weight=0, is_draining=True)
    with pytest.raises(AttributeError):
        message.mid = Mid(160)  # type: ignore[misc]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message) == message
    assert msgspec.json.decode(msgspec.json.encode(info), type=NodeInfo) == info
