"""A request whose body cannot be read, or is too large, or is none, ends behind the middleware as it does without."""

from __future__ import annotations

import asyncio
import io
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from hypothesis import given
from hypothesis import strategies as st

from django_backend.requests import Original

if TYPE_CHECKING:
    from collections.abc import Callable

FAILOVER = "django_backend.middleware.FailoverMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
FILE = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n%s\r\n--x--\r\n' % (b"y" * 60)


def ignore(request: HttpRequest) -> str:
    return "not read"


def body(request: HttpRequest) -> str:
    return repr(request.body)


def post(request: HttpRequest) -> str:
    return repr(sorted(request.POST.lists()))


def files(request: HttpRequest) -> str:
    uploaded: Any = request.FILES
    return repr([(file.name, file.read()) for file in uploaded.values()])


def some(request: HttpRequest) -> str:
    return repr(request.read(3))


def lines(request: HttpRequest) -> str:
    return repr(list(request))


def file_and_body(request: HttpRequest) -> str:
    return repr((request.read(), request.body))


def form_and_body(request: HttpRequest) -> str:
    return repr((request.POST, request.body))


def body_and_form(request: HttpRequest) -> str:
    return repr((request.body, request.POST, request.FILES))


def handled(request: HttpRequest) -> str:
    try:
        return post(request)
    except UnreadablePostError:
        return "the view knows what to do"


def from_the_server(request: HttpRequest) -> str:
    stream = request.environ["wsgi.input"] if isinstance(request, WSGIRequest) else request._stream
    return repr(stream.read(5))


READERS = [
    ignore,
    body,
    post,
    files,
    some,
    lines,
    file_and_body,
    form_and_body,
    body_and_form,
    handled,
    from_the_server,
]


def view_of(reader: Callable[[HttpRequest], str]) -> Callable[[HttpRequest], HttpResponse]:
    return lambda request: HttpResponse(reader(request))


urlpatterns = [
    *(path(f"{reader.__name__}/", csrf_exempt(view_of(reader))) for reader in READERS),
    path("protected/", view_of(ignore)),
]


