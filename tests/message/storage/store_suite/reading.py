"""Pages, and what a look tells."""

from __future__ import annotations

import pytest

from cluster.model import Mid
from message.storage.base import MessageStore
from tests.message.storage.saving import BOB, PLENTY, item, save
from tests.message.storage.store_suite.ground import Ground, Harness, text


class Reading(Ground):
    """Part of the suite."""

    # -- pages

    async def test_pages_are_cut_by_messages(self, store: MessageStore) -> None:
        results = await save(store, BOB, *(item(str(n), b"[%d]" % n) for n in range(5)))

        page = await store.load_after(BOB, Mid(0), 2, PLENTY)
        rest = await store.load_after(BOB, page.messages[-1].mid, 3, PLENTY)

        assert [m.mid for m in page.messages] == [r.mid for r in results[:2]]
        assert page.has_more
        assert [m.mid for m in rest.messages] == [r.mid for r in results[2:]]
        assert not rest.has_more

    async def test_pages_are_cut_by_bytes_but_never_empty(self, store: MessageStore) -> None:
        await save(store, BOB, *(item(str(n), text("x" * 98)) for n in range(5)))

        two = await store.load_after(BOB, Mid(0), PLENTY, 250)
        one = await store.load_after(BOB, Mid(0), PLENTY, 1)
        all_of_them = await store.load_after(BOB, Mid(0), PLENTY, 500)

        assert (len(two.messages), two.has_more) == (2, True)
        assert (len(one.messages), one.has_more) == (1, True)
        assert (len(all_of_them.messages), all_of_them.has_more) == (5, False)

    # -- what is no message

    @pytest.mark.parametrize("most", [(1, PLENTY), (PLENTY, 1), (3, PLENTY), (PLENTY, PLENTY)])
    async def test_pages_go_on_behind_what_is_no_message(
        self, opened: Harness, most: tuple[int, int], caplog: pytest.LogCaptureFixture
    ) -> None:
        store = await opened.open()
        saved = await save(store, BOB, *(item(str(n), b"[%d]" % n) for n in range(8)))
        damaged = [0, 1, 2, 4, 7]
        for number in damaged:
            opened.damage(BOB, saved[number].mid)

        found: list[bytes] = []
        has_more, after = True, Mid(0)
        while has_more:
            page = await store.load_after(BOB, after, *most)
            assert page.messages or not page.has_more
            found += [message.payload for message in page.messages]
            has_more = page.has_more
            after = page.messages[-1].mid if page.messages else after

        assert found == [b"[3]", b"[5]", b"[6]"]
        # A page may be read up to one that the next begins with.
        assert opened.left_out() >= len(damaged)
        assert "key=bob" in caplog.text

    async def test_message_behind_one_that_is_none_has_it_as_its_predecessor(self, opened: Harness) -> None:
        store = await opened.open()
        first, second = await save(store, BOB, item("1", b"[1]"), item("2", b"[2]"))
        opened.damage(BOB, second.mid)

        (third,) = await save(store, BOB, item("3", b"[3]"))
        page = await store.load_after(BOB, first.mid, PLENTY, PLENTY)

        assert third.prev == second.mid
        assert [message.mid for message in page.messages] == [third.mid]
        assert page.trimmed == 0

    # -- looking

    async def test_inspect_counts_what_is_stored(self, store: MessageStore) -> None:
        first, _, third = await save(store, BOB, item("1", b"123"), item("2", b"1234"), item("3", b"1"))
        await store.acknowledge(BOB, "phone", first.mid)

        stored = await store.inspect(BOB)

        assert (stored.messages, stored.payload_bytes) == (3, 8)
        assert (stored.first, stored.last) == (first.mid, third.mid)
        assert stored.acknowledged == {"phone": first.mid}

    async def test_inspect_of_an_unknown_key_is_empty(self, store: MessageStore) -> None:
        stored = await store.inspect(BOB)

        assert (stored.messages, stored.payload_bytes, stored.first, stored.last) == (0, 0, 0, 0)
        assert stored.acknowledged == {}

    async def test_store_says_what_it_promises(self, store: MessageStore) -> None:
        guarantees = store.describe()

        assert guarantees
        for guarantee in guarantees:
            assert guarantee.backend
            assert guarantee.location
            assert guarantee.durability
            assert guarantee.promise
