"""What the settings of a MySQL or MariaDB server make of an answered push."""

from __future__ import annotations

from collections.abc import Mapping

from message.storage.base import Guarantee
from message.storage.mysql_connection import Connection

_SETTINGS = (
    "innodb_flush_log_at_trx_commit", "sync_binlog", "log_bin", "max_allowed_packet", "read_only", "sql_mode",
)  # fmt: skip

_LEVELS = {
    "1": ("fsync", "an answered push survives a crash of the server's machine", ""),
    "2": (
        "os",
        "an answered push survives a crash of the server's process; a crash of its machine may lose the "
        "last second",
        "set innodb_flush_log_at_trx_commit to 1",
    ),
    "0": (
        "none",
        "a crash of the server's process may lose the last second",
        "ANSWERED PUSHES CAN BE LOST: set innodb_flush_log_at_trx_commit to 1",
    ),
}
_UNKNOWN = ("unknown", "what an answered push survives is not known", "the server was not reached yet")

# A message of the largest default payload, written as SQL.
_ENOUGH_PACKET_BYTES = 4 * 1024 * 1024


def read_settings(connection: Connection) -> dict[str, str]:
    """Ask a server for what decides about durability."""
    (row,) = connection.select("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in _SETTINGS))
    return {name: str(value) for name, value in zip(_SETTINGS, row, strict=True)}


def guarantee(location: str, settings: Mapping[str, str]) -> Guarantee:
    """Say what a server with these settings promises."""
    level = settings.get("innodb_flush_log_at_trx_commit", "")
    # MariaDB's 3 is 1 with an older order of the binary log.
    durability, promise, warning = _LEVELS.get("1" if level == "3" else level, _UNKNOWN)
    warnings = [warning] if warning else []
    if settings.get("log_bin") == "1" and settings.get("sync_binlog") != "1":
        # After a crash, what the binary log does not have is rolled back.
        durability = "os" if durability == "fsync" else durability
        promise = "a crash of the server's machine may lose what its binary log had not synced"
        warnings.append("set sync_binlog to 1")
    if int(settings.get("max_allowed_packet", _ENOUGH_PACKET_BYTES)) < _ENOUGH_PACKET_BYTES:
        warnings.append("large messages are refused: set max_allowed_packet to 16M")
    if settings.get("read_only", "0") not in ("0", "OFF"):
        warnings.append("NOTHING CAN BE STORED: the server is read_only")
    return Guarantee("mysql", location, durability, promise, "; ".join(warnings))