class Aborted(io.BytesIO):
    """The connection of a client who goes away when so much has been read."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size) or self.fail()

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(size) or self.fail()

    def fail(self) -> bytes:
        raise OSError("client gone")


@pytest.fixture(autouse=True)
def site(settings: Any) -> Any:
    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["*"]
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 50
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 3
    settings.LOGGING_CONFIG = None
    return settings


def ended(answer: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes, list[str]]:
    """Return how a request ends: its status, its content, and the errors that Django was told of."""
    errors: list[str] = []

    def note(**_kwargs: Any) -> None:
        exc = sys.exc_info()[1]
        errors.append(f"{type(exc).__name__}: {exc}")

    got_request_exception.connect(note)
    try:
        return (*answer(), errors)
    finally:
        got_request_exception.disconnect(note)


def by_wsgi(handler: WSGIHandler, where: str, kind: str, length: str, stream: io.BytesIO) -> tuple[int, bytes]:
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": f"/{where}/",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": length,
        "wsgi.input": stream,
        "wsgi.url_scheme": "http",
    }
    started: list[str] = []
    response = handler(environ, lambda status, _headers, *_: started.append(status))  # type: ignore[arg-type]
    content = b"".join(response)
    response.close()
    return int(started[0].split()[0]), content


def by_asgi(handler: ASGIHandler, where: str, kind: str, length: str, chunks: list[bytes]) -> tuple[int, bytes]:
    headers = [(b"content-type", kind.encode())]
    if length:
        headers.append((b"content-length", length.encode()))
    scope = {"type": "http", "method": "POST", "path": f"/{where}/", "query_string": b"", "headers": headers}
    incoming = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    incoming.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []

    async def ask() -> None:
        async def receive() -> Any:
            return incoming.pop(0) if incoming else await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            sent.append(message)

        await handler(scope, receive, send)

    async_to_sync(ask)()
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


WHERE = ["ignore", "post", "protected"]
ALSO = [reader.__name__ for reader in READERS if reader not in (ignore, post)]
SENT = {
    "a form": (FORM, b"a=1&b=2"),
    "an empty form": (FORM, b""),
    "too many fields": (FORM, b"a=1&b=2&c=3&d=4"),
    "too large a form": (FORM, b"a=" + b"1" * 60),
    "just as large as may be": (FORM, b"a=" + b"1" * 48),
    "a file": (MULTIPART, FILE),
    "a small multipart": (MULTIPART, b"--x--\r\n"),
    "no boundary": ("multipart/form-data", b"hello"),
    "no multipart": (MULTIPART, b"hello"),
    "a cut multipart": (MULTIPART, FILE[:40]),
    "lines": ("text/plain", b"one\ntwo\nthree"),
    "another charset": ("application/x-www-form-urlencoded; charset=utf-16", b"a=1"),
}


@pytest.mark.parametrize("where", [*WHERE, *(pytest.param(where, marks=pytest.mark.thorough) for where in ALSO)])
@pytest.mark.parametrize("sent", SENT)
def test_a_request_ends_as_it_does_without_the_middleware(site: Any, where: str, sent: str) -> None:
    kind, content = SENT[sent]
    found: list[dict[str, Any]] = []
    for middleware in ([CSRF], [FAILOVER, CSRF]):
        site.MIDDLEWARE = middleware
        wsgi, asgi, ends = WSGIHandler(), ASGIHandler(), {}
        for length in (str(len(content)), "", "-1", "many", "3", str(len(content) + 5), "1000000000"):
            whole, cut = io.BytesIO(content), Aborted(content[:5])
            ends[f"WSGI, {length}"] = ended(partial(by_wsgi, wsgi, where, kind, length, whole))
            ends[f"WSGI, {length}, aborted"] = ended(partial(by_wsgi, wsgi, where, kind, length, cut))
            ends[f"ASGI, {length}"] = ended(partial(by_asgi, asgi, where, kind, length, [content[:4], content[4:]]))
        found.append(ends)
    assert found[1] == found[0]


def test_an_upload_that_nobody_reads_may_be_cut_off(site: Any) -> None:
    site.MIDDLEWARE = [FAILOVER]
    assert ended(lambda: by_wsgi(WSGIHandler(), "ignore", FORM, "10", Aborted())) == (200, b"not read", [])


def test_csrf_refuses_an_upload_that_was_cut_off(site: Any) -> None:
    site.MIDDLEWARE = [FAILOVER, CSRF]
    status, _, errors = ended(lambda: by_wsgi(WSGIHandler(), "protected", FORM, "10", Aborted()))
    assert (status, errors) == (403, [])


# -- Running again --------------------------------------------------------------------------------------------------


def request_with(content: bytes, stream: io.BytesIO | None = None) -> WSGIRequest:
    length = str(len(content))
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": length, "CONTENT_TYPE": FORM}
    return WSGIRequest({**environ, "wsgi.input": stream or io.BytesIO(content)})


READS = st.lists(st.tuples(st.sampled_from(["read", "readline"]), st.integers(-1, 12)), max_size=6)


@given(st.text("ab\n", max_size=40).map(str.encode), st.lists(READS, max_size=4))
def test_every_run_reads_the_whole_body_from_its_beginning(content: bytes, runs: list[list[tuple[str, int]]]) -> None:
    request: HttpRequest = request_with(content)
    original = Original(request)
    for reads in runs:
        expected = io.BytesIO(content)
        for how, size in reads:
            stream: Any = request._stream
            assert getattr(stream, how)(size) == getattr(expected, how)(size)
        assert original.can_be_repeated
        request.close()
        request = original.again()
    assert request.body == content


def test_a_body_that_was_read_before_is_read_again() -> None:
    request = request_with(b"a=1")
    assert request.POST["a"] == request.body.decode()[2:]
    original = Original(request)
    assert original.again().body == b"a=1"


def test_a_body_that_is_longer_than_may_be_kept_is_read_once(settings: Any) -> None:
    assert not Original(request_with(b"x" * 51)).can_be_repeated
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 60
    assert Original(request_with(b"x" * 51)).can_be_repeated


def test_a_view_that_reads_from_the_server_itself_runs_again_too() -> None:
    request = request_with(b"hello")
    original = Original(request)
    assert request.environ["wsgi.input"].read(4) == b"hell"
    again = original.again()
    assert isinstance(again, WSGIRequest)
    assert again.environ["wsgi.input"].read(5) == b"hello"
    assert original.again().body == b"hello"


class Endless(io.RawIOBase):
    """A body that comes piece by piece, of a length that nobody knows."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def read(self, _size: int = -1, /) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_a_body_without_a_length_is_kept_as_far_as_may_be() -> None:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    request = ASGIRequest(scope, cast("Any", Endless([b"one", b"two", b"x" * 60])))
    original = Original(request)
    assert request.read(3) == b"one"
    assert original.can_be_repeated
    again = original.again()
    assert again.read(3) + again.read(3) == b"onetwo"
    assert original.can_be_repeated
    assert len(again.read(60)) == 60
    assert not original.can_be_repeated
