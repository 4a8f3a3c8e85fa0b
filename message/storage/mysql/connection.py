"""One connection to a MySQL or MariaDB server, used by one thread. PyMySQL is imported only here.

What a failure means is decided by when it came: see Trouble.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlsplit

import pymysql
from pymysql.constants import CLIENT, ER

from cluster.errors import ConfigError
from message.storage.mysql.config import MysqlSettings
from message.storage.servers import ServerUrl

# The server's wall clock in microseconds, read when the statement gets there, not when it was
# sent. Not UNIX_TIMESTAMP(): MariaDB's ends in 2038. The session's time zone is UTC.
NOW_US = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6))"
NOW_S = "TIMESTAMPDIFF(SECOND, '1970-01-01', SYSDATE())"

# What connecting and every statement may raise; trouble() and explain() say what it means.
DRIVER_ERRORS = (pymysql.err.Error, OSError)

# A query's frame around its text.
PACKET_RESERVE_BYTES = 64 * 1024

Row = Sequence[Any]


class Trouble(Enum):
    """What an error of the driver means."""

    # Roll back and try the same again at once.
    DEADLOCK = "deadlock"
    # The connection cannot be used any more.
    LOST = "lost"
    # The server said no; the connection is good.
    REFUSED = "refused"
    # It said no because it is read-only: another server may be the primary by now.
    READ_ONLY = "read-only"


_DEADLOCKS = {ER.LOCK_DEADLOCK}
# Too many connections, shutting down, killed, gone, lost.
_LOST = {1040, 1053, 1927, 2002, 2003, 2006, 2013, 2055}
# Runs with an option that forbids it (--read-only), is read-only.
_READ_ONLY = {1290, 1836}
# To the database, to one of its tables, to something of the server.
_DENIED = {ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.SPECIFIC_ACCESS_DENIED_ERROR}


class Connection:
    """A connection with the session settings that the store relies on."""

    def __init__(self, server: ServerUrl, settings: MysqlSettings) -> None:
        """Connect. Blocks for at most connect_timeout_s.

        Raises:
            DRIVER_ERRORS: it does not work.
            ConfigError: the address is wrong, or does not do for this server's login.
        """
        try:
            self._driver = pymysql.connect(
                **connect_options(server),
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=settings.connect_timeout_s,
                read_timeout=settings.timeout_s,
                write_timeout=settings.timeout_s,
                client_flag=CLIENT.MULTI_STATEMENTS,
            )
        except RuntimeError as error:
            # The driver lacks the library that would encrypt the password by itself.
            fault = f"{server.name}: its login must be encrypted: use mysqls:// or a unix_socket"
            raise ConfigError([fault]) from error
        try:
            ((packet,),) = self.run(_session(settings))[-1]
        except BaseException:
            self.close()
            raise
        # Longest text of one call.
        self.max_text_bytes = int(packet) - PACKET_RESERVE_BYTES

    def select(self, statement: str) -> Sequence[Row]:
        """The rows of one statement."""
        return self.run([statement])[0]

    def execute(self, statement: str) -> int:
        """Run one statement; how many rows it changed."""
        with self._driver.cursor() as cursor:
            return int(cursor.execute(statement))

    def run(self, statements: Iterable[str]) -> list[Sequence[Row]]:
        """Run statements in one round trip; the rows of each, none for those that have none.

        The first one that fails ends it; those before it are done.
        """
        results: list[Sequence[Row]] = []
        with self._driver.cursor() as cursor:
            cursor.execute(";".join(statements))
            results.append(cursor.fetchall())
            while cursor.nextset():
                results.append(cursor.fetchall())
        return results

    def close(self) -> None:
        """Hang up; does not wait for the server."""
        # Not close(): that would send a farewell to a server that may not read.
        self._driver._force_close()  # type: ignore[attr-defined]


def literal(value: bytes | str) -> str:
    """A text or bytes as SQL writes them, whatever they hold."""
    return f"x'{(value.encode() if isinstance(value, str) else value).hex()}'"


def literals(values: Iterable[bytes | str]) -> str:
    """Several, separated by commas."""
    return ",".join(map(literal, values))


def trouble(error: Exception) -> Trouble:
    """What an error means for the transaction and the connection."""
    code = error.args[0] if error.args else 0
    if code in _DEADLOCKS:
        return Trouble.DEADLOCK
    if isinstance(error, OSError | pymysql.err.InterfaceError) or code in _LOST:
        return Trouble.LOST
    if code in _READ_ONLY:
        return Trouble.READ_ONLY
    return Trouble.REFUSED


def is_denied(error: Exception) -> bool:
    """Whether our user lacks a privilege."""
    return bool(error.args) and error.args[0] in _DENIED


def explain(error: Exception) -> str:
    """The server's words, without its number."""
    return str(error.args[1]) if len(error.args) > 1 else str(error) or type(error).__name__


def connect_options(server: ServerUrl) -> dict[str, Any]:
    """PyMySQL's arguments for a URL: mysql://USER:PASSWORD@HOST:PORT/DATABASE?unix_socket=...&ssl_ca=...

    Raises:
        ConfigError: what it names does not exist.
    """
    parts = urlsplit(server.url)
    query = dict(parse_qsl(parts.query))
    database = unquote(parts.path.strip("/"))
    faults = [
        f"{server.name}: unknown option {name}" for name in sorted(query.keys() - {"unix_socket", "ssl_ca"})
    ]
    if not database:
        faults.append(f"{server.name}: names no database")
    if faults:
        raise ConfigError(faults)
    options: dict[str, Any] = {
        "host": parts.hostname or "127.0.0.1",
        "port": parts.port or 3306,
        "user": unquote(parts.username or "root"),
        # Bytes: the driver would write a text as latin-1, and servers take passwords as UTF-8.
        "password": unquote_to_bytes(parts.password or ""),
        "database": database,
    }
    if socket := query.get("unix_socket"):
        options["unix_socket"] = socket
    if parts.scheme == "mysqls":
        try:
            options["ssl"] = ssl.create_default_context(cafile=query.get("ssl_ca"))
        except OSError as error:
            raise ConfigError([f"{server.name}: ssl_ca: {error}"]) from error
    else:
        # The driver would load all certificates of the system for each connection, 35 ms.
        options["ssl_disabled"] = True
    return options


def _session(settings: MysqlSettings) -> list[str]:
    # A wait for a lock ends before the driver gives up.
    lock_s = max(1, int(settings.timeout_s / 2))
    return [
        # Locks rows, not the gaps between them: saves of keys that do not exist yet do not wait
        # for each other.
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
        f" innodb_lock_wait_timeout = {lock_s}",
        "SELECT @@max_allowed_packet",
    ]
