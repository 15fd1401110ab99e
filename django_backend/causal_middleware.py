"""Users see what they have written, in the same request and in their next ones, whoever serves them.

::

    MIDDLEWARE = [
        "django_backend.middleware.FailoverMiddleware",
        "django_backend.causal_middleware.CausalMiddleware",
        ...
    ]

``PATRONI_CAUSAL_COOKIE = "patroni_causal"``
    the name of the cookie that carries a user's causal token; None for none
``PATRONI_CAUSAL_HEADER = "Patroni-Causal-Token"``
    the header of responses, and of requests, that does the same for clients of an API; None for none
``PATRONI_CAUSAL_MAX_AGE = 3600``
    seconds that the cookie lives: as long as a replica may lag
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http.response import FileResponse, StreamingHttpResponse
from django.utils.cache import patch_vary_headers

from django_backend.around import in_steps, in_steps_async
from django_backend.carriers import dump, load_all
from django_backend.causal import capture_written, trusted_keys
from django_backend.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from patroni_db.causal import CausalToken

__all__ = ["COOKIE", "HEADER", "MAX_AGE", "CausalMiddleware"]

COOKIE: Final = "patroni_causal"
HEADER: Final = "Patroni-Causal-Token"
MAX_AGE: Final = 3600


class CausalMiddleware:
    """Lets a request read what it, and earlier ones of the same client, have written.

    Put it before all middleware that writes (sessions), and after ``FailoverMiddleware``.

    :param get_response: the rest of the chain
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
        self.cookie: str | None = getattr(settings, "PATRONI_CAUSAL_COOKIE", COOKIE)
        self.header: str | None = getattr(settings, "PATRONI_CAUSAL_HEADER", HEADER)
        self.max_age: int = getattr(settings, "PATRONI_CAUSAL_MAX_AGE", MAX_AGE)

    def __call__(self, request: HttpRequest) -> Any:
        """Return the response to `request`, with a token for what it has written."""
        if self.is_async:
            return self._respond_async(request)
        work = Work(tokens=self._brought(request), is_request=True)
        with work.entered():
            response = self.get_response(request)
            if self._is_carried and work.has_uncaptured:
                capture_written(work)
        return self._finished(request, response, work)

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        work = Work(tokens=self._brought(request), is_request=True)
        with work.entered():
            response: HttpResponseBase = await self.get_response(request)
            if self._is_carried and work.has_uncaptured:
                await sync_to_async(capture_written)(work)
        return self._finished(request, response, work)

    @property
    def _is_carried(self) -> bool:
        return self.cookie is not None or self.header is not None

    def _brought(self, request: HttpRequest) -> Mapping[str, CausalToken]:
        """Return the tokens that a client has brought; what is none is as if it were not there."""
        cookie = None if self.cookie is None else request.COOKIES.get(self.cookie)
        header = None if self.header is None else request.headers.get(self.header)
        return load_all([cookie, header], trusted_keys()) if cookie or header else {}

    def _finished(self, request: HttpRequest, response: HttpResponseBase, work: Work) -> HttpResponseBase:
        if isinstance(response, StreamingHttpResponse):
            _stream(response, work)
        if not self._is_carried or work.tokens == work.brought:
            return response
        text = dump(work.tokens, settings.SECRET_KEY)
        if self.header is not None and text:
            response.headers[self.header] = text
            patch_vary_headers(response, (self.header,))
        if self.cookie is not None:
            self._set_cookie(request, response, text, self.cookie)
        return response

    def _set_cookie(self, request: HttpRequest, response: HttpResponseBase, text: str, name: str) -> None:
        # It belongs to a session, as a user has it, even where the session's own cookie is not used.
        where: dict[str, Any] = {"path": settings.SESSION_COOKIE_PATH, "domain": settings.SESSION_COOKIE_DOMAIN}
        same_site: Any = settings.SESSION_COOKIE_SAMESITE
        if text:
            secure = settings.SESSION_COOKIE_SECURE
            max_age = self.max_age
            response.set_cookie(name, text, max_age=max_age, secure=secure, httponly=True, samesite=same_site, **where)
        elif name in request.COOKIES:
            response.delete_cookie(name, samesite=same_site, **where)
        else:
            return
        patch_vary_headers(response, ("Cookie",))


def _stream(response: StreamingHttpResponse, work: Work) -> None:
    """Have the content made as a part of the request: it is made when the middleware has returned."""
    if isinstance(response, FileResponse) and response.file_to_stream is not None:
        return  # a file's, which the server may send by itself
    enter = work.entered
    content: Any = response.streaming_content
    response.streaming_content = in_steps_async(content, enter) if response.is_async else in_steps(content, enter)
