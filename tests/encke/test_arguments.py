"""encke/commands/arguments.py: what several commands take."""

from __future__ import annotations

import argparse

import pytest

from encke.commands.arguments import base_url, whole_number


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), ("256", 256)])
def test_whole_number_within_its_bounds_is_taken(text: str, number: int) -> None:
    assert whole_number(1, 256, "is none")(text) == number


@pytest.mark.parametrize(
    "text", ["0", "257", "-1", "+1", "1.0", "1_0", " 1", "²", "١", "", "one", "9" * 5000]
)
def test_any_other_text_is_told_with_what_it_is_not(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        whole_number(1, 256, "is not a number of cups")(text)
    assert str(refused.value) == f"{text!r} is not a number of cups"


@pytest.mark.parametrize(
    ("text", "url"),
    [("10.0.0.1:8091", "http://10.0.0.1:8091"), ("https://push.example.org", "https://push.example.org")],
)
def test_address_of_a_server_needs_no_scheme(text: str, url: str) -> None:
    assert base_url(text) == url
