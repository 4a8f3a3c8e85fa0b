"""What the client takes for the address of a server."""

from __future__ import annotations

import pytest

from encke.client import Publisher, Subscriber
from encke.client.urls import checked_url


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8090", "HTTPS://push.example.org", "http://[::1]:1/encke", "http://müller.example"],
)
def test_http_url_is_taken_without_a_slash_at_its_end(url: str) -> None:
    assert checked_url(url) == checked_url(f"{url}/") == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8090",
        "127.0.0.1:8090",
        "",
        "ftp://x",
        "ws://localhost:6968",
        "http://",
        "http://:8090",
        "http://[::",
        "http://a:http",
        "http://a:0",
        "http://a:65536",
        "http://a..b",
        f"http://{'a' * 64}",
        "http://\udcff",
    ],
)
def test_what_is_no_http_url_is_refused_at_once(url: str) -> None:
    words = "is no address of a server: it needs http://HOST:PORT or https://HOST:PORT"
    with pytest.raises(ValueError, match=words):
        Publisher(url)
    with pytest.raises(ValueError, match=words):
        Subscriber(url, "bob")
