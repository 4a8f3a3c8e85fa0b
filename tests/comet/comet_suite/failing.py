"""Pushes that fail: for some of their keys, as a whole, in doubt, or because their time has passed."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import (
    DeadlinePassedError,
    OverloadedError,
    RequestError,
    StorageError,
    UnavailableError,
)
from tests.comet.comet_suite.ground import Ground, Open, assert_refused, code_of, failures, stored
from tests.comet.nodes import Core, values
from tests.support.eventually import eventually


class Failing(Ground):
    """Part of the suite."""

    async def test_results_keep_the_order_of_the_keys_when_some_fail(self, opened: Open) -> None:
        async with opened(max_queue_per_key=1) as core:
            await core.subscribe("bob")
            gate = core.way.close_gate("hot")
            held = core.push("hot", 0, expire_s=600)

            reply = await core.push(["cold", "hot", "bob"], 1, expire_s=600)

            assert failures(reply) == [(1, OverloadedError.code)]
            assert [mid > 0 for mid in reply.mids] == [True, False, True]
            assert (reply.online, reply.repeated) == ([0, 0, 1], [])
            gate.set()
            assert (await held).failed == []

    @pytest.mark.parametrize(
        ("error", "code"), [(StorageError("disk full"), "storage"), (ZeroDivisionError("a bug"), "internal")]
    )
    async def test_failed_save_delivers_nothing_and_the_next_one_goes_on(
        self, core: Core, error: Exception, code: str
    ) -> None:
        bob = await core.subscribe("bob")
        core.way.refusals.append(error)

        assert failures(await core.push("bob", "lost", expire_s=600)) == [(0, code)]

        assert (await core.push("bob", "kept", expire_s=600)).failed == []
        assert values([await bob.next_document()]) == ["kept"]

    async def test_push_without_a_key_is_refused(self, core: Core) -> None:
        await assert_refused(core.push([], 1), RequestError)
        assert core.comet.counted("pending_keys") == 0

    @pytest.mark.parametrize(
        "wrong",
        [{"expire_s": -1}, {"expire_s": 2**32}, {"expire_s": 600, "push_id": "é" * 65}],
        ids=["negative", "for ever", "long id"],
    )
    async def test_push_that_no_store_takes_fails_no_other_of_its_key(
        self, core: Core, wrong: dict[str, Any]
    ) -> None:
        gate = core.way.close_gate("bob")
        good = [core.push("bob", 1, expire_s=600), core.push("bob", 2, expire_s=600)]

        await assert_refused(core.push("bob", 3, **wrong), RequestError)

        good.append(core.push("bob", 4, expire_s=600))
        gate.set()
        for push in good:
            assert (await push).failed == []
        assert await stored(core, "bob") == [b"1", b"2", b"4"]

    async def test_more_keys_in_progress_than_the_bound_are_refused_whole(self, opened: Open) -> None:
        async with opened(max_pending_keys=5) as core:
            gate = core.way.close_gate("slow")
            slow = core.push("slow", 0, expire_s=600)

            await assert_refused(core.push([f"k{n}" for n in range(5)], 1), OverloadedError)

            gate.set()
            assert (await slow).failed == []
            # Alone even a larger one may pass.
            assert len((await core.push([f"k{n}" for n in range(6)], 1)).mids) == 6

    async def test_more_bytes_in_progress_than_the_bound_are_refused_whole(self, opened: Open) -> None:
        async with opened(max_pending_bytes=1024 * 1024) as core:
            gate = core.way.close_gate("slow")
            slow = core.push("slow", "x" * 600_000, expire_s=600)

            await assert_refused(core.push("other", "x" * 600_000), OverloadedError)

            assert core.comet.counted("pushes_total", "refused") == 1
            gate.set()
            assert (await slow).failed == []
            assert (await core.push("other", "x" * 600_000)).failed == []

    async def test_full_queue_of_a_key_refuses_and_other_keys_go_on(self, opened: Open) -> None:
        async with opened(max_queue_per_key=3) as core:
            gate = core.way.close_gate("hot")
            pushes = [core.push("hot", n, expire_s=600) for n in range(4)]

            assert failures(await pushes[3]) == [(0, OverloadedError.code)]

            assert (await core.push("cold", 1, expire_s=600)).failed == []
            gate.set()
            for push in pushes[:3]:
                assert (await push).failed == []

    async def test_push_whose_time_passes_in_the_queue_is_never_saved(self, core: Core) -> None:
        gate = core.way.close_gate("bob")
        first = core.push("bob", "first", expire_s=600)
        hasty = core.push("bob", "hasty", expire_s=600, timeout_s=0.0)
        await eventually(lambda: core.comet.counted("pending_keys") == 2)

        gate.set()

        assert (await first).failed == []
        assert failures(await hasty) == [(0, DeadlinePassedError.code)]
        assert await stored(core, "bob") == [b'"first"']

    async def test_lost_answer_is_asked_for_again_and_the_message_is_delivered_once(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        core.way.answers_to_lose = 2
        doubtful = core.push("bob", "doubtful", expire_s=600)
        later = core.push("bob", "later", expire_s=600)

        reply = await doubtful

        assert (reply.failed, reply.repeated, reply.online) == ([], [], [1])
        assert (await later).mids[0] > reply.mids[0]
        assert values(await bob.documents(2)) == ["doubtful", "later"]
        # While the first was in doubt nothing else of the key was saved.
        assert [len(batch.items) for batch in core.way.batches] == [1, 1, 1, 1]
        await bob.beat()

    async def test_lost_answer_of_a_push_without_an_id_is_told_as_doubt(self, core: Core) -> None:
        core.way.answers_to_lose = 1

        reply = await core.push(["bob", "alice"], "doubtful", expire_s=600, has_id=False)

        assert [code for _, code in failures(reply)] == ["in_doubt"]
        assert await stored(core, "bob") == await stored(core, "alice") == [b'"doubtful"']

    async def test_doubt_that_lasts_is_told_and_a_repeat_tells_what_became_of_it(
        self, core: Core, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("comet.pushing.saving.DOUBT_GRACE_S", 0.05)
        bob = await core.subscribe("bob")
        core.way.answers_to_lose = 1000
        push = core.push("bob", "doubtful", expire_s=600, push_id="mine", timeout_s=0.05)

        assert await code_of(push) == "in_doubt"

        core.way.answers_to_lose = 0
        await eventually(lambda: core.comet.counted("busy_keys") == 0)
        again = await core.push("bob", "doubtful", expire_s=600, push_id="mine")
        assert (again.failed, again.repeated) == ([], [0])
        assert (await bob.next_document()).mid == again.mids[0]
        await bob.beat()

    async def test_refusal_for_now_is_repeated_until_the_push_has_no_time_left(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        core.way.refusals.extend([UnavailableError("down")] * 3)

        reply = await core.push("bob", "late", expire_s=600, timeout_s=0.05)

        assert failures(reply) == [(0, UnavailableError.code)]
        await bob.beat()
        assert await stored(core, "bob") == []

    async def test_answer_that_does_not_fit_fails_its_push_and_what_it_hides_comes_first(
        self, core: Core
    ) -> None:
        bob = await core.subscribe("bob")
        core.way.answers_to_cut = 1

        reply = await core.push("bob", "who knows", expire_s=600)

        assert failures(reply) == [(0, "remote_protocol")]
        assert (await core.push("bob", "next", expire_s=600)).failed == []
        assert values(await bob.documents(2)) == ["who knows", "next"]
        assert core.comet.counted("pending_keys") == 0

    async def test_unsaved_message_is_refused_while_what_it_would_hide_cannot_be_read(
        self, opened: Open
    ) -> None:
        async with opened(store_timeout_s=0.2) as core:
            bob = await core.subscribe("bob")
            core.way.answers_to_cut = 1
            await core.push("bob", "who knows", expire_s=600)
            core.way.load_failures["bob"] = UnavailableError("down")

            assert failures(await core.push("bob", "hidden")) == [(0, UnavailableError.code)]

            del core.way.load_failures["bob"]
            assert (await core.push("bob", "next")).failed == []
            assert values(await bob.documents(2)) == ["who knows", "next"]
