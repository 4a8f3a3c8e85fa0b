"""Backends that push in every way, at one web node after the other, and repeat until it is done.

What they do is recorded. Only a push with an id is repeated. It is one push in
the history, however often it is tried: it ends with the answer that it is done.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from tests.support.history import OK, Ack, Push, Unknown
from tests.support.http import HttpClient, Response
from tests.support.load import LOST, Load, push_once
from tests.support.system import Server

EXPIRE_S = 600

# A web node gives up before.
ANSWER_S = 8.0
RETRY_S = 0.05
# The load that is offered: whether it is served is another matter.
PACE_S = 0.01


@dataclass(frozen=True)
class Kind:
    """A way to push."""

    weight: int
    has_id: bool
    key_count: int
    expire_s: int


KINDS = (
    Kind(4, has_id=True, key_count=1, expire_s=EXPIRE_S),
    Kind(1, has_id=True, key_count=3, expire_s=EXPIRE_S),
    Kind(1, has_id=True, key_count=1, expire_s=0),
    Kind(3, has_id=False, key_count=1, expire_s=EXPIRE_S),
    Kind(1, has_id=False, key_count=3, expire_s=EXPIRE_S),
    Kind(2, has_id=False, key_count=1, expire_s=0),
)


@dataclass(frozen=True)
class FailedTry:
    """A push, or one try of it, that was not answered as done for all its keys."""

    t: float
    uid: str
    # Name of the web node that was asked.
    web: str
    # What it said, or what happened.
    what: str


class Publisher:
    """One backend: one push after the other."""

    def __init__(self, load: Load, webs: Callable[[], list[tuple[str, Server]]], keys: list[str]) -> None:
        """Describe it.

        Args:
            webs: name and process of the web nodes that it knows now.
        """
        self._load = load
        self._webs = webs
        self._keys = keys
        self._random = random.Random(load.random.getrandbits(32))
        self._is_stopping = False
        self._clients: dict[str, HttpClient] = {}
        self._next = self._turns()
        self.failed_tries: list[FailedTry] = []

    def stop(self) -> None:
        """End after the push that is under way: one with an id after it is done."""
        self._is_stopping = True

    async def run(self) -> None:
        """Push until stopped."""
        try:
            while not self._is_stopping:
                await self._push()
                await asyncio.sleep(self._random.uniform(0, 2 * PACE_S))
        finally:
            for client in self._clients.values():
                await client.close()

    async def _push(self) -> None:
        kind = self._random.choices(KINDS, [kind.weight for kind in KINDS])[0]
        keys = tuple(self._random.sample(self._keys, min(kind.key_count, len(self._keys))))
        size = self._random.choice((0, 10, 100, 2000))
        uid = self._load.new_uid()
        payload = {"uid": uid, "pad": "x" * size}
        self._load.note(Push(self._load.history.now(), uid, keys, kind.expire_s))
        if kind.has_id:
            await self._push_until_done(uid, keys, kind.expire_s, payload)
        else:
            await self._push_once(uid, keys, kind.expire_s, payload)

    async def _push_once(self, uid: str, keys: tuple[str, ...], expire_s: int, payload: object) -> None:
        load = self._load
        web, client = next(self._next)
        try:
            answer = await push_once(client, keys, expire_s, json.dumps(payload), ANSWER_S)
        except LOST as error:
            load.note(Unknown(load.history.now(), uid))
            self._note_failed(uid, web, repr(error))
            return
        assert answer.status == 200, answer
        failed = tuple(answer.json.get("data", {}).get("fk", ()))
        if answer.json["ret"] != OK or failed:
            self._note_failed(uid, web, answer.body.decode())
        ack = Ack(load.history.now(), uid, answer.json["ret"], failed)
        load.take_ack(ack, keys, expire_s)

    async def _push_until_done(self, uid: str, keys: tuple[str, ...], expire_s: int, payload: object) -> None:
        load = self._load
        left = list(keys)
        mids: dict[str, int] = {}
        while True:
            web, client = next(self._next)
            body = json.dumps({"keys": left, "msg": payload, "expire": expire_s, "id": f"id-{uid}"})
            try:
                answer = await client.request("POST", "/2/admin/push", body.encode(), within=ANSWER_S)
            except LOST as error:
                what = repr(error)
            else:
                mids.update(_done(answer))
                what = answer.body.decode()
                left = [key for key in left if key not in mids]
                if not left:
                    break
            self._note_failed(uid, web, what)
            await asyncio.sleep(RETRY_S)
        ack = Ack(load.history.now(), uid, OK, mids=tuple(sorted(mids.items())))
        load.take_ack(ack, keys, expire_s)

    def _note_failed(self, uid: str, web: str, what: str) -> None:
        self.failed_tries.append(FailedTry(self._load.history.now(), uid, web, what))

    def _turns(self) -> Iterator[tuple[str, HttpClient]]:
        """The web nodes again and again, those that come and go too."""
        for number in cycle(range(1 << 30)):
            webs = self._webs()
            name, server = webs[number % len(webs)]
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = server.http("admin")
            yield name, client


def _done(answer: Response) -> dict[str, int]:
    """Mids of the keys that a version 2 answer calls done."""
    document: Any = answer.json
    if answer.status != 200:
        assert answer.status in (500, 502, 503, 504), answer
        return {}
    return {result["key"]: result["mid"] for result in document["results"]}
