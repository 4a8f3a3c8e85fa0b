"""Load that records what it does: pushers, and subscribers that resume after every end.

Seeded: the same seed pushes the same payloads to the same keys. What happens
when is the server's and the machine's; the history tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

from tests.support.eventually import eventually
from tests.support.history import (
    OK,
    Ack,
    Close,
    Delete,
    Event,
    Fault,
    Fetch,
    Gap,
    History,
    Live,
    Open,
    Push,
    Sub,
    Time,
    Unknown,
)
from tests.support.history_checks import Rules, check
from tests.support.http import HttpClient, Response
from tests.support.peer import DEADLINE_S
from tests.support.subscriber import (
    HEARTBEAT_LINE,
    Document,
    End,
    Line,
    Subscriber,
    subscribe_tcp,
    subscribe_websocket,
)
from tests.support.system import Server, private_target

# A shared machine can stand still for seconds: what is late because of that is nobody's fault.
WATCH_S = 0.1
STALL_S = 0.5

# What ends a try when the server is killed or stops.
LOST = (ConnectionError, TimeoutError, asyncio.IncompleteReadError, OSError)


class Load:
    """One recorded run against one server."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.history = History(time.monotonic)
        self.random = random.Random(seed)
        # Cleared while the server is down: pushers and readers wait for it.
        self.is_up = asyncio.Event()
        self.is_up.set()
        # What was answered as done and is stored, by key: readers must get it sooner or later.
        self.stored: dict[str, set[str]] = {}
        # What a deletion may have taken, by key: readers need not get it.
        self.deleted: dict[str, set[str]] = {}
        self.ack_count = 0
        # When stored messages could not be told.
        self.failed_fetches: list[float] = []
        self._numbers = itertools.count(1)

    def note(self, event: Event) -> None:
        """Record an event."""
        self.history.add(event)

    async def push(self, client: HttpClient, keys: tuple[str, ...], expire_s: int, size: int = 0) -> bool:
        """Push one message to one or several keys; False when no answer came."""
        uid = self.new_uid()
        payload = json.dumps({"uid": uid, "pad": "x" * size})
        self.note(Push(self.history.now(), uid, keys, expire_s))
        try:
            answer = await push_once(client, keys, expire_s, payload)
        except LOST:
            self.note(Unknown(self.history.now(), uid))
            return False
        assert answer.status == 200, answer
        failed = tuple(answer.json.get("data", {}).get("fk", ()))
        self.take_ack(Ack(self.history.now(), uid, answer.json["ret"], failed), keys, expire_s)
        return True

    def new_uid(self) -> str:
        """For the payload of one more push."""
        return f"m{next(self._numbers)}"

    def take_ack(self, ack: Ack, keys: tuple[str, ...], expire_s: int) -> None:
        """Record the answer to a push to these keys."""
        self.note(ack)
        if ack.ret != OK:
            return
        self.ack_count += 1
        for key in keys:
            if key not in ack.failed_keys and expire_s > 0:
                self.stored.setdefault(key, set()).add(ack.uid)

    async def wait_acks(self, more: int) -> None:
        """Until so many more pushes were answered with success."""
        target = self.ack_count + more
        await eventually(lambda: self.ack_count >= target)

    async def watch_stalls(self) -> None:
        """Record as faults when this process does not get to run; until cancelled."""
        while True:
            before = self.history.now()
            await asyncio.sleep(WATCH_S)
            if self.history.now() - before > STALL_S:
                self.note(Fault(before, self.history.now()))

    async def fetch(self, key: str) -> bool:
        """Read everything that is stored for a key; False when the server cannot tell."""
        asked_at = self.history.now()
        response = await self.server.ask("public", "GET", f"/1/msg/get?k={quote(key)}&m=0")
        if response.json["ret"] != OK:
            self.failed_fetches.append(self.history.now())
            return False
        messages = response.json.get("data", {}).get("msgs", [])
        found = tuple((m["mid"], m["msg"]["uid"]) for m in messages)
        self.note(Fetch(asked_at, self.history.now(), key, 0, found))
        return True

    async def delete(self, key: str) -> None:
        """Delete a key's messages and close its connections."""
        asked_at = self.history.now()
        answer = await self.server.ask("admin", "POST", f"/1/admin/msg/del?key={quote(key)}", b"")
        assert answer.json == {"ret": OK}, answer
        self.note(Delete(asked_at, self.history.now(), key))
        pushed = (event for event in self.history.events if isinstance(event, Push))
        self.deleted.setdefault(key, set()).update(push.uid for push in pushed if key in push.keys)

    async def ask_time(self) -> None:
        """Ask what time it is, as a mid; there is always a server that tells, or told a moment ago."""
        asked_at = self.history.now()
        response = await self.server.ask("public", "GET", "/1/time/get")
        assert response.json["ret"] == OK, response
        self.note(Time(asked_at, self.history.now(), response.json["data"]["timeid"]))

    def assert_sound(self, rules: Rules) -> None:
        """Judge the run."""
        violations = check(self.history, rules)
        shown = "\n".join(f"{v.rule} {v.key}: {v.text}" for v in violations[:20])
        assert not violations, f"{len(violations)} violations:\n{shown}\n{self.server.log[-2000:]}"


