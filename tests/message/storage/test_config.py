"""Settings of the stores: what must hold between the values, and what a list of servers may be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.errors import ConfigError
from message.storage.embedded.config import EmbeddedSettings
from message.storage.mysql.config import MysqlSettings
from message.storage.redis.config import RedisSettings
from message.storage.servers import MYSQL_SCHEMES, REDIS_SCHEMES, read_server_url, read_server_urls


def test_defaults_are_good() -> None:
    for settings in (EmbeddedSettings(), RedisSettings(), MysqlSettings()):
        assert list(settings.faults()) == []


def test_every_fault_between_the_values_is_named_with_its_place() -> None:
    settings = replace(EmbeddedSettings(), data_dir="", max_group_bytes=2, max_queued_bytes=1)
    assert [place for place, _ in settings.faults()] == ["data_dir", "max_group_bytes"]
    assert list(replace(EmbeddedSettings(), max_group_bytes=2, max_queued_bytes=2).faults()) == []


@pytest.mark.parametrize(
    ("text", "schemes", "name", "weight", "url"),
    [
        ("redis://h:6379/0", REDIS_SCHEMES, "redis://h:6379/0", 1, "redis://h:6379/0"),
        ("redis://:pw@h:1/2?weight=3", REDIS_SCHEMES, "redis://h:1/2", 3, "redis://:pw@h:1/2"),
        ("rediss://u:pw@[::1]:7/0", REDIS_SCHEMES, "rediss://[::1]:7/0", 1, "rediss://u:pw@[::1]:7/0"),
        (
            "unix://:pw@/run/r.sock?db=1",
            REDIS_SCHEMES,
            "unix:///run/r.sock?db=1",
            1,
            "unix://:pw@/run/r.sock?db=1",
        ),
        (
            "mysql://u:pw@h/d?ssl_ca=/ca&weight=1000",
            MYSQL_SCHEMES,
            "mysql://h/d",
            1000,
            "mysql://u:pw@h/d?ssl_ca=%2Fca",
        ),
    ],
)
def test_server_is_told_without_its_secrets_and_asked_without_its_weight(
    text: str, schemes: tuple[str, ...], name: str, weight: int, url: str
) -> None:
    server = read_server_url(text, schemes)
    assert (server.name, server.weight, server.url) == (name, weight, url)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must begin with redis://"),
        ("h:6379", "must begin with redis://"),
        ("mysql://h/d", "must begin with redis://"),
        ("redis://secret@h:port/0", "not a URL"),
        ("redis://secret@h:1/0?weight=0", "from 1 to 1000"),
        ("redis://secret@h:1/0?weight=1001", "from 1 to 1000"),
        ("redis://secret@h:1/0?weight=", "from 1 to 1000"),
        ("redis://secret@h:1/0?weight=-1", "from 1 to 1000"),
    ],
)
def test_bad_server_is_told_without_its_secrets(text: str, fault: str) -> None:
    faults = list(RedisSettings(servers=(text,)).faults())
    assert [place for place, _ in faults] == ["servers"]
    assert fault in faults[0][1]
    assert "secret" not in faults[0][1]


def test_all_faults_of_a_list_are_told_at_once() -> None:
    assert list(RedisSettings(servers=()).faults()) == [("servers", "needs at least one server")]
    texts = ("mysql://a@h/d", "mysql://b@h/d?weight=2", "redis://h", "mysql://h/other")
    assert [text for _, text in MysqlSettings(servers=texts).faults()] == [
        "names mysql://h/d twice",
        "a server's address must begin with mysql:// or mysqls://",
    ]
    with pytest.raises(ConfigError) as refused:
        read_server_urls(texts, MYSQL_SCHEMES)
    assert len(refused.value.faults) == 2
    assert [server.name for server in read_server_urls(texts[3:], MYSQL_SCHEMES)] == ["mysql://h/other"]
