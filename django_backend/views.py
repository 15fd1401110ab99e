"""Decorators of views: what :class:`~django_backend.middleware.FailoverMiddleware` may do with their requests."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.db import DEFAULT_DB_ALIAS, transaction

from django_backend.effects import Opening, fresh_mark, observed
from django_backend.transaction import writing_wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Repetition", "exactly_once", "idempotent", "repetition_of"]

View = TypeVar("View", bound="Callable[..., Any]")

_ATTRIBUTE: Final = "failover_repetition"


class Repetition(enum.Enum):
    """When a view may run again for the same request."""

    HARMLESS = "harmless"
    """Whatever became of its first run."""
    ONCE = "once"
    """When its first run was rolled back, which is known."""
    NEVER = "never"


def idempotent(view: View) -> View:
    """Say that running the view again does no harm, also when its first run may have taken effect.

    What GET is anyway; for PUT, DELETE and the like that only set what is to be.
    """
    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            return await view(*args, **kwargs)

        return _marked(cast("View", run_async), Repetition.HARMLESS)

    @functools.wraps(view)
    def run(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return _marked(cast("View", run), Repetition.HARMLESS)


def exactly_once(using: str | None = None) -> Callable[[View], View]:
    """Give the view a transaction of its own with a commit marker, so that it runs again only if it was rolled back.

    It takes the place of ATOMIC_REQUESTS on that alias. Without the middleware nothing runs again, but what became of a
    COMMIT that was not answered is found out all the same.

    :param using: the alias; by default ``default``
    :raises TypeError: for an async view, which can have no transaction: call
        ``await sync_to_async(run_atomic)(...)`` in it
    """
    alias = using or DEFAULT_DB_ALIAS

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):
            raise TypeError("an async view has no transaction: call 'await sync_to_async(run_atomic)(...)' in it")

        @functools.wraps(view)
        def run(*args: Any, **kwargs: Any) -> Any:
            wrapper, _ = writing_wrapper(alias)
            with observed() as effects:
                if not wrapper.in_atomic_block:
                    effects.openings[wrapper.alias] = Opening(fresh_mark())
                with transaction.atomic(using=alias):
                    return view(*args, **kwargs)

        # A set of its own: functools.wraps has copied the reference.
        run.__dict__["_non_atomic_requests"] = {alias, *getattr(view, "_non_atomic_requests", ())}
        return _marked(cast("View", run), Repetition.ONCE)

    return decorate


def repetition_of(view: object) -> Repetition | None:
    """Return what a decorator says of `view`; None without one."""
    return getattr(view, _ATTRIBUTE, None)


def _marked(view: View, repetition: Repetition) -> View:
    setattr(view, _ATTRIBUTE, repetition)
    return view
