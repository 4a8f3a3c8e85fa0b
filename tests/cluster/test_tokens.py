"""Subscriber tokens: the documented vector, and everything that is not one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.model import Key
from cluster.tokens import TokenVerifier, mint

BOB = Key("bob")
EXPIRY = 1_800_000_000
VECTOR = "1800000000.c25a245376846edcebd1d8df8a77ceb0add1c7a9e00ca11f7392e82680619613"
SIGNATURE = VECTOR.partition(".")[2]


def test_vector_of_the_documentation() -> None:
    assert VECTOR in (Path(__file__).parents[2] / "docs/subscriber-protocol.md").read_text()
    assert mint("s3cret", BOB, EXPIRY) == VECTOR
    assert TokenVerifier(["s3cret"]).expiry(BOB, VECTOR, EXPIRY - 1) == EXPIRY


@given(st.text(max_size=40), st.text(min_size=1, max_size=40), st.integers(1, 10**15))
def test_minted_token_is_good_until_it_expires(secret: str, key: str, expires_at: int) -> None:
    if any("\ud800" <= character <= "\udfff" for character in secret + key):
        return
    verifier = TokenVerifier([secret])
    token = mint(secret, Key(key), expires_at)
    assert verifier.expiry(Key(key), token, expires_at - 0.5) == expires_at
    assert verifier.expiry(Key(key), token, expires_at) is None


def test_token_of_another_key_or_secret_is_bad() -> None:
    verifier = TokenVerifier(["s3cret"])
    assert verifier.expiry(Key("Bob"), VECTOR, 0) is None
    assert verifier.expiry(BOB, mint("other", BOB, EXPIRY), 0) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        SIGNATURE,
        f".{SIGNATURE}",
        f"1800000000{SIGNATURE}",
        f"1800000001.{SIGNATURE}",
        f"01800000000.{SIGNATURE}",
        f"+1800000000.{SIGNATURE}",
        f"-1.{SIGNATURE}",
        f"1e9.{SIGNATURE}",
        f"\u0661800000000.{SIGNATURE}",
        f"{'9' * 17}.{SIGNATURE}",
        VECTOR.upper(),
        VECTOR[:-1],
        f"{VECTOR}0",
        f"{VECTOR}\n",
        f" {VECTOR}",
        f"1800000000.{'g' * 64}",
    ],
)
def test_text_of_another_form_is_bad(token: str) -> None:
    assert TokenVerifier(["s3cret"]).expiry(BOB, token, 0) is None


def test_any_of_several_secrets_is_accepted_while_they_are_rotated() -> None:
    verifier = TokenVerifier(["new", "old"])
    assert verifier.expiry(BOB, mint("new", BOB, EXPIRY), 0) == EXPIRY
    assert verifier.expiry(BOB, mint("old", BOB, EXPIRY), 0) == EXPIRY
    assert verifier.expiry(BOB, mint("older", BOB, EXPIRY), 0) is None


def test_tokens_are_required_as_soon_as_there_is_a_secret() -> None:
    assert TokenVerifier(["one"]).is_required
    assert not TokenVerifier([]).is_required
    assert TokenVerifier([]).expiry(BOB, VECTOR, 0) is None
