"""What a Redis server's settings make of an answered push."""

from __future__ import annotations

from collections.abc import Mapping

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from cluster.contracts.message import Guarantee

_SETTINGS = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy")

_LEVELS = {
    "away": (
        "unknown",
        "what an answered push survives is not known",
        "the server was not reached yet",
    ),
    "always": ("fsync", "an answered push survives a crash of the server's machine", ""),
    "everysec": (
        "everysec",
        "an answered push survives a crash of the server's process; a crash of its machine may lose the "
        "last two seconds",
        "set appendfsync to always for more",
    ),
    "no": (
        "os",
        "an answered push survives a crash of the server's process; a crash of its machine may lose what "
        "its system had not written, usually half a minute",
        "set appendfsync to always",
    ),
    "not during a rewrite": (
        "os",
        "an answered push survives a crash of the server's process; a crash of its machine may lose what "
        "came since a snapshot or a rewrite of the append-only file began",
        "set no-appendfsync-on-rewrite to no, and appendfsync to always",
    ),
    "off": (
        "none",
        "a crash of the server loses everything since its last snapshot",
        "ANSWERED PUSHES ARE LOST when the server ends: set appendonly to yes and appendfsync to always",
    ),
    "unknown": (
        "unknown",
        "what an answered push survives is not known",
        "its settings could not be read (CONFIG GET is refused)",
    ),
}


async def read_settings(connection: AbstractConnection) -> dict[str, str]:
    """Ask a server for what decides about durability; empty when it does not tell."""
    settings: dict[str, str] = {}
    for name in _SETTINGS:
        await connection.send_command("CONFIG", "GET", name)
        try:
            answer = await connection.read_response()
        except ResponseError:
            # Hosted servers often forbid CONFIG.
            return await _read_info(connection)
        if len(answer) == 2:
            settings[name] = _text(answer[1])
    return settings


async def _read_info(connection: AbstractConnection) -> dict[str, str]:
    """What INFO tells: whether there is an append-only file, not how it is synced."""
    await connection.send_command("INFO")
    try:
        lines = _text(await connection.read_response()).splitlines()
    except ResponseError:
        return {}
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    settings = {
        "maxmemory": told.get("maxmemory"),
        "maxmemory-policy": told.get("maxmemory_policy"),
        "appendonly": {"0": "no", "1": "yes"}.get(told.get("aof_enabled", "")),
    }
    return {name: value for name, value in settings.items() if value is not None}


def guarantee(location: str, settings: Mapping[str, str] | None) -> Guarantee:
    """Say what a server with these settings promises.

    Args:
        settings: None = it was not reached yet; empty = it does not tell.
    """
    if settings is None:
        return Guarantee("redis", location, *_LEVELS["away"])
    if "appendonly" not in settings:
        level = "unknown"
    elif settings["appendonly"] != "yes":
        level = "off"
    else:
        level = settings.get("appendfsync", "unknown")
        # While a child process writes, nothing is synced, whatever appendfsync says.
        if settings.get("no-appendfsync-on-rewrite") == "yes" and level in ("always", "everysec"):
            level = "not during a rewrite"
    durability, promise, warning = _LEVELS.get(level, _LEVELS["unknown"])
    warnings = [warning] if warning else []
    policy = settings.get("maxmemory-policy", "noeviction")
    if settings.get("maxmemory", "0") != "0" and policy != "noeviction":
        warnings.append(
            f"MESSAGES ARE EVICTED when its memory is full: set maxmemory-policy {policy} to noeviction"
        )
    return Guarantee("redis", location, durability, promise, "; ".join(warnings))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
