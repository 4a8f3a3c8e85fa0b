"""What the tests of stores save, and what they find."""

from __future__ import annotations

from cluster.contracts.message import Outcome, SaveBatch, SaveItem, SaveReply, SaveResult
from cluster.errors import EnckeError, UnavailableError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from message.storage.base import MessageStore
from tests.support.eventually import eventually_done

BOB, ALICE = Key("bob"), Key("alice")
PLENTY = 1_000_000


def item(push_id: str, payload: bytes = b"{}", expire_s: int = 600, id_ttl_s: int = 0) -> SaveItem:
    return SaveItem(push_id, payload, expire_s, id_ttl_s)


async def batch_of(
    store: MessageStore, key: Key, push_id: str, payload: bytes = b"{}", *, incarnation: str = ""
) -> SaveBatch:
    """A batch of one message, with half a minute to go."""
    deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
    return SaveBatch(key, [item(push_id, payload)], Mid(0), deadline, incarnation)


async def save_one(store: MessageStore, key: Key, push_id: str, payload: bytes = b"{}") -> SaveReply:
    """Save a message that must be accepted, and is new."""
    reply = await store.save(await batch_of(store, key, push_id, payload))
    assert reply.results[0].outcome is Outcome.SAVED
    return reply


async def save(
    store: MessageStore, key: Key, *items: SaveItem, sent: int = 0, within_s: float = 10
) -> list[SaveResult]:
    """Save a batch that must be accepted; what became of each item."""
    deadline = Mid(await store.clock() + int(within_s * TICKS_PER_SECOND))
    reply = await store.save(SaveBatch(key, list(items), Mid(sent), deadline))
    assert len(reply.results) == len(items)
    return reply.results


async def load_all(store: MessageStore, key: Key, after: int = 0) -> list[bytes]:
    """Payloads of everything that is stored for a key above a mid."""
    page = await store.load_after(key, Mid(after), PLENTY, PLENTY * 1000)
    assert not page.has_more
    assert [m.mid for m in page.messages] == sorted({m.mid for m in page.messages})
    return [message.payload for message in page.messages]


async def until_saved(store: MessageStore, batch: SaveBatch) -> Outcome:
    """Repeat a batch of one until it is answered; what became of it."""
    return (await eventually_done(lambda: store.save(batch), EnckeError)).results[0].outcome


async def save_until_it_fails(store: MessageStore, key: Key) -> tuple[list[bytes], SaveBatch]:
    """Save one message after the other; payloads of those that were answered, and the first that was not."""
    answered: list[bytes] = []
    clock = await store.clock()
    while True:
        payload = b"[%d]" % len(answered)
        deadline = Mid(clock + 60 * TICKS_PER_SECOND)
        batch = SaveBatch(key, [SaveItem(f"{key}-{len(answered)}", payload, 600)], Mid(0), deadline)
        try:
            await store.save(batch)
        except UnavailableError:
            return answered, batch
        answered.append(payload)
