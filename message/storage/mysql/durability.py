"""What the settings of a MySQL or MariaDB server make of an answered push."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.contracts.message import Guarantee
from message.storage.mysql.connection import DRIVER_ERRORS, Connection, Trouble, trouble

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
_AWAY = ("unknown", "what an answered push survives is not known", "the server was not reached yet")
_UNKNOWN = (
    "unknown",
    "what an answered push survives is not known",
    "its settings could not be read (SHOW VARIABLES)",
)

# Without one of them what does not fit is cut and stored. Every session of ours asks for it.
_STRICT = {"STRICT_ALL_TABLES", "STRICT_TRANS_TABLES"}

# A message of the largest default payload, written as SQL.
_ENOUGH_PACKET_BYTES = 4 * 1024 * 1024


def read_settings(connection: Connection) -> dict[str, str]:
    """Ask a server for what decides about durability; empty when it does not tell.

    Raises:
        DRIVER_ERRORS: the connection is lost.
    """
    names = ", ".join(f"'{name}'" for name in _SETTINGS)
    try:
        # Names that a server does not know are left out, where SELECT @@name would fail. Those of the
        # session where it has its own: a proxy may not have passed on our sql_mode.
        rows = connection.select(f"SHOW SESSION VARIABLES WHERE Variable_name IN ({names})")
    except DRIVER_ERRORS as error:
        if trouble(error) is Trouble.LOST:
            raise
        # Servers behind a proxy may forbid it.
        return {}
    return {str(name).lower(): str(value) for name, value in rows}


def guarantee(location: str, settings: Mapping[str, str] | None) -> Guarantee:
    """Say what a server with these settings promises.

    Args:
        settings: None = it was not reached yet; empty = it does not tell.
    """
    if settings is None:
        return Guarantee("mysql", location, *_AWAY)
    level = settings.get("innodb_flush_log_at_trx_commit", "")
    # MariaDB's 3 is 1 with an older order of the binary log.
    durability, promise, warning = _LEVELS.get("1" if level == "3" else level, _UNKNOWN)
    warnings = [warning] if warning else []
    if settings.get("log_bin") == "ON" and settings.get("sync_binlog") != "1":
        # After a crash, what the binary log does not have is rolled back.
        durability = "os" if durability == "fsync" else durability
        promise = "a crash of the server's machine may lose what its binary log had not synced"
        warnings.append("set sync_binlog to 1")
    if int(settings.get("max_allowed_packet", _ENOUGH_PACKET_BYTES)) < _ENOUGH_PACKET_BYTES:
        warnings.append("large messages are refused: set max_allowed_packet to 16M")
    if settings.get("read_only", "OFF") != "OFF":
        warnings.append("NOTHING CAN BE STORED: the server is read_only")
    if "sql_mode" in settings and not _STRICT.intersection(settings["sql_mode"].split(",")):
        warnings.append(
            "MESSAGES MAY BE CUT: the server did not take our sql_mode, set it to STRICT_ALL_TABLES there"
        )
    return Guarantee("mysql", location, durability, promise, "; ".join(warnings))
