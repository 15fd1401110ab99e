"""Requests that survive a failover: run again when nothing of their first run is left, or no harm is done by it.

::

    MIDDLEWARE = ["django_backend.middleware.FailoverMiddleware", ...]

It is the first one. All the others run again too, with a new request: sessions, messages, users and tokens begin anew.

``PATRONI_EXACTLY_ONCE = True``
    gives the transactions of ATOMIC_REQUESTS commit markers where the method is not a safe one, so that such requests
    run again too
``PATRONI_REQUEST_DEADLINE``
    seconds for all runs of one request together; by default the longest ``patroni_failover_timeout`` of the aliases
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.signals import got_request_exception
from django.http import HttpResponse
from django.urls import set_urlconf
from django.utils.functional import cached_property

from django_backend.aliases import wrappers
from django_backend.effects import Effects, Opening, fresh_mark, observed
from django_backend.requests import Original
from django_backend.views import Repetition, repetition_of
from patroni_db.errors import CommitOutcomeUnknown, NoServerError
from patroni_db.faults import Fault, chain, classify
from patroni_db.time_limit import time_limit
from patroni_db.transaction import Reruns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["FailoverMiddleware"]

logger = logging.getLogger("patroni_db.django")

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# Seconds after which a client may ask again that was told that there is no primary.
_RETRY_AFTER: Final = 5
_ATTRIBUTE: Final = "_patroni_run"
_TRANSIENT: Final = frozenset({Fault.UNAVAILABLE, Fault.NOT_WRITABLE, Fault.TRANSIENT})


class _Run:
    """One run of a request.

    :param original: the request as it came in
    :param effects: what it did through the aliases of this engine
    :param reruns: all runs of the request together
    :param safe: whether its method is a safe one
    """

    def __init__(self, original: Original, effects: Effects, reruns: Reruns, *, safe: bool) -> None:
        self.original = original
        self.effects = effects
        self.reruns = reruns
        # Until the view is known, which has not begun then.
        self.repetition = Repetition.HARMLESS if safe else Repetition.ONCE
        self.safe = safe
        self.failure: Exception | None = None
        self.pause: float | None = None

    def failed(self, exc: Exception) -> bool:
        """Judge what the run ended with; return whether the middleware has an answer to it.

        Then :attr:`pause` says in how many seconds the request runs again; None if that is over.
        """
        if not self._is_transient(exc) or not self._left_nothing(exc):
            return False
        may_run_again = self.repetition is not Repetition.NEVER and not _waited_in_vain(exc)
        if may_run_again and self.original.can_be_repeated:
            decidable = self.repetition is Repetition.HARMLESS
            self.pause = self.reruns.pause_after(exc, lost=self.effects.lost(exc), decidable=decidable)
        self.failure = exc
        return True

    def _is_transient(self, exc: Exception) -> bool:
        if not self.effects.met(exc):
            return False
        if _waited_in_vain(exc):
            return True
        if self.effects.refused(exc):
            return False  # a wrong password, a database that is not there
        return _is_unknown(exc) or classify(exc, closed=self.effects.lost(exc) or None) in _TRANSIENT

    def _left_nothing(self, exc: Exception) -> bool:
        """Return whether nothing is left of the run, or nothing that would matter."""
        if self.repetition is Repetition.HARMLESS:
            return True
        return not self.effects.changed and not _is_unknown(exc)


class FailoverMiddleware:
    """Runs requests again that a failover interrupted, if that does no harm; put it first in ``MIDDLEWARE``.

    :param get_response: the rest of the chain
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
        got_request_exception.connect(_note_exception, dispatch_uid="django_backend.middleware")

    def __call__(self, request: HttpRequest) -> Any:
        """Return the response to `request`, of its last run."""
        if self.is_async:
            return self._respond_async(request)
        with self._begun(request) as (original, reruns):
            while True:
                with observed() as effects:
                    run = _attach(request, original, effects, reruns)
                    response = self.get_response(request)
                if run.failure is None:
                    return _answered(response, request, original)
                if run.pause is None:
                    return _answered(self._give_up(request, run, response), request, original)
                _tell(request, run)
                time.sleep(run.pause)
                request = _next(request, original, response)

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        with self._begun(request) as (original, reruns):
            while True:
                with observed() as effects:
                    run = _attach(request, original, effects, reruns)
                    response: HttpResponseBase = await self.get_response(request)
                if run.failure is None:
                    return _answered(response, request, original)
                if run.pause is None:
                    return _answered(self._give_up(request, run, response), request, original)
                _tell(request, run)
                await asyncio.sleep(run.pause)
                request = _next(request, original, response)

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., Any],
        _view_args: tuple[Any, ...],
        _view_kwargs: Mapping[str, Any],
    ) -> None:
        """Decide when the view may run again, and mark the transaction that it is going to run in."""
        run: _Run | None = getattr(request, _ATTRIBUTE, None)
        if run is None or run.safe:
            return
        run.repetition = repetition_of(view_func) or Repetition.NEVER
        if run.repetition is Repetition.NEVER and getattr(settings, "PATRONI_EXACTLY_ONCE", False):
            for alias in _atomic_aliases(view_func):
                run.repetition = Repetition.ONCE
                run.effects.openings[alias] = Opening(fresh_mark())

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Keep from Django's error handling what the middleware answers itself."""
        run: _Run | None = getattr(request, _ATTRIBUTE, None)
        if run is None or not run.failed(exception):
            return None
        # Replaced by the middleware's own. On this status, alone, Django's middleware saves no session.
        return HttpResponse(status=500)

    def unavailable(self, _request: HttpRequest, _exception: Exception) -> HttpResponse:
        """Return the response to a request that found no database until its deadline. May be overridden.

        :param _request: its last run's
        :param _exception: what that ended with
        """
        text = "The database is not available at the moment. Please try again.\n"
        headers = {"Retry-After": str(_RETRY_AFTER)}
        return HttpResponse(text, status=503, content_type="text/plain; charset=utf-8", headers=headers)

    def _give_up(self, request: HttpRequest, run: _Run, response: HttpResponseBase) -> HttpResponse:
        assert run.failure is not None  # noqa: S101 - see where it is called
        logger.warning("%s %s: no database: %s", request.method, request.path, run.failure)
        _release(response)
        return self.unavailable(request, run.failure)

    @contextlib.contextmanager
    def _begun(self, request: HttpRequest) -> Iterator[tuple[Original, Reruns]]:
        given: float | None = getattr(settings, "PATRONI_REQUEST_DEADLINE", None)
        seconds = self._longest if given is None else given
        original = Original(request)
        with time_limit(seconds):
            yield original, Reruns(seconds, random.SystemRandom())

    @cached_property
    def _longest(self) -> float:
        """The seconds that the most patient alias waits for a connection."""
        return max((w.patroni_config.failover_timeout for w in wrappers().values()), default=0.0)


