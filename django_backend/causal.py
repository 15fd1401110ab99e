"""Reading what has been written, outside of requests: for tasks, job queues and commands.

::

    @shared_task
    @consistency("causal")
    def invoice(order_id): ...

    transaction.on_commit(lambda: invoice.delay(order.pk, causal_token=current_token()))
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, Self, TypeVar, cast, overload

from django.conf import settings
from django.db import Error, connections
from django.db.transaction import TransactionManagementError

from django_backend.aliases import wrappers
from django_backend.around import around
from django_backend.carriers import dump, load, merged
from django_backend.mixin import PatroniMixin
from django_backend.transaction import writing_wrapper
from django_backend.work import Consistency, ConsistencyName, Work, current_work
from patroni_db.causal_context import causal_scope, observe
from patroni_db.time_limit import time_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from patroni_db.causal import CausalToken

__all__ = ["Consistency", "capture_written", "causal", "consistency", "current_token", "known_tokens", "trusted_keys"]

logger = logging.getLogger("patroni_db.django")

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_ARGUMENT: Final = "causal_token"
# Seconds that a finished response waits for its token at most, where the primary has been lost since it wrote.
_LONGEST: Final = 1.0


class TakesToken(Protocol[P, R_co]):
    """A function that takes ``causal_token`` too: what :class:`consistency` makes of one."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, *args: Any, causal_token: str | None, **kwargs: Any) -> R_co: ...

    # As a method: without the parameter for its instance, which no type can take away here.
    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: Any = None, /) -> Callable[..., R_co]: ...


class consistency:  # noqa: N801 - a decorator and a context manager
    """Say how fresh the reads of a task are; a context manager, and a decorator of all kinds of functions.

    A decorated function takes one more keyword argument, ``causal_token``: what :func:`current_token` returned to
    whoever wants this done. It is not handed on. Inside ``atomic`` everything goes to the primary at every level.

    ``"strong"``
        all reads go to the primary
    ``"causal"``
        reads go to a replica once that shows what the token stands for, else to the primary; after a write of the
        task's own to the primary
    ``"eventual"``
        reads go to a replica, whatever has been written

    :param level: one of these
    :param token: used as a context manager: what :func:`current_token` returned
    :raises ValueError: there is no such level
    """

    def __init__(self, level: Consistency | ConsistencyName, token: str | None = None) -> None:
        self._level = Consistency(level)
        self._token = token
        self._entered: list[AbstractContextManager[Work]] = []

    def __enter__(self) -> Work:
        entered = self._begin(self._token).entered()
        self._entered.append(entered)
        return entered.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(exc_type, exc_value, traceback)

    def __call__(self, function: Callable[P, R_co]) -> TakesToken[P, R_co]:
        """Return `function`, each call of which is a task of its own."""
        made: Any = around(function, lambda kwargs: self._begin(kwargs.pop(_ARGUMENT, None) or self._token).entered)
        return cast("TakesToken[P, R_co]", made)

    def _begin(self, token: str | None) -> Work:
        return Work(self._level, merged(known_tokens(), load(token, trusted_keys())), outer=current_work())


def causal(token: str | None) -> consistency:
    """Let reads within see at least what `token` stands for, and what is written within.

    :param token: what :func:`current_token` returned; anything else is logged and ignored
    """
    return consistency(Consistency.CAUSAL, token)


def current_token(using: str | None = None) -> str | None:
    """Return a text that stands for all that has been written here, for a job that is to see it.

    One statement on each primary that was written to since this was last asked. It is signed with ``SECRET_KEY``.

    :param using: the primary's alias; by default all that this request or task has written to, outside of both all
        that this thread is connected to
    :returns: None when nothing has been written and nothing is known
    :raises ImproperlyConfigured: `using` does not have this engine, or is not for the primary
    :raises TransactionManagementError: within a transaction that has written: nobody can see that yet. Call it in
        ``transaction.on_commit``
    :raises Error: Django's, for the driver's
    """
    if using is not None:
        writing_wrapper(using)
    mine = {alias: wrapper for alias, wrapper in wrappers().items() if wrapper.patroni_config.target.writes}
    for alias, wrapper in mine.items():
        if wrapper.has_uncommitted_writes and not _is_in_test(wrapper) and using in (None, alias):
            raise TransactionManagementError(
                f"current_token() within a transaction of {alias!r} that is not committed yet: nobody can see it. "
                "Call it in transaction.on_commit()."
            )
    work = current_work()
    if using is not None:
        asked = {using}
    elif work is not None:
        asked = work.take_uncaptured()
    else:
        asked = {alias for alias, wrapper in mine.items() if wrapper.connection is not None}
    captured = _captured({alias: mine[alias] for alias in asked & mine.keys()})
    return dump(merged(known_tokens(), captured), settings.SECRET_KEY) or None


def capture_written(work: Work) -> None:
    """Take tokens for what a request or task has written. One that cannot be had is missing: that is logged."""
    for alias in work.take_uncaptured():
        wrapper: object = connections[alias]
        if isinstance(wrapper, PatroniMixin):
            try:
                with time_limit(_LONGEST):
                    _captured({alias: wrapper})
            except Error as exc:
                logger.warning(
                    "this user's next requests may not see yet what this one wrote to %r, where a replica answers that "
                    "is behind: no causal token could be had for it within %.3g s: %s",
                    alias,
                    _LONGEST,
                    str(exc),  # not itself: whoever keeps the record would keep the wrapper, by its frames
                )


def known_tokens() -> Mapping[str, CausalToken]:
    """Return the causal tokens of this context, by the primary's alias."""
    scope = causal_scope()
    return {} if scope is None else scope.tokens


def trusted_keys() -> list[str | bytes]:
    """Return the keys that a token may be signed with."""
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def _captured(primaries: Mapping[str, PatroniMixin]) -> dict[str, CausalToken]:
    """Return new tokens by alias; the request or task knows them too, if there is one.

    In a test's transaction nothing is ever committed, and everything is read in it: there is none.
    """
    tokens = {alias: wrapper.capture_token() for alias, wrapper in primaries.items() if not wrapper.in_atomic_block}
    if causal_scope() is not None:
        for alias, token in tokens.items():
            observe(token, alias)
    return tokens


def _is_in_test(wrapper: PatroniMixin) -> bool:
    blocks = cast("list[Any]", wrapper.atomic_blocks)
    return bool(blocks) and blocks[-1]._from_testcase  # noqa: SLF001 - what durable blocks go by
