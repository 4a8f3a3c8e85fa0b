"""Where the server answers the recorded vectors differently on purpose, and which ones have no meaning here.

Everything that is not in these tables must be answered as recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# What one vector is answered instead.


@dataclass(frozen=True)
class Http:
    """Another HTTP answer."""

    reason: str
    status: int = 200
    body: bytes | None = None
    content_type: str | None = None
    # Message that subscribers of the compatible shapes get; None = as recorded.
    delivered: str | None = None


@dataclass(frozen=True)
class Tcp:
    """Another conversation over TCP."""

    reason: str
    response: bytes
    is_open: bool = False


@dataclass(frozen=True)
class WebSocket:
    """Another conversation over WebSocket."""

    reason: str
    status: int = 101
    # Everything after the head of the answer, a close frame at its end aside.
    frames: bytes = b"\x81\x04+h\r\n"
    is_open: bool = False
    # Of the close frame; None = there is none.
    close_code: int | None = None


@dataclass(frozen=True)
class Pushed:
    """Another outcome of a push."""

    reason: str
    response: bytes = b'{"ret":0}'
    # By the names of the recording; what is left out is as recorded.
    received: dict[str, bytes] = field(default_factory=dict)


NO_PARAMETER = '"ret":65534 for a missing or empty key, which is the caller\'s mistake'
NO_JSON = "what is not JSON is refused with 65534, delivered to nobody and stored nowhere"
CANONICAL = "the oldest shape carries the canonical text, as every other way of reading it"
SAYS_P = "malformed input is answered before the close"
RFC_6455 = "RFC 6455 is kept to"

HTTP = {
    "server1_cb_xss": Http(
        "a callback must be a JavaScript identifier path; anything else would be script injection",
        body=b'{"ret":65534}',
        content_type="application/json;charset=utf-8",
    ),
    "path_dotdot": Http("an unknown path is 404, nothing is redirected", status=404),
    "msg1_m_neg": Http("a negative mid is the caller's mistake", body=b'{"ret":65534}'),
    "push_no_key": Http(NO_PARAMETER, body=b'{"ret":65534}'),
    "push_empty_key": Http(NO_PARAMETER, body=b'{"ret":65534}'),
    "push_empty_key_expire0": Http(NO_PARAMETER, body=b'{"ret":65534}'),
    "mpriv_m_notjson": Http(NO_JSON, body=b'{"ret":65534}', delivered=""),
}

TCP = {
    "tcp_sub_6args": Tcp("a sixth argument is version 2's; others are told so", b"-p\r\n"),
    "tcp_0args": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_hb_1e10": Tcp("a heartbeat above an hour counts as an hour, it does not overflow", b"+h\r\n", True),
    "tcp_len_short": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_len_long": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_lf_only": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_len_nan": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_len_missing_dollar": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_argnum_nan": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_argnum_empty": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_inline": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_http_get": Tcp(SAYS_P, b"-p\r\n"),
    "tcp_CRASH_negative_len": Tcp("a negative length ends one connection, not the node", b"-p\r\n"),
    "tcp_key_with_cr": Tcp("keys hold no control characters", b"-p\r\n"),
    "tcp_key_nul": Tcp("keys hold no control characters", b"-p\r\n"),
    "tcp_pipelined_x": Tcp("what stands in the same segment is read, and ends the connection", b"+h\r\n"),
}

WEBSOCKET = {
    "ws_fragmented_h": WebSocket("a fragment is waited for, as RFC 6455 allows fragments", is_open=True),
    "ws_rsv1": WebSocket(RFC_6455 + ": reserved bits", close_code=1002),
    "ws_large_frame": WebSocket("refused at its header, nothing is buffered", close_code=1009),
    "ws_close_1000": WebSocket(RFC_6455 + ": a close is answered", close_code=1000),
    "ws_close_empty": WebSocket(RFC_6455 + ": a close is answered", close_code=1005),
}

PUSHED = {
    "payload_html_expire600": Pushed(
        CANONICAL,
        received={
            "tcp_old": rb'{"msg":"{\"s\":\"a\\u003cb\\u003e\\u0026c\"}","mid":MID,"gid":0}',
            "ws_old": rb'{"msg":"{\"s\":\"a\\u003cb\\u003e\\u0026c\"}","mid":MID,"gid":0}',
        },
    ),
    "payload_html_expire0": Pushed(
        CANONICAL,
        received={
            "tcp_old": rb'{"msg":"{\"s\":\"a\\u003cb\\u003e\\u0026c\"}","mid":MID,"gid":0}',
            "ws_old": rb'{"msg":"{\"s\":\"a\\u003cb\\u003e\\u0026c\"}","mid":MID,"gid":0}',
        },
    ),
    "payload_u2028_expire600": Pushed(
        CANONICAL,
        received={
            "tcp_old": rb'{"msg":"{\"s\":\"\\u2028\"}","mid":MID,"gid":0}',
            "ws_old": rb'{"msg":"{\"s\":\"\\u2028\"}","mid":MID,"gid":0}',
        },
    ),
    "payload_trailing_nl_expire600": Pushed(
        CANONICAL,
        received={
            "tcp_old": rb'{"msg":"{\"a\":1}","mid":MID,"gid":0}',
            "ws_old": rb'{"msg":"{\"a\":1}","mid":MID,"gid":0}',
        },
    ),
    "payload_trailing_nl_expire0": Pushed(
        CANONICAL,
        received={
            "tcp_old": rb'{"msg":"{\"a\":1}","mid":MID,"gid":0}',
            "ws_old": rb'{"msg":"{\"a\":1}","mid":MID,"gid":0}',
        },
    ),
}
_NOTHING = {"tcp_ver": b"", "tcp_old": b"", "ws_ver": b"", "ws_old": b""}
PUSHED |= {
    name: Pushed(NO_JSON, b'{"ret":65534}', _NOTHING)
    for name in (
        "payload_empty_expire0",
        "payload_ws_only_expire600",
        "payload_ws_only_expire0",
        "payload_nonjson_expire0",
        "payload_trunc_expire600",
        "payload_trunc_expire0",
        "payload_two_expire0",
        "payload_nul_expire600",
        "payload_nul_expire0",
        "payload_single_quote_expire600",
        "payload_single_quote_expire0",
    )
}

PUSHED["mprivate_one_node_dead"] = Pushed(
    "the others take over the keys of a dead node; until then they are named as failed, as recorded, "
    "after web.request_timeout_s in which they are tried again"
)

# Vectors that are more than a request and an answer have tests of their own in test_vectors*.py,
# those of two comet nodes in tests/cluster_e2e/test_vectors.py.
SCENES = {
    "tcp_65th_subscriber",
    "tcp_after_one_left",
    "tcp_client_half_close",
    "order_concurrent",
    "dup_payload_same_second",
    "dup_payload_next_second",
    "leak_offline_keys",
    "auth_bad_token_after_push",
    "ws_auth_bad_token",
    "auth_ok_after_rpc_New",
    "auth_token_reusable",
    "moved_key_push",
    "ws_wrong_node",
    "mprivate_one_node_dead",
}

_OLD_STATUS_PAGE = "the original's status page; /metrics on the status port takes its place"

# Vectors that describe the original's own affairs, and are not replayed.
NOT_REPLAYED = {
    "stat_connection": _OLD_STATUS_PAGE,
    "stat_message": _OLD_STATUS_PAGE,
    "stat_server": _OLD_STATUS_PAGE,
    "stat_foo": _OLD_STATUS_PAGE,
    "stat_none": _OLD_STATUS_PAGE,
    "stat_channel_nokey": _OLD_STATUS_PAGE,
    "comet2_stat": _OLD_STATUS_PAGE,
    "slow_consumer_close": "the limit is in bytes here and nothing stored is lost: test_slow_consumer.py",
    "ws_heartbeat_timeout": "takes 35 s: test_clock.py lets the time pass faster",
}
