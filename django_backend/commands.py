"""Connections of management commands: somebody sits before them, who wants to be told rather than to wait.

Rule: a connection is a command's when the innermost of Django's own objects on the call stack is a management command,
or makes test databases. Where it is a request handler, as in the threads of ``runserver``, it is a request's. A
process in which neither is on the stack serves: WSGI and ASGI servers, workers of Celery, scripts.

Such a connection does not wait for a cluster of which this process has never seen anything, and no Patroni API
answers now. For a cluster that is there it waits like any other, and says so.

``PATRONI_COMMAND_WAIT = 0``
    seconds that a command waits for the first answer of a Patroni API; ``None`` lets commands wait like all others:
    for processes that serve and are started as commands, and containers that start beside their cluster
"""

from __future__ import annotations

import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.conf import settings
from django.core.handlers.base import BaseHandler
from django.core.management.base import BaseCommand
from django.db.backends.base.creation import BaseDatabaseCreation

from patroni_db.errors import DiscoveryError, NoServerError
from patroni_db.escaping import plain
from patroni_db.faults import chain
from patroni_db.time_limit import time_left, time_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from patroni_db.config import PatroniConfig
    from patroni_db.discovery import Discovery

__all__ = ["COMMAND_WAIT", "command_output", "connect_for_command"]

COMMAND_WAIT: Final = 0.0
# Seconds that a command waits in silence. No longer than it takes a new primary that is on its way.
_SILENCE: Final = 2.0
_NO_WAIT: Final = "A management command does not wait for a cluster that never answered it: see PATRONI_COMMAND_WAIT"
# What the methods are called in which commands, handlers and the makers of test databases do their work.
_METHODS: Final = frozenset({"execute", "handle", "inner_run", "get_response", "__call__", "create_test_db"})

T = TypeVar("T")


def command_output() -> Any | None:
    """Return where the management command at hand writes its errors to; None where there is none, or no rule for it.

    Looks at the call stack: Django says in no other way that a command runs. The command line does not tell it either:
    ``call_command()`` and threads of ``runserver`` share it with others.
    """
    if getattr(settings, "PATRONI_COMMAND_WAIT", COMMAND_WAIT) is None:
        return None
    for frame, _ in traceback.walk_stack(None):
        found = _worker(frame)
        if isinstance(found, BaseHandler):
            return None
        if isinstance(found, BaseCommand):
            return found.stderr
        if isinstance(found, BaseDatabaseCreation):
            return sys.stderr
    return None


def connect_for_command(
    connect: Callable[[], T], output: Any, discovery: Discovery, config: PatroniConfig, alias: str
) -> T:
    """Return a connection that a management command asked for.

    :param connect: makes it, and waits as :func:`~patroni_db.time_limit.time_limit` allows
    :param output: what :func:`command_output` returned
    :param discovery: the view of the cluster
    :param config: whom to connect to
    :param alias: its key in ``DATABASES``
    :raises NoServerError: no Patroni API answers, and none has ever answered this process: naming each URL and why
    :raises Exception: whatever `connect` raises
    """
    if discovery.snapshot is None:
        _await_first_answer(discovery, config)
    deadline = time.monotonic() + time_left(config.failover_timeout)
    try:
        with time_limit(_SILENCE):
            return connect()
    except Exception as exc:
        left = deadline - time.monotonic()
        if left <= 0 or discovery.snapshot is None or not _has_waited(exc):
            raise
        output.write(_waiting(exc, discovery, config, alias, left))
    with time_limit(left):
        return connect()


def _await_first_answer(discovery: Discovery, config: PatroniConfig) -> None:
    deadline = time.monotonic() + getattr(settings, "PATRONI_COMMAND_WAIT", COMMAND_WAIT)
    while discovery.snapshot is None:
        try:
            discovery.topology()
        except DiscoveryError as exc:
            left = deadline - time.monotonic()
            if left > 0 and exc.transient:
                discovery.wait_for(lambda topology: topology, left)
            elif config.fallback_hosts:
                return  # they may lead there without Patroni
            else:
                raise NoServerError(f"{exc}. {_NO_WAIT}", str(exc)) from exc


def _worker(frame: FrameType) -> object:
    """Return whose method runs in `frame`, if it may be one of those that matter here."""
    return frame.f_locals.get("self") if frame.f_code.co_name in _METHODS else None


def _has_waited(exc: BaseException) -> bool:
    """Return whether `exc` only says that the time was over."""
    if any(isinstance(link, NoServerError) for link in chain(exc)):
        return True
    return type(exc).__name__ == "PoolTimeout" and exc.__cause__ is None


def _waiting(exc: BaseException, discovery: Discovery, config: PatroniConfig, alias: str, seconds: float) -> str:
    snapshot = discovery.snapshot
    members = snapshot.topology.members if snapshot is not None else ()
    reasons = [link.reason for link in chain(exc) if isinstance(link, NoServerError)]
    why = reasons[0] if reasons else f"Patroni names {', '.join(f'{m.name}: {m.role} {m.state}' for m in members)}"
    scope = config.scope or (snapshot.topology.scope if snapshot is not None else None) or "without a name"
    whom = f"a server of cluster {scope} for {alias!r} (patroni_target={config.target})"
    return plain(f"Waiting for {whom}, up to {seconds:.0f} s: {why}")
