"""Requests that can be made once more: their body kept, and everything that was there at the beginning."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import LimitedStream, WSGIRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

__all__ = ["Original"]

# What a request keeps of its own body; a new one reads it anew.
_OF_THE_BODY: Final = frozenset({"_body", "_post", "_files", "_stream", "_read_started", "_post_parse_error"})


class Original:
    """A request as it came in.

    Its body is kept while the views read it, never read for its own sake: who does not read it does not meet its
    errors, and who does meets them where he reads.

    :param request: nothing of whose body has been read yet, or all of it by way of ``request.body``
    """

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._attributes = {name: value for name, value in vars(request).items() if name not in _OF_THE_BODY}
        self._environ: dict[str, Any] = _as_wsgi_has_it(request.environ) if isinstance(request, WSGIRequest) else {}
        self._body = _body_of(request)

    @property
    def can_be_repeated(self) -> bool:
        """Whether there is a way to make the request again: what was read of its body is kept in memory."""
        return self._body is not None and not self._body.is_too_long

    def is_same(self, request: HttpRequest) -> bool:
        """Return whether `request` is the one that came in."""
        return request is self._request

    def again(self) -> HttpRequest:
        """Return a new request, equal to what came in."""
        assert self._body is not None  # noqa: S101 - see can_be_repeated
        made: HttpRequest
        kind: Any = type(self._request)
        if isinstance(self._request, WSGIRequest):
            made = kind({**self._environ, "wsgi.input": _Stream(self._body)})
        else:
            assert isinstance(self._request, ASGIRequest)  # noqa: S101 - see _body_of
            made = kind(self._request.scope, _Stream(self._body))
        for name, value in self._attributes.items():
            # What middleware before this one has set.
            vars(made).setdefault(name, value)
        return made


class _Body:
    """The body of a request, kept as far as somebody has read it.

    :param source: where the rest comes from
    :param most: the most bytes that are kept
    """

    def __init__(self, source: Any, most: int) -> None:
        self._source = source
        self._most = most
        self._kept = bytearray()
        self.is_too_long = False
        """Whether more was read than is kept: then it can be read only once."""

    def read(self, at: int, size: int) -> bytes:
        """Return up to `size` bytes from `at` on, all if it is negative."""
        kept = self._kept[at : at + size] if size >= 0 else self._kept[at:]
        return bytes(kept) + self._more(self._source.read, size - len(kept) if size >= 0 else -1)

    def readline(self, at: int, size: int) -> bytes:
        """Return the line that begins at `at`, up to `size` bytes of it unless that is negative."""
        end = self._kept.find(b"\n", at) + 1 or len(self._kept)
        kept = bytes(self._kept[at : min(end, at + size) if size >= 0 else end])
        if kept.endswith(b"\n"):
            return kept
        return kept + self._more(self._source.readline, size - len(kept) if size >= 0 else -1)

    def _more(self, read: Callable[[int], bytes], size: int) -> bytes:
        """Return what the source has, and keep it."""
        if size == 0:
            return b""
        more = read(size)
        if self.is_too_long or len(self._kept) + len(more) > self._most:
            self.is_too_long = True
            self._kept.clear()
        else:
            self._kept += more
        return more


class _Stream(io.IOBase):
    """One run's way to read a body, from its beginning.

    Closing it does not close where it comes from: that belongs to the server.
    """

    def __init__(self, body: _Body) -> None:
        self._body = body
        self._at = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, all without it."""
        data = self._body.read(self._at, -1 if size is None else size)
        self._at += len(data)
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line, up to `size` bytes of it."""
        line = self._body.readline(self._at, -1 if size is None else size)
        self._at += len(line)
        return line


def _as_wsgi_has_it(environ: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `environ` with the paths as the server gave them: a WSGIRequest has put decoded ones there."""
    paths = {name: environ.get(name, "").encode().decode("iso-8859-1") for name in ("PATH_INFO", "SCRIPT_NAME")}
    return {**environ, **paths}


def _body_of(request: HttpRequest) -> _Body | None:
    """Return the body, and have the request read it from there; None if it is too large, or was read already."""
    if not isinstance(request, (WSGIRequest, ASGIRequest)):
        return None
    if hasattr(request, "_body"):
        return _Body(io.BytesIO(request.body), len(request.body))
    if getattr(request, "_read_started", False):
        return None
    return _body_by_wsgi(request, _most()) if isinstance(request, WSGIRequest) else _body_by_asgi(request, _most())


def _body_by_wsgi(request: WSGIRequest, most: int) -> _Body | None:
    length = _length_of(request)
    if length > most:
        return None
    body = _Body(request.environ["wsgi.input"], most)
    if length or "HTTP_TRANSFER_ENCODING" in request.environ:
        # Some views read from there themselves.
        stream: Any = _Stream(body)
        request.environ["wsgi.input"] = stream
        stream = LimitedStream(stream, length)  # as WSGIRequest does
        request._stream = stream  # noqa: SLF001 - there is no other way to it
    return body


def _body_by_asgi(request: ASGIRequest, most: int) -> _Body | None:
    stream: Any = request._stream  # noqa: SLF001 - there is no other way to it
    if not stream.seekable():
        body = _Body(stream, most)
        stream = _Stream(body)
        request._stream = stream  # noqa: SLF001
        return body
    # It is here already. Content-Length may be missing, or wrong.
    length: int = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if length > most:
        return None
    body = _Body(io.BytesIO(stream.read()), most)
    stream.seek(0)
    return body


def _length_of(request: WSGIRequest) -> int:
    """Return the bytes of the body, as WSGIRequest takes them."""
    try:
        return max(0, int(request.META.get("CONTENT_LENGTH") or 0))
    except ValueError:
        return 0


def _most() -> int:
    """Return the most bytes of a body that are kept in memory."""
    most: int | None = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return settings.FILE_UPLOAD_MAX_MEMORY_SIZE if most is None else most
