"""web/serving/access.py: web origins and the admin token."""

from __future__ import annotations

import pytest

from web.serving.access import Access, Verdict


def admin(*origins: str, token: str = "") -> Access:
    return Access(origins, token, refuses_foreign=True, methods="GET, POST, DELETE")


def test_foreign_origins_are_refused_by_the_admin_rules_only() -> None:
    public = Access((), "", refuses_foreign=False, methods="GET")
    assert public.check("http://page.example", None, None) is Verdict.ALLOWED
    assert admin().check("http://page.example", None, None) is Verdict.FOREIGN_ORIGIN
    assert admin().check("null", None, None) is Verdict.FOREIGN_ORIGIN
    assert admin().check(None, None, None) is Verdict.ALLOWED


def test_listed_origins_are_allowed_and_told_so() -> None:
    access = admin("http://page.example")
    assert access.check("http://page.example", None, None) is Verdict.ALLOWED
    assert access.check("http://page.example.evil", None, None) is Verdict.FOREIGN_ORIGIN
    assert access.cors_headers("http://page.example")["Access-Control-Allow-Origin"] == "http://page.example"
    assert access.cors_headers("http://other.example") == {}
    assert access.cors_headers(None) == {}


def test_star_allows_every_origin() -> None:
    assert admin("*").check("http://any.example", None, None) is Verdict.ALLOWED
    assert (
        admin("*").preflight_headers("http://any.example")["Access-Control-Allow-Methods"]
        == "GET, POST, DELETE"
    )


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        ("Bearer s3cret", Verdict.ALLOWED),
        ("bearer  s3cret ", Verdict.ALLOWED),
        (None, Verdict.BAD_TOKEN),
        ("", Verdict.BAD_TOKEN),
        ("Bearer", Verdict.BAD_TOKEN),
        ("Bearer wrong", Verdict.BAD_TOKEN),
        ("Basic s3cret", Verdict.BAD_TOKEN),
        ("Bearer \udcff", Verdict.BAD_TOKEN),
        ("s3cret", Verdict.BAD_TOKEN),
    ],
)
def test_token_is_wanted_as_a_bearer_token(header: str | None, verdict: Verdict) -> None:
    assert admin(token="s3cret").check(None, header, None) is verdict


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        ("127.0.0.1:8091", Verdict.ALLOWED),
        ("[::1]:8091", Verdict.ALLOWED),
        ("localhost", Verdict.ALLOWED),
        ("encke.localhost:8091", Verdict.ALLOWED),
        # Nobody else can own a name without a dot.
        ("encke:8091", Verdict.ALLOWED),
        ("", Verdict.ALLOWED),
        (None, Verdict.ALLOWED),
        ("evil.example", Verdict.FOREIGN_NAME),
        ("evil.example:8091", Verdict.FOREIGN_NAME),
        ("127.0.0.1.evil.example.:8091", Verdict.FOREIGN_NAME),
        ("EVIL.EXAMPLE", Verdict.FOREIGN_NAME),
    ],
)
def test_name_that_a_page_could_have_pointed_at_us_is_refused_where_asked(
    host: str | None, verdict: Verdict
) -> None:
    access = Access((), "", refuses_foreign=True, methods="GET", refuses_names=True)
    assert access.check(None, None, host) is verdict
    assert admin(token="s3cret").check(None, "Bearer s3cret", host) is Verdict.ALLOWED
