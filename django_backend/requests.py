"""Requests that can be made once more: their body kept, and everything that was there at the beginning."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["Original"]

# What a request keeps of its own body; a new one reads it anew.
_OF_THE_BODY: Final = frozenset({"_body", "_post", "_files", "_stream", "_read_started", "_post_parse_error"})


class Original:
    """A request as it came in.

    :param request: nothing of whose body has been read yet, or all of it by way of ``request.body``
    """

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._attributes = {name: value for name, value in vars(request).items() if name not in _OF_THE_BODY}
        self._environ: dict[str, Any] = _as_wsgi_has_it(request.environ) if isinstance(request, WSGIRequest) else {}
        self._body = _body_of(request)

    @property
    def can_be_repeated(self) -> bool:
        """Whether there is a way to make the request again: its body is kept in memory."""
        return self._body is not None

    def is_same(self, request: HttpRequest) -> bool:
        """Return whether `request` is the one that came in."""
        return request is self._request

    def again(self) -> HttpRequest:
        """Return a new request, equal to what came in."""
        assert self._body is not None  # noqa: S101 - see can_be_repeated
        made: HttpRequest
        kind: Any = type(self._request)
        if isinstance(self._request, WSGIRequest):
            made = kind({**self._environ, "wsgi.input": io.BytesIO(self._body)})
        else:
            assert isinstance(self._request, ASGIRequest)  # noqa: S101 - see _body_of
            made = kind(self._request.scope, io.BytesIO(self._body))
        for name, value in self._attributes.items():
            # What middleware before this one has set.
            vars(made).setdefault(name, value)
        return made


def _as_wsgi_has_it(environ: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `environ` with the paths as the server gave them: a WSGIRequest has put decoded ones there."""
    paths = {name: environ.get(name, "").encode().decode("iso-8859-1") for name in ("PATH_INFO", "SCRIPT_NAME")}
    return {**environ, **paths}


def _body_of(request: HttpRequest) -> bytes | None:
    """Return the body, and let it be read again by others; None if it is too large, or was read by somebody else."""
    if not isinstance(request, (WSGIRequest, ASGIRequest)):
        return None
    if not hasattr(request, "_body"):
        length = _length_of(request)
        if getattr(request, "_read_started", False) or length > _most():
            return None
        if length == 0:
            return b""
    return request.body


def _length_of(request: WSGIRequest | ASGIRequest) -> int:
    """Return the bytes of the body."""
    stream: Any = request._stream  # noqa: SLF001 - there is no other way to it
    if isinstance(request, ASGIRequest) and stream.seekable():
        # It is here already. Content-Length may be missing, or wrong.
        length: int = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        return length
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0  # as WSGIRequest takes it


def _most() -> int:
    """Return the most bytes of a body that are kept in memory."""
    most: int | None = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return settings.FILE_UPLOAD_MAX_MEMORY_SIZE if most is None else most
