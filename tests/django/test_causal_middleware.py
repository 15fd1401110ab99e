"""What goes out to clients and comes back: cookies, headers, streams. Both aliases lead to the primary here."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import OperationalError, connections, transaction
from django.db.transaction import non_atomic_requests
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path
from django.utils.decorators import sync_only_middleware

from django_backend.carriers import dump, load
from django_backend.causal import current_token
from django_backend.causal_middleware import COOKIE, HEADER, CausalMiddleware
from django_backend.errors import StaleReplicaError
from django_backend.router import alias_for_reads
from patroni_db.causal import CausalToken
from tests.django.backends import executed_on
from tests.django.shop.models import Customer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "replica"]),
    pytest.mark.usefixtures("routed"),
]

FOREIGN = CausalToken("1", 1, 1)
runs: list[int] = []


def read(request: HttpRequest) -> HttpResponse:
    Customer.objects.count()
    return HttpResponse(alias_for_reads(Customer))


def write(request: HttpRequest) -> HttpResponse:
    before = alias_for_reads(Customer)
    with transaction.atomic():
        Customer.objects.create(name="x")
    return HttpResponse(f"{before} {alias_for_reads(Customer)}")


async def write_async(request: HttpRequest) -> HttpResponse:
    before = await sync_to_async(alias_for_reads)(Customer)
    await Customer.objects.acreate(name="x")
    return HttpResponse(f"{before} {await sync_to_async(_read)()}")


def _read() -> str:
    """Return the alias that a read was executed on."""
    with executed_on() as aliases:
        Customer.objects.first()
    (alias,) = aliases
    return alias


def stream(request: HttpRequest) -> StreamingHttpResponse:
    Customer.objects.create(name="x")

    def chunks() -> Iterator[str]:
        for _ in range(2):
            yield f"{_read()} "

    return StreamingHttpResponse(chunks())


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    await Customer.objects.acreate(name="x")

    async def chunks() -> AsyncIterator[str]:
        for _ in range(2):
            yield f"{await sync_to_async(_read)()} "

    return StreamingHttpResponse(chunks())


def fail(request: HttpRequest) -> HttpResponse:
    Customer.objects.create(name="x")
    raise LookupError


def send(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"))  # noqa: PTH123 - the response closes it


@non_atomic_requests
def read_stale(request: HttpRequest) -> HttpResponse:
    """Read what the replica has not got yet, in the first run only: its connection was replaced meanwhile."""
    runs.append(1)
    replica: Any = connections["replica"]
    replica.ensure_connection()
    if len(runs) == 1:
        token = replica.capture_token()
        replica._promised = dataclasses.replace(token, lsn=token.lsn + 2**40)
    return HttpResponse(f"{len(runs)} {Customer.objects.count()}")


urlpatterns = [
    path("stale/", read_stale),
    path("read/", read),
    path("write/", write),
    path("write-async/", write_async),
    path("stream/", stream),
    path("stream-async/", stream_async),
    path("fail/", fail),
]


@sync_only_middleware
def off_the_loop(get_response: Any) -> Any:
    def respond(request: HttpRequest) -> Any:
        return get_response(request)

    return respond


@pytest.fixture(autouse=True)
def site(settings: Any) -> Any:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django_backend.causal_middleware.CausalMiddleware"]
    settings.ALLOWED_HOSTS = ["*"]
    return settings


def test_who_only_reads_gets_nothing() -> None:
    response = Client().get("/read/")
    assert response.content == b"replica"
    assert not response.cookies
    assert HEADER not in response.headers
    assert "Vary" not in response.headers


def test_who_writes_reads_it_and_gets_a_token_to_show_next_time(site: Any) -> None:
    client = Client()
    response = client.post("/write/")
    assert response.content == b"replica default"
    cookie = response.cookies[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"], cookie["path"]) == (True, "Lax", 3600, "/")
    assert not cookie["secure"]
    assert response.headers[HEADER] == cookie.value
    assert response.headers["Vary"] == f"{HEADER}, Cookie"
    # It shows it, and there is nothing new to be told.
    response = client.get("/read/")
    assert response.content == b"replica"
    assert not response.cookies
    site.SESSION_COOKIE_SECURE = True
    site.SESSION_COOKIE_SAMESITE = "Strict"
    cookie = Client().post("/write/").cookies[COOKIE]
    assert (cookie["secure"], cookie["samesite"]) == (True, "Strict")


def test_without_a_token_the_log_says_what_the_user_will_notice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(_wrapper: object) -> None:
        raise OperationalError("couldn't get a connection after 1.00 sec")

    monkeypatch.setattr("django_backend.mixin.PatroniMixin.capture_token", gone)
    response = Client().post("/write/")
    assert response.status_code == 200
    assert HEADER not in response.headers
    (message,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert "next requests may not see yet what this one wrote to 'default'" in message
    assert "couldn't get a connection" in message


def test_views_on_an_event_loop(site: Any) -> None:
    async def ask() -> list[Any]:
        client = AsyncClient()
        return [await client.post("/write-async/"), await client.get("/read/"), await client.post("/write/")]

    # Also where other middleware takes views off the loop, on either side of it.
    for middleware in ([], [f"{__name__}.off_the_loop"]):
        site.MIDDLEWARE = [*middleware, "django_backend.causal_middleware.CausalMiddleware", *middleware]
        answers = async_to_sync(ask)()
        assert [answer.content for answer in answers] == [b"replica default", b"replica", b"replica default"]
        assert [COOKIE in answer.cookies for answer in answers] == [True, False, True]


def test_a_stream_is_a_part_of_its_request() -> None:
    response = Client().get("/stream/")
    assert response.getvalue() == b"default default "

    async def ask() -> bytes:
        answer: Any = await AsyncClient().get("/stream-async/")
        return b"".join([chunk async for chunk in answer.streaming_content])

    Customer.objects.all().delete()
    assert async_to_sync(ask)() == b"default default "
    assert alias_for_reads(Customer) == "replica"


def test_a_file_is_left_to_the_server_to_send() -> None:
    sent = CausalMiddleware(send)(RequestFactory().get("/send/"))
    assert sent.file_to_stream is not None
    sent.close()


def test_what_was_written_before_an_error_is_not_missed() -> None:
    response = Client(raise_request_exception=False).get("/fail/")
    assert response.status_code == 500
    assert COOKIE in response.cookies


def test_settings_choose_what_carries_it(site: Any) -> None:
    site.PATRONI_CAUSAL_COOKIE = None
    site.PATRONI_CAUSAL_HEADER = "X-Seen"
    response = Client().post("/write/")
    assert not response.cookies
    assert Client().get("/read/", headers={"X-Seen": response.headers["X-Seen"]}).content == b"replica"
    site.PATRONI_CAUSAL_HEADER = None
    response = Client().post("/write/")
    assert response.content == b"replica default"
    assert HEADER not in response.headers
    site.PATRONI_CAUSAL_COOKIE = "seen"
    site.PATRONI_CAUSAL_MAX_AGE = 5
    response = Client().post("/write/")
    assert response.cookies["seen"]["max-age"] == 5


@pytest.mark.parametrize(
    "forge",
    [
        lambda true: "",
        lambda true: "x" * 5000,
        lambda true: "~~:~ä%ff",
        lambda true: true[:-1],
        lambda true: true.replace(".", ".9", 1),
        lambda true: f"default:{true}~{true}x",
        lambda true: str(CausalToken("7", 99, 2**60)),
        lambda true: CausalToken("7", 99, 2**60).signed("another key"),
    ],
)
def test_what_was_tampered_with_is_ignored(forge: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    true = client.post("/write/").cookies[COOKIE].value
    forged = forge(true)
    client.cookies[COOKIE] = forged
    with caplog.at_level(logging.INFO, "patroni_db.django"):
        response = client.get("/read/", headers={HEADER: forged})
    assert (response.status_code, response.content) == (200, b"replica")
    assert not forged or "ignored" in caplog.text


def test_a_hostile_cookie_and_header_are_one_line_in_the_log(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.SECRET_KEY_FALLBACKS = ["an old key", "an older key"]
    client = Client()
    client.cookies[COOKIE] = "~" * 4000
    with caplog.at_level(logging.INFO, "patroni_db.django"):
        client.get("/read/", headers={HEADER: "~a" * 2000})
    assert len([record for record in caplog.records if "ignored" in record.message]) == 1


def test_the_header_alone_varies_what_caches_keep(site: Any) -> None:
    site.PATRONI_CAUSAL_COOKIE = None
    site.MIDDLEWARE = [
        "django.middleware.cache.UpdateCacheMiddleware",
        *site.MIDDLEWARE,
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    site.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": __name__}}
    first = Client().get("/write/")
    assert first.headers["Vary"] == HEADER
    # It is cached, and not handed to somebody who has written since.
    assert Client().get("/write/").headers[HEADER] == first.headers[HEADER]
    mine = Client().post("/write/").headers[HEADER]
    assert Client().get("/write/", headers={HEADER: mine}).headers[HEADER] not in (mine, first.headers[HEADER])


def test_another_clusters_token_is_forgotten(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    client.cookies[COOKIE] = dump({"default": FOREIGN, "another": FOREIGN}, site.SECRET_KEY)
    with caplog.at_level(logging.INFO, "patroni_db.django"):
        response = client.get("/read/")
    assert (response.status_code, response.content) == (200, b"replica")
    assert "of another cluster" in caplog.text
    assert load(response.cookies[COOKIE].value, [site.SECRET_KEY]) == {"another": FOREIGN}
    client.cookies[COOKIE] = dump({"default": FOREIGN}, site.SECRET_KEY)
    assert client.get("/read/").cookies[COOKIE]["max-age"] == 0


def test_a_key_may_be_changed(site: Any) -> None:
    client = Client()
    client.cookies[COOKIE] = dump({"default": FOREIGN}, "an old key")
    assert not client.get("/read/").cookies
    site.SECRET_KEY_FALLBACKS = ["an old key"]
    assert client.get("/read/").cookies


def test_a_new_connection_is_asked_anew() -> None:
    client = Client()
    client.post("/write/")
    assert client.get("/read/").content == b"replica"
    connections["replica"].connection.pgconn.finish()
    assert client.get("/read/").content == b"replica"


def test_a_read_that_would_be_stale_is_made_again_with_its_request(site: Any) -> None:
    runs.clear()
    with pytest.raises(StaleReplicaError, match="does not show"):
        Client().get("/stale/")
    runs.clear()
    site.MIDDLEWARE = ["django_backend.middleware.FailoverMiddleware", *site.MIDDLEWARE]
    assert Client().get("/stale/").content == b"2 0"


def test_a_transaction_that_was_closed_in_the_middle_is_over() -> None:
    def write_and_close() -> None:
        with transaction.atomic():
            Customer.objects.create(name="x")
            connections["default"].close()
            Customer.objects.count()

    with pytest.raises(OperationalError, match="closed"):
        write_and_close()
    assert current_token() is None  # nor is it an error to ask for one
    assert not Customer.objects.exists()


def test_in_a_tests_transaction_everything_is_read_from_it() -> None:
    with transaction.atomic():
        transaction.get_connection().atomic_blocks[-1]._from_testcase = True  # as TestCase does
        response = Client().post("/write/")
        assert response.content == b"default default"
        assert not response.cookies
        assert current_token() is None


def test_a_text_of_several_clusters() -> None:
    tokens = {"default": FOREIGN, "bill~ing:é": CausalToken("2", 3, 4)}
    text = dump(tokens, "key")
    assert text.isascii()
    assert load(text, ["key"]) == tokens
    assert load(text, ["another"]) == {}
    assert dump({"default": FOREIGN}, "key") == FOREIGN.signed("key")