async def push_once(
    client: HttpClient, keys: tuple[str, ...], expire_s: int, payload: str, within: float = DEADLINE_S
) -> Response:
    """Push a JSON text to one or several keys by the compatible API."""
    if len(keys) == 1:
        return await client.request(
            "POST", private_target(keys[0], expire_s), payload.encode(), within=within
        )
    body = json.dumps({"m": payload, "k": ",".join(keys)}).encode()
    target = f"/1/admin/push/mprivate?expire={expire_s}"
    return await client.request("POST", target, body, within=within)


class Reader:
    """A version 2 subscriber that resumes from the last mid it has seen, whatever ends its connection."""

    def __init__(self, load: Load, key: str, transport: str, name: str) -> None:
        self._load = load
        self.key = key
        self._transport = transport
        self.name = name
        self._numbers = itertools.count(1)
        self.last_mid = 0
        self.uids: set[str] = set()
        # Messages on all its connections, repeated reads included.
        self.received = 0
        self.gaps: list[Gap] = []
        # How the connections ended.
        self.ends: list[End] = []

    def has_all(self) -> bool:
        """Whether everything that was answered and is stored for its key has arrived."""
        return not self.missing()

    def missing(self) -> set[str]:
        """What was answered and is stored for its key, and has not arrived."""
        load = self._load
        return load.stored.get(self.key, set()) - load.deleted.get(self.key, set()) - self.uids

    async def run(self) -> None:
        """Subscribe again and again until cancelled."""
        while True:
            await self._load.is_up.wait()
            # The server may be gone before the flag says so; each try takes at least a turn.
            with contextlib.suppress(*LOST):
                await self.session()
            await asyncio.sleep(0)

    async def session(self, until: Callable[[], bool] = lambda: False) -> None:
        """One connection, until it ends or `until` holds after a message."""
        name = f"{self.name}.{next(self._numbers)}"
        load = self._load
        load.note(Sub(load.history.now(), name, self.key, self.last_mid))
        address = load.server.addresses[self._transport]
        subscribe: Any = subscribe_tcp if self._transport == "tcp" else subscribe_websocket
        subscriber: Subscriber = await subscribe(address, self.key, version="2", mid=self.last_mid)
        try:
            await self._read(name, subscriber, until)
        finally:
            load.note(Close(load.history.now(), name, self.ends[-1].code if self.ends else 0))
            await subscriber.close()

    async def _read(
        self, name: str, subscriber: Subscriber, until: Callable[[], bool], is_open: bool = False
    ) -> None:
        load = self._load
        if is_open:
            load.note(Open(load.history.now(), name))
        while not until():
            received = await subscriber.receive(within=60.0)
            now = load.history.now()
            match received:
                case Line(text):
                    assert text == HEARTBEAT_LINE, text
                    is_open = True
                    load.note(Open(now, name))
                case Document():
                    assert is_open, "a document before the first heartbeat"
                    self._take(now, name, received)
                case End():
                    self.ends.append(received)
                    return

    def _take(self, now: float, name: str, document: Document) -> None:
        value = document.value
        if "gap" in value:
            gap = Gap(now, name, value["gap"]["after"], value["gap"]["before"])
            self.gaps.append(gap)
            self._load.note(gap)
            return
        self._load.note(Live(now, name, value["mid"], value["msg"]["uid"]))
        self.last_mid = value["mid"]
        self.uids.add(value["msg"]["uid"])
        self.received += 1


class Pusher:
    """Pushes one message after the other on one connection; mixes single and many, small and large."""

    def __init__(self, load: Load, keys: list[str], expires: tuple[int, ...] = (600,)) -> None:
        self._load = load
        self._keys = keys
        self._expires = expires
        self._random = random.Random(load.random.getrandbits(32))
        self._is_stopping = False

    def stop(self) -> None:
        """End after the push that is under way."""
        self._is_stopping = True

    async def run(self) -> None:
        """Push until stopped; a push without an answer is not repeated."""
        client = self._load.server.http("admin")
        try:
            while not self._is_stopping:
                await self._load.is_up.wait()
                count = 3 if self._random.random() < 0.1 else 1
                keys = tuple(self._random.sample(self._keys, min(count, len(self._keys))))
                size = self._random.choice((0, 10, 100, 2000))
                if not await self._load.push(client, keys, self._random.choice(self._expires), size):
                    # Where nothing listens the failure is immediate: let the others run.
                    await asyncio.sleep(0)
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def in_background(*runs: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run these while the block runs; cancel them at its end; one that fails fails the test."""
    tasks = [asyncio.ensure_future(run()) for run in runs]
    try:
        yield
    finally:
        # One that has failed is the cause of what the block may have raised: it is raised in its place.
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def stop_pushers(pushers: list[Pusher], tasks: list[asyncio.Task[None]]) -> None:
    """Let each finish its push."""
    for pusher in pushers:
        pusher.stop()
    await asyncio.gather(*tasks)


async def wait_caught_up(readers: list[Reader], deadline_s: float = 20.0) -> None:
    """Until every reader has what was answered and is stored for its key."""
    try:
        await eventually(lambda: all(reader.has_all() for reader in readers), deadline_s)
    except AssertionError:
        missing = {reader.name: sorted(reader.missing())[:5] for reader in readers if not reader.has_all()}
        raise AssertionError(f"these never arrived: {missing}") from None
