"""The address of a server, as the caller gives it."""

from __future__ import annotations

from urllib.parse import urlsplit


def checked_url(url: str) -> str:
    """The URL without a slash at its end.

    Found out here, because a request says nothing for what may be only a name
    without its http://, or fails as if a server had not answered.

    Raises:
        ValueError: it is no HTTP URL with a host.
    """
    try:
        parts = urlsplit(url)
        # Raise ValueError themselves: a port that is none; an empty or too long part of a host name.
        is_address = parts.port != 0 and bool((parts.hostname or "").encode("idna"))
    except ValueError:
        is_address = False
    if not is_address or parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is no address of a server: it needs http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/")
