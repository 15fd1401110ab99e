"""The middlewares that carry causal tokens, around applications that observe some; no database."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync

from patroni_db.causal import CausalToken
from patroni_db.causal_context import observe, observed
from patroni_db.causal_text import dump
from sqlalchemy_dialect import CausalASGIMiddleware, CausalWSGIMiddleware
from sqlalchemy_dialect.carriers import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY = "a secret that all processes share"
TOKEN = CausalToken("7", 1, 5)


class Site:
    """An application that has written `token`, and answers with `headers` what it knew before."""

    def __init__(self, token: CausalToken | None = None, headers: Iterable[tuple[str, str]] = (), **more: Any) -> None:
        self.token = token
        self.headers = list(headers)
        self.more = more
        self.knew: CausalToken | None = None

    def work(self) -> None:
        self.knew = observed(self.more.get("cluster", "default"))
        if self.token is not None:
            observe(self.token, self.more.get("cluster", "default"))

    def by_wsgi(self, given: str | None) -> list[tuple[str, str]]:
        def application(_environ: Any, start_response: Any) -> list[bytes]:
            self.work()
            start_response("200 OK", self.headers)
            return [b"done"]

        answered: list[tuple[str, str]] = []
        environ = {} if given is None else {"HTTP_PATRONI_CAUSAL_TOKEN": given}
        CausalWSGIMiddleware(application, KEY, **self.more)(
            environ,
            lambda _status, headers, *_: answered.extend(headers),  # type: ignore[arg-type]
        )
        return answered

    def by_asgi(self, given: str | None) -> list[tuple[str, str]]:
        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            self.work()
            headers = [(name.lower().encode(), value.encode()) for name, value in self.headers]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

        answered: list[tuple[str, str]] = []

        async def send(message: Any) -> None:
            answered.extend((name.decode(), value.decode()) for name, value in message["headers"])

        headers = [] if given is None else [(HEADER.lower().encode(), given.encode("latin-1"))]
        site: Any = CausalASGIMiddleware(application, KEY, **self.more)
        async_to_sync(site)({"type": "http", "headers": headers}, None, send)
        return answered

    def answer(self, way: str, given: str | None = None) -> dict[str, str]:
        headers = self.by_wsgi(given) if way == "WSGI" else self.by_asgi(given)
        assert len({name.lower() for name, _ in headers}) == len(headers)
        return {name.lower(): value for name, value in headers}


pytestmark = pytest.mark.parametrize("way", ["WSGI", "ASGI"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], HEADER),
        ([("Vary", "Cookie")], f"Cookie, {HEADER}"),
        ([("Vary", "Cookie"), ("vary", "Accept, Origin")], f"Cookie, Accept, Origin, {HEADER}"),
        ([("Vary", "")], HEADER),
        ([("Vary", "*")], "*"),
        ([("Vary", f"Accept, {HEADER.upper()}")], f"Accept, {HEADER.upper()}"),
    ],
)
def test_caches_keep_apart_what_carries_a_token(way: str, before: list[tuple[str, str]], after: str) -> None:
    headers = Site(TOKEN, before).answer(way)
    assert headers["vary"] == after
    assert headers[HEADER.lower()] == dump({"default": TOKEN}, KEY)


def test_a_response_without_a_token_is_left_as_it_is(way: str) -> None:
    assert Site(None, [("Content-Type", "text/plain")]).answer(way) == {"content-type": "text/plain"}


def test_a_token_comes_back(way: str) -> None:
    site = Site()
    headers = site.answer(way, dump({"default": TOKEN}, KEY))
    assert site.knew == TOKEN
    assert headers[HEADER.lower()] == dump({"default": TOKEN}, KEY)


def test_a_token_is_for_the_cluster_it_was_signed_for(way: str) -> None:
    billing = Site(TOKEN, cluster="billing")
    given = billing.answer(way)[HEADER.lower()]
    assert billing.answer(way, given)
    assert billing.knew == TOKEN
    other = Site()
    other.answer(way, given)
    other.answer(way, given.removeprefix("billing:"))
    assert other.knew is None


def test_a_hostile_header_is_one_line_in_the_log(way: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert Site().answer(way, "~" * 4000) == {}
    assert len([record for record in caplog.records if record.name.startswith("patroni_db")]) == 1
