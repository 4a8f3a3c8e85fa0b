"""Payloads as gopush-cluster has stored them, and the canonical form in which they are read."""

from __future__ import annotations

OLDER_PAYLOADS = [
    (b' { "n" : [ 1, 2 ] }\r\n', b'{"n":[1,2]}'),
    (b'{"text":"two  spaces"}', b'{"text":"two  spaces"}'),
    (b"\"<a href='/?b&c'>\"", b"\"\\u003ca href='/?b\\u0026c'\\u003e\""),
    ('{"\u2028":"\u2029ä"}'.encode(), '{"\\u2028":"\\u2029ä"}'.encode()),
    (b"1E+400", b"1E+400"),
]
