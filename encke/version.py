"""Which version of Encke this is."""

from __future__ import annotations


def encke_version() -> str:
    """The installed version; "unknown" in a source tree that was not installed."""
    # Imported here: it takes longer than everything else that `encke --help` does.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("encke")
    except PackageNotFoundError:
        return "unknown"
