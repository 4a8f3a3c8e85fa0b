"""Handshake: versions old and new, the shared secret, and peers that are none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import EnckeError, RemoteProtocolError, UnavailableError
from cluster.rpc.handshake import (
    MAGIC,
    VERSION,
    Challenge,
    ClientHandshake,
    Hello,
    Proof,
    Ready,
    ServerHandshake,
    Versions,
)

OURS = Versions.up_to(VERSION)
A, B = b"a" * 32, b"b" * 32


def client(secret: str = "", versions: Versions = OURS, service: str = "comet") -> ClientHandshake:
    return ClientHandshake(service, versions, secret, A)


def server(secret: str = "", versions: Versions = OURS, accepted: Sequence[str] = ()) -> ServerHandshake:
    return ServerHandshake("comet", versions, secret, B, accepted)


def shake(one: ClientHandshake, other: ServerHandshake) -> list[bytes]:
    """Carry messages to and fro until nobody answers; everything that was said."""
    said = [one.begin()]
    while True:
        said.append(other.receive(said[-1]))
        answer = one.receive(said[-1])
        if answer is None:
            return said
        said.append(answer)


@pytest.mark.parametrize("secret", ["", "s3cret"])
def test_both_sides_agree_on_a_version(secret: str) -> None:
    one, other = client(secret), server(secret)

    shake(one, other)

    assert one.version == other.version == VERSION
    assert other.refusal is None


@pytest.mark.parametrize(
    ("newest_here", "newest_there", "agreed"),
    [(1, 1, 1), (1, 2, 1), (2, 1, 1), (2, 2, 2), (2, 3, 2), (3, 2, 2)],
)
def test_neighbouring_versions_agree_on_the_older(newest_here: int, newest_there: int, agreed: int) -> None:
    one, other = client(versions=Versions.up_to(newest_here)), server(versions=Versions.up_to(newest_there))

    shake(one, other)

    assert one.version == other.version == agreed


@pytest.mark.parametrize(("newest_here", "newest_there"), [(1, 3), (3, 1), (5, 9)])
def test_versions_that_lie_two_apart_are_refused_in_words(newest_here: int, newest_there: int) -> None:
    one, other = client(versions=Versions.up_to(newest_here)), server(versions=Versions.up_to(newest_there))

    with pytest.raises(UnavailableError, match="protocol versions"):
        shake(one, other)
    assert other.refusal
    assert other.version is None


def test_secret_itself_is_never_said() -> None:
    said = b"".join(shake(client("a-long-secret"), server("a-long-secret")))

    assert b"a-long-secret" not in said


def test_wrong_secret_is_refused() -> None:
    other = server("right")

    with pytest.raises(UnavailableError, match="wrong shared secret"):
        shake(client("wrong"), other)
    assert other.version is None


@pytest.mark.parametrize("secret", ["new", "old", "older"])
def test_each_accepted_secret_lets_in_who_proves_it(secret: str) -> None:
    one, other = client(secret), server("new", accepted=("old", "older"))
    shake(one, other)
    assert one.version == other.version == OURS.newest


# Of a node before, and after each of the rounds in which a cluster changes its secret.
ROUNDS = [("old", ()), ("old", ("new",)), ("new", ("old",)), ("new", ())]


@pytest.mark.parametrize("rounds", [(before, after) for before, after in pairwise(ROUNDS)])
def test_nodes_before_and_after_each_round_of_a_change_of_the_secret_call_each_other(
    rounds: tuple[tuple[str, tuple[str, ...]], ...],
) -> None:
    for caller, _ in rounds:
        for secret, accepted in rounds:
            shake(client(caller), server(secret, accepted=accepted))


@pytest.mark.parametrize("secret", ["newer", "ne", "newold"])
def test_no_other_secret_is_accepted(secret: str) -> None:
    with pytest.raises(UnavailableError, match="wrong shared secret"):
        shake(client(secret), server("new", accepted=("old",)))


def test_client_without_the_secret_does_not_go_on() -> None:
    with pytest.raises(RemoteProtocolError, match="the peer, not this node, has a shared secret"):
        shake(client(""), server("s3cret"))


def test_client_with_a_secret_does_not_talk_to_a_server_without() -> None:
    with pytest.raises(RemoteProtocolError, match="this node, not the peer, has a shared secret"):
        shake(client("s3cret"), server(""))


def test_empty_proof_is_refused_where_a_secret_is_asked() -> None:
    other = server("s3cret")
    other.receive(client().begin())

    other.receive(msgspec.msgpack.encode(Proof(b"")))

    assert other.refusal == "wrong shared secret"


def test_server_that_cannot_prove_the_secret_is_refused() -> None:
    one = client("s3cret")
    one.receive(server("s3cret").receive(one.begin()))

    with pytest.raises(RemoteProtocolError, match="does not know the shared secret"):
        one.receive(msgspec.msgpack.encode(Ready(b"")))


def test_own_proof_sent_back_is_refused() -> None:
    one = client("s3cret")
    proof = one.receive(server("s3cret").receive(one.begin()))
    assert proof is not None

    with pytest.raises(RemoteProtocolError, match="does not know the shared secret"):
        one.receive(msgspec.msgpack.encode(Ready(msgspec.msgpack.decode(proof)[1])))


def test_recorded_proof_is_worth_nothing_under_another_nonce() -> None:
    hello, _, proof, _ = shake(client("s3cret"), server("s3cret"))
    other = ServerHandshake("comet", OURS, "s3cret", b"c" * 32)
    other.receive(hello)

    other.receive(proof)

    assert other.refusal == "wrong shared secret"


def test_version_cannot_be_talked_down_by_who_stands_between() -> None:
    one = client("s3cret", Versions(1, 2))
    other = server("s3cret", Versions(1, 2))
    lowered = msgspec.msgpack.encode(Hello(MAGIC, 1, 1, "comet", A))
    proof = one.receive(other.receive(lowered))
    assert proof is not None

    other.receive(proof)

    assert other.refusal == "wrong shared secret"


def test_another_service_is_refused_in_words() -> None:
    with pytest.raises(UnavailableError, match="this is a comet node, not 'message'"):
        shake(client(service="message"), server())


@pytest.mark.parametrize(
    "body",
    [
        msgspec.msgpack.encode(Hello("other", 1, 1, "comet", A)),
        msgspec.msgpack.encode(Hello(MAGIC, 1, 1, "comet", b"short")),
        msgspec.msgpack.encode(Proof(b"")),
        msgspec.msgpack.encode([1, MAGIC]),
        msgspec.msgpack.encode({"magic": MAGIC}),
        b"\x91" * 3000,
        b"\xff",
    ],
)
def test_who_is_no_client_gets_no_answer(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        server().receive(body)


@pytest.mark.parametrize(
    "body",
    [
        msgspec.msgpack.encode(Challenge(VERSION, b"short", False)),
        msgspec.msgpack.encode(Challenge(VERSION + 7, B, False)),
        msgspec.msgpack.encode(Ready(b"")),
        b"HTTP",
    ],
)
def test_who_is_no_server_is_left(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        client().receive(body)


def test_messages_out_of_order_are_refused() -> None:
    one, other = client(), server()
    shake(one, other)

    with pytest.raises(RemoteProtocolError, match="out of order"):
        one.receive(msgspec.msgpack.encode(Challenge(VERSION, B, False)))
    with pytest.raises(RemoteProtocolError, match="out of order"):
        other.receive(one.begin())


def test_newer_peer_may_say_more_in_each_message() -> None:
    other = server()
    longer = [*msgspec.msgpack.decode(client().begin()), "a later field"]

    other.receive(msgspec.msgpack.encode(longer))

    assert other.refusal is None


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_answer_or_a_clear_error(body: bytes) -> None:
    for side in (client(), server("s")):
        try:
            side.receive(body)
        except EnckeError:
            continue