def _attach(request: HttpRequest, original: Original, effects: Effects, reruns: Reruns) -> _Run:
    run = _Run(original, effects, reruns, safe=request.method in _SAFE)
    setattr(request, _ATTRIBUTE, run)
    return run


def _tell(request: HttpRequest, run: _Run) -> None:
    logger.info("%s %s runs again: %s", request.method, request.path, run.failure)


def _next(request: HttpRequest, original: Original, response: HttpResponseBase) -> HttpRequest:
    """Return a new request for the next run, and let go of what the last one held."""
    _release(response)
    request.close()
    set_urlconf(settings.ROOT_URLCONF)  # type: ignore[misc]  # not among the settings that mypy's plugin sees
    return original.again()


def _answered(response: HttpResponseBase, request: HttpRequest, original: Original) -> HttpResponseBase:
    """Return the response; what the last request holds is closed with it, as the handler does with the first one's."""
    if not original.is_same(request):
        response._resource_closers.append(request.close)  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other
    return response


def _release(response: HttpResponseBase) -> None:
    """Close what a response holds that nobody gets, without the signal that the request has finished."""
    closers: list[Callable[[], object]] = response._resource_closers  # type: ignore[attr-defined]  # noqa: SLF001
    for close in closers:
        with contextlib.suppress(Exception):  # as Django does
            close()
    closers.clear()


def _note_exception(request: HttpRequest | None = None, **_kwargs: Any) -> None:
    """Take note of what other middleware ended with: its exceptions pass by process_exception()."""
    run: _Run | None = getattr(request, _ATTRIBUTE, None)
    exc = sys.exc_info()[1]
    if run is not None and isinstance(exc, Exception):
        run.failed(exc)


def _atomic_aliases(view: object) -> list[str]:
    """Return the aliases for a primary on which `view` is going to run in a transaction."""
    exempt: frozenset[str] = getattr(view, "_non_atomic_requests", frozenset())
    return [
        alias
        for alias, wrapper in wrappers().items()
        if wrapper.settings_dict["ATOMIC_REQUESTS"]
        and wrapper.settings_dict["AUTOCOMMIT"]
        and alias not in exempt
        and not wrapper.in_atomic_block
        and wrapper.patroni_config.target.writes
    ]


def _is_unknown(exc: BaseException) -> bool:
    return any(isinstance(link, CommitOutcomeUnknown) for link in chain(exc))


def _waited_in_vain(exc: BaseException) -> bool:
    return any(isinstance(link, NoServerError) for link in chain(exc))
