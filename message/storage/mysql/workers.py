"""The threads of one MySQL server: who does what, and how work gets to them and answers back.

A key always has the same writing thread: its saves and changes keep their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from zlib import crc32

from cluster.errors import ConfigError
from cluster.model import Key
from message.storage.clock import HeardClock
from message.storage.counters import Tally
from message.storage.guarantees import Promise
from message.storage.limits import StoreLimits
from message.storage.mysql.config import MysqlSettings
from message.storage.mysql.connection import DRIVER_ERRORS, Connection, Trouble, explain, trouble
from message.storage.mysql.durability import guarantee, read_settings
from message.storage.mysql.schema import check_version, schema_version
from message.storage.mysql.worker import Done, Work, Worker
from message.storage.outage import Outage, Refusals
from message.storage.servers import ServerUrl

log = logging.getLogger(__name__)


class Workers:
    """Threads that write, that read, and one that removes. Belongs to the event loop that starts them."""

    def __init__(
        self,
        server: ServerUrl,
        settings: MysqlSettings,
        limits: StoreLimits,
        heard: HeardClock,
        deliver: Callable[[Done, Tally], None],
    ) -> None:
        """Start nothing yet.

        Args:
            deliver: told in the loop of each transaction.
        """
        self._server = server
        self._settings = settings
        self._limits = limits
        self._heard = heard
        self._deliver = deliver
        self.promise = Promise(guarantee(server.name, None))
        self.outage = Outage()
        self._refusals = Refusals("the database", server.name)
        # What was asked for in this turn of the loop: one wake-up per thread for all.
        self._turn: dict[Worker, list[Work]] = defaultdict(list)

    async def start(self) -> None:
        """Look at the server, and start the threads; a server that is away is logged."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._check)
        self._writers = [self._worker(f"writer-{n}") for n in range(self._settings.writer_threads)]
        self._readers = [self._worker(f"reader-{n}") for n in range(self._settings.reader_threads)]
        # Of its own, so that what it removes does not delay the saves.
        self._remover = self._worker("remover")

    async def stop(self) -> None:
        """Finish what was put, and end the threads."""
        self._flush()
        await asyncio.to_thread(self._join)

    def write(self, key: Key, work: Work) -> None:
        """Put what changes a key."""
        self._put(self._writers[crc32(key.encode()) % len(self._writers)], work)

    def read(self, key: Key, work: Work) -> None:
        """Put what reads a key; in no order with what changes it."""
        self._put(self._readers[crc32(key.encode()) % len(self._readers)], work)

    def remove(self, work: Work) -> None:
        """Put what changes the store and no key."""
        self._put(self._remover, work)

    def _put(self, worker: Worker, work: Work) -> None:
        if not self._turn:
            self._loop.call_soon(self._flush)
        self._turn[worker].append(work)

    def _flush(self) -> None:
        turn, self._turn = self._turn, defaultdict(list)
        for worker, works in turn.items():
            worker.put(works)

    def _worker(self, name: str) -> Worker:
        return Worker(
            f"{self._server.name} {name}",
            self._reconnect,
            self._settings,
            self._limits,
            self._heard,
            self._report,
            self._on_refusal,
        )

    def _on_refusal(self, error: Exception) -> None:
        """Tell the operator; leave a server that is read-only. In any of the threads."""
        self._refusals.tell(explain(error))
        if trouble(error) is Trouble.READ_ONLY:
            # Every thread connects anew before its next work.
            for worker in (*self._writers, *self._readers, self._remover):
                worker.is_stale = True

    def _report(self, done: Done, tally: Tally) -> None:
        """Hand a transaction's answers to the loop, with one wake-up. In a worker's thread."""
        self._loop.call_soon_threadsafe(self._deliver, done, tally)

    def _check(self) -> None:
        """Look at the server before the threads do. In a thread."""
        try:
            self._connect().close()
        except DRIVER_ERRORS as error:
            self._begin_outage(error)
            log.warning(
                "the database is away at the start, what it promises is not known: server=%s reason=%s",
                self._server.name,
                error,
            )

    def _reconnect(self) -> Connection:
        """As _connect(); the operator is told when it begins to fail, and when it works again."""
        try:
            connection = self._connect()
        except (*DRIVER_ERRORS, ConfigError) as error:
            self._begin_outage(error)
            raise
        if self.outage.end():
            log.info("the database is back: server=%s", self._server.name)
        return connection

    def _begin_outage(self, error: Exception) -> None:
        if self.outage.begin(explain(error)):
            log.error("the database does not answer: server=%s reason=%s", self._server.name, explain(error))

    def _connect(self) -> Connection:
        """A connection to a database with our tables. In a worker's thread."""
        connection = Connection(self._server, self._settings)
        try:
            check_version(schema_version(connection))
            promised = guarantee(self._server.name, read_settings(connection))
        except BaseException:
            connection.close()
            raise
        self.promise.hear(promised)
        return connection

    def _join(self) -> None:
        for worker in (*self._writers, *self._readers, self._remover):
            worker.join()
