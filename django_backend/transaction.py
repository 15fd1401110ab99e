"""Transactions that survive a failover: a callable, run in one again after faults that left nothing behind."""

from __future__ import annotations

import functools
import logging
import random
import time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.transaction import TransactionManagementError

from django_backend.effects import Mark, Opening, fresh_mark, observed
from django_backend.errors import NothingCommitted
from django_backend.mixin import PatroniMixin
from patroni_db.markers import check_key, fingerprint_of
from patroni_db.time_limit import time_limit
from patroni_db.transaction import Reruns

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import IsolationLevel

    from django_backend.effects import Effects
    from patroni_db.config import PatroniConfig

__all__ = ["atomic_rerun", "run_atomic", "writing_wrapper"]

logger = logging.getLogger("patroni_db.django")

T = TypeVar("T")
P = ParamSpec("P")

# libpq's PQTRANS_INERROR.
_ABORTED = 3


def run_atomic(
    fn: Callable[[], T],
    *,
    using: str | None = None,
    exactly_once: bool = False,
    key: str | None = None,
    fingerprint: str | bytes | None = None,
    if_applied: Any = None,
    deadline: float | None = None,
    isolation_level: IsolationLevel | None = None,
) -> T:
    """Return ``fn()``, run in a transaction of its own; after a fault that left nothing behind run it again.

    That is after a connection lost before COMMIT, a server that is read-only or going, a serialization failure, a
    deadlock. With `exactly_once` a COMMIT whose answer was lost is looked up by the transaction's marker, and `fn`
    runs again if it did not take effect. Nothing is repeated that may have been committed.

    `fn` runs from its beginning, so fetch what it changes within it: instances from outside keep what a failed run
    did to them. What it does elsewhere (mail, files, other databases) happens in each run; what is to happen once
    belongs into ``transaction.on_commit``.

    Within the transaction that Django's ``TestCase`` puts around a test, `fn` runs once, in a savepoint.

    :param fn: without arguments
    :param using: the alias; by default ``default``
    :param exactly_once: find out what became of a COMMIT that was not answered
    :param key: of the work, at most 200 characters: it is done only once, whoever comes with the same key, until the
        markers are pruned. Implies `exactly_once`
    :param fingerprint: of the work that `key` stands for, such as the body of the request: where an earlier call with
        this key had another one, this call is refused. Needs `key`
    :param if_applied: returned, without running `fn`, when `key` has been applied by an earlier call
    :param deadline: seconds for everything together; by default ``patroni_failover_timeout``
    :param isolation_level: of this transaction, if not the connection's
    :raises TransactionManagementError: within ``atomic``, or with autocommit off: the transaction must be its own
    :raises ImproperlyConfigured: the alias does not have this engine, or is not for the primary
    :raises ValueError: the key could not be stored, or there is a fingerprint without a key
    :raises KeyReusedError: the key has been applied by work with another fingerprint
    :raises CommitOutcomeUnknown: the transaction may have been committed
    :raises Exception: whatever `fn` raises, and Django's own error of the last run, with a note of how often it ran
    """
    wrapper, config = writing_wrapper(using)
    mark = fresh_mark() if exactly_once else None
    if key is not None:
        mark = Mark(
            check_key(key), shared=True, fingerprint=None if fingerprint is None else fingerprint_of(fingerprint)
        )
    elif fingerprint is not None:
        raise ValueError("a fingerprint is one of the work that a key stands for: give run_atomic() a key too")
    if _is_in_test(wrapper):
        with transaction.atomic(using=using):
            applied = mark is not None and wrapper.mark_transaction(mark)
            return _not_again(key, if_applied) if applied else fn()
    reruns = Reruns(config.failover_timeout if deadline is None else deadline, random.SystemRandom())
    opening = Opening(mark, isolation_level)
    while True:
        with observed() as effects:
            try:
                with time_limit(reruns.remaining):
                    if opening.mark is not None or opening.isolation_level is not None:
                        effects.openings[wrapper.alias] = opening
                    _check_autocommit(wrapper)
                    with transaction.atomic(using=using):
                        value: T = _not_again(key, if_applied) if wrapper.collisions else fn()
                        _check_that_it_can_commit(wrapper)
                    return value
            except Exception as exc:
                pause = _pause_after(exc, wrapper, effects, reruns)
                if pause is None:
                    raise
                logger.info("transaction of %r runs again: %s", wrapper.alias, exc)
        time.sleep(pause)


