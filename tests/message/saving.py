"""What the tests of every server backend do to a store."""

from __future__ import annotations

from cluster.contracts.message import Outcome, SaveBatch, SaveItem
from cluster.errors import EnckeError, UnavailableError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from message.storage.base import MessageStore
from tests.support.eventually import eventually_done

BOB = Key("bob")


async def batch_of(
    store: MessageStore, push_id: str, payload: bytes = b"{}", *, key: Key = BOB, incarnation: str = ""
) -> SaveBatch:
    """A batch of one message, with half a minute to go."""
    deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
    return SaveBatch(key, [SaveItem(push_id, payload, 600)], Mid(0), deadline, incarnation)


async def save_one(store: MessageStore, push_id: str, payload: bytes = b"{}", *, key: Key = BOB) -> Mid:
    """Save a message that must be accepted; its mid."""
    (result,) = (await store.save(await batch_of(store, push_id, payload, key=key))).results
    assert result.outcome is Outcome.SAVED
    return result.mid


async def loaded(store: MessageStore, key: Key = BOB) -> list[bytes]:
    """Payloads of everything that is stored for a key."""
    page = await store.load_after(key, Mid(0), 1_000_000, 1_000_000_000)
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
