"""How two nodes agree before the first call: what protocol, what service, do both know the secret.

::

    client                                   server
    Hello(magic, versions, service, nonce) →
                                           ← Challenge(version, nonce, is_secret_asked) | Refused
    Proof(HMAC)                            →
                                           ← Ready(HMAC) | Refused

The secret never crosses the wire. Each side proves it over both nonces and
everything that was said before, so a recorded handshake is worth nothing and
the version cannot be talked down. It guards who may call, not what is said
afterwards: use a private network.

Without I/O: bodies of frames go in and come out, nonces are handed in.
Every message ends in optional fields only, so that a newer peer can add some.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from cluster.errors import RemoteProtocolError, UnavailableError

MAGIC = "encke-rpc"

# The protocol version of this code. It changes when frames or the meaning of a
# method change; new methods and new trailing fields carry their own version.
VERSION = 1

M = TypeVar("M")

# Frames before the end of the handshake: the peer is not known yet.
MAX_HANDSHAKE_BYTES = 4096
NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Versions:
    """Protocol versions that a node speaks: its own and the one before.

    So a cluster can be upgraded node by node.
    """

    oldest: int
    newest: int

    @classmethod
    def up_to(cls, newest: int) -> Versions:
        """What a node of this version speaks."""
        return cls(max(1, newest - 1), newest)

    def common(self, other: Versions) -> int | None:
        """The newest version that both speak."""
        version = min(self.newest, other.newest)
        return version if version >= max(self.oldest, other.oldest) else None


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    magic: str
    oldest: int
    newest: int
    service: str
    nonce: bytes


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag=2):
    version: int
    nonce: bytes
    is_secret_asked: bool


class Proof(msgspec.Struct, frozen=True, array_like=True, tag=3):
    # Empty when no secret is asked.
    proof: bytes


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=4):
    proof: bytes


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=5):
    text: str


class ClientHandshake:
    """The calling side."""

    def __init__(self, service: str, versions: Versions, secret: str, nonce: bytes) -> None:
        """Prepare one handshake.

        Args:
            secret: empty = none is known.
            nonce: NONCE_BYTES random bytes, for this handshake alone.
        """
        self._versions = versions
        self._secret = secret.encode()
        self._decoder = msgspec.msgpack.Decoder(Challenge | Ready | Refused)
        self._hello = msgspec.msgpack.encode(Hello(MAGIC, versions.oldest, versions.newest, service, nonce))
        # Agreed with the server, which has not proved itself yet.
        self._offered = 0
        self._transcript = b""
        # The agreed protocol version, once both sides are satisfied.
        self.version: int | None = None

    def begin(self) -> bytes:
        """What the client says first."""
        return self._hello

    def receive(self, body: bytes) -> bytes | None:
        """Take the server's next message; return what to answer, if anything.

        Raises:
            UnavailableError: the server refuses this client.
            RemoteProtocolError: it broke the protocol, or does not know the secret.
        """
        message = _decode(self._decoder, body)
        if isinstance(message, Refused):
            raise UnavailableError(f"refused by the peer: {message.text}")
        if isinstance(message, Challenge) and not self._transcript:
            return self._answer(message, body)
        if isinstance(message, Ready) and self._transcript:
            expected = _prove(self._secret, b"server", self._transcript)
            if not hmac.compare_digest(message.proof, expected):
                raise RemoteProtocolError("the peer does not know the shared secret")
            self.version = self._offered
            return None
        raise RemoteProtocolError("handshake out of order")

    def _answer(self, challenge: Challenge, body: bytes) -> bytes:
        if len(challenge.nonce) != NONCE_BYTES:
            raise RemoteProtocolError("nonce of a wrong size")
        if not self._versions.oldest <= challenge.version <= self._versions.newest:
            raise RemoteProtocolError(f"the peer chose protocol version {challenge.version}")
        if challenge.is_secret_asked != bool(self._secret):
            side = "the peer, not this node," if challenge.is_secret_asked else "this node, not the peer,"
            raise RemoteProtocolError(f"{side} has a shared secret")
        self._offered = challenge.version
        self._transcript = self._hello + body
        return msgspec.msgpack.encode(Proof(_prove(self._secret, b"client", self._transcript)))


class ServerHandshake:
    """The serving side."""

    def __init__(
        self, service: str, versions: Versions, secret: str, nonce: bytes, accepted: Sequence[str] = ()
    ) -> None:
        """Prepare one handshake; see ClientHandshake.

        Args:
            accepted: secrets as good as `secret`, when there is one: to the client this side proves the one
                that the client has proved.
        """
        self._service = service
        self._versions = versions
        self._secrets = [one.encode() for one in (secret, *accepted)]
        self._nonce = nonce
        self._decoder = msgspec.msgpack.Decoder(Hello | Proof)
        self._offered = 0
        self._transcript = b""
        # The agreed protocol version, once the client has been let in.
        self.version: int | None = None
        # Why the client was refused: its connection is closed after the answer.
        self.refusal: str | None = None

    def receive(self, body: bytes) -> bytes:
        """Take the client's next message; return what to answer.

        Raises:
            RemoteProtocolError: this is no client of ours; it gets no answer.
        """
        message = _decode(self._decoder, body)
        if isinstance(message, Hello) and not self._transcript:
            return self._challenge(message, body)
        if isinstance(message, Proof) and self._transcript:
            # All are tried, so that the time tells nothing.
            known = [s for s in self._secrets if self._is_proved(s, message.proof)]
            if not known:
                return self._refuse("wrong shared secret")
            self.version = self._offered
            return msgspec.msgpack.encode(Ready(_prove(known[0], b"server", self._transcript)))
        raise RemoteProtocolError("handshake out of order")

    def _is_proved(self, secret: bytes, proof: bytes) -> bool:
        return hmac.compare_digest(proof, _prove(secret, b"client", self._transcript))

    def _challenge(self, hello: Hello, body: bytes) -> bytes:
        if hello.magic != MAGIC or len(hello.nonce) != NONCE_BYTES:
            raise RemoteProtocolError("not a node of this project")
        if hello.service != self._service:
            return self._refuse(f"this is a {self._service} node, not {hello.service[:32]!r}")
        version = self._versions.common(Versions(hello.oldest, hello.newest))
        if version is None:
            own = self._versions
            return self._refuse(
                f"protocol versions {own.oldest} to {own.newest} here, {hello.oldest} to {hello.newest} there"
            )
        answer = msgspec.msgpack.encode(Challenge(version, self._nonce, bool(self._secrets[0])))
        self._offered = version
        self._transcript = body + answer
        return answer

    def _refuse(self, why: str) -> bytes:
        self.refusal = why
        return msgspec.msgpack.encode(Refused(why))


def _decode(decoder: msgspec.msgpack.Decoder[M], body: bytes) -> M:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RemoteProtocolError("not a message of the handshake") from error


def _prove(secret: bytes, side: bytes, transcript: bytes) -> bytes:
    """Who says it is part of it, so that a proof cannot be sent back as the other side's."""
    return hmac.digest(secret, side + transcript, hashlib.sha256) if secret else b""