@overload
def atomic_rerun(function: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def atomic_rerun(
    *,
    using: str | None = None,
    exactly_once: bool = False,
    key: Callable[..., str] | None = None,
    fingerprint: Callable[..., str | bytes] | None = None,
    if_applied: Any = None,
    deadline: float | None = None,
    isolation_level: IsolationLevel | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def atomic_rerun(
    function: Callable[..., Any] | None = None,
    /,
    *,
    key: Callable[..., str] | None = None,
    fingerprint: Callable[..., str | bytes] | None = None,
    **options: Any,
) -> Any:
    """Run each call of the function by :func:`run_atomic`; with or without parentheses.

    ::

        @atomic_rerun(key=lambda order_id: f"pay-{order_id}")
        def pay(order_id): ...

    :param key: called with the arguments of the function, gives the key of a call
    :param fingerprint: called with them too, gives the fingerprint of a call
    :param options: those of :func:`run_atomic`
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            work = functools.partial(function, *args, **kwargs)
            own_key = None if key is None else key(*args, **kwargs)
            own_fingerprint = None if fingerprint is None else fingerprint(*args, **kwargs)
            return run_atomic(work, key=own_key, fingerprint=own_fingerprint, **options)

        return run

    return decorate if function is None else decorate(function)


def writing_wrapper(using: str | None) -> tuple[PatroniMixin, PatroniConfig]:
    """Return this thread's wrapper of an alias for the primary, and the settings it follows.

    :param using: the alias; None for ``default``
    :raises ImproperlyConfigured: the alias does not have this engine, or is not for the primary
    """
    alias = using or DEFAULT_DB_ALIAS
    wrapper: object = connections[alias]
    if not isinstance(wrapper, PatroniMixin):
        raise ImproperlyConfigured(f"DATABASES[{alias!r}] does not have the engine django_backend")
    config = wrapper.patroni_config
    if not config.target.writes:
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}] is not for the primary: its patroni_target is {config.target}"
        )
    return wrapper, config


def _not_again(key: str | None, if_applied: Any) -> Any:
    logger.info("the key %r has been applied by an earlier call: its work is not run again", key)
    return if_applied


def _is_in_test(wrapper: PatroniMixin) -> bool:
    """Return whether only the transaction of a test is under way.

    :raises TransactionManagementError: it is one of the application's
    """
    if not wrapper.in_atomic_block:
        return False
    blocks = cast("list[Any]", wrapper.atomic_blocks)
    if blocks and blocks[-1]._from_testcase:  # noqa: SLF001 - what durable blocks go by
        return True
    raise TransactionManagementError(
        f"run_atomic() must own the whole transaction, to run it again, and alias {wrapper.alias!r} is in one already. "
        "Call it outside of atomic(), in a view that is not in ATOMIC_REQUESTS."
    )


def _check_autocommit(wrapper: PatroniMixin) -> None:
    if not wrapper.get_autocommit():
        raise TransactionManagementError(
            f"run_atomic() must own the whole transaction, and alias {wrapper.alias!r} has autocommit switched off."
        )


def _check_that_it_can_commit(wrapper: PatroniMixin) -> None:
    """Keep Django from passing over a transaction that is not there any more, or that the server has aborted."""
    if wrapper.closed_in_transaction:
        raise NothingCommitted("the connection was closed within the transaction: nothing was committed")
    if wrapper.connection is not None and wrapper.connection.pgconn.transaction_status == _ABORTED:
        raise NothingCommitted("the server aborted the transaction at an error that the callable passed over")


def _pause_after(exc: Exception, wrapper: PatroniMixin, effects: Effects, reruns: Reruns) -> float | None:
    """Return the seconds to wait before the next run; None when `exc` is the last word."""
    if wrapper.alias in effects.changed or effects.refused(exc):
        # Committed, and what follows the commit failed; or connecting, which tries again by itself, was given up.
        if reruns.attempts:
            reruns.attempts += 1
            reruns.note(exc)
        return None
    lost = effects.lost(exc) or wrapper.connection is None or bool(wrapper.connection.closed)
    pause = reruns.pause_after(exc, lost=lost)
    if pause is None and reruns.attempts > 1 and not getattr(exc, "__notes__", None):
        reruns.note(exc)
    return pause
