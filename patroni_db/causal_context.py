"""The causal tokens of the present request, task or thread, in a context variable.

A token observed here is honoured by every later read in the same context, whichever framework makes it. The context
is that of :mod:`contextvars`: a task of asyncio starts with its creator's, ``asyncio.to_thread`` and ``sync_to_async``
take it along, a plain thread starts empty. What a child observes its parent does not see, except within one
:func:`causal_context`, whose tokens are shared by all that runs in it.
"""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from patroni_db.causal import DEFAULT_CLUSTER

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from patroni_db.causal import CausalToken

__all__ = ["CausalScope", "causal_context", "causal_scope", "observe", "observed"]


class CausalScope:
    """The tokens of one request or task, the latest of each cluster. Threads may share it."""

    def __init__(self, tokens: Mapping[str, CausalToken] | None = None) -> None:
        self._lock = threading.Lock()
        self._tokens: Mapping[str, CausalToken] = dict(tokens or {})

    @property
    def tokens(self) -> Mapping[str, CausalToken]:
        """The tokens by the name of their cluster, as they are now."""
        return self._tokens

    def observe(self, token: CausalToken, cluster: str) -> None:
        """Keep `token` unless a later one of the same cluster is known."""
        with self._lock:
            self._tokens = {**self._tokens, cluster: token.later(self._tokens.get(cluster))}

    def forget(self, token: CausalToken, cluster: str) -> None:
        """Drop `token` if it is still the one that is kept: it is of a lost timeline."""
        with self._lock:
            if self._tokens.get(cluster) == token:
                self._tokens = {name: kept for name, kept in self._tokens.items() if name != cluster}


_scope: ContextVar[CausalScope | None] = ContextVar("patroni_causal_scope", default=None)


@contextlib.contextmanager
def causal_context(tokens: Mapping[str, CausalToken] | None = None) -> Generator[CausalScope]:
    """Open a scope of its own, for a request or a task, and yield it.

    :param tokens: what is known at its beginning, by the name of the cluster
    """
    scope = CausalScope(tokens)
    reset = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(reset)


def causal_scope() -> CausalScope | None:
    """Return the present scope; None when nobody opened one or observed anything."""
    return _scope.get()


def observed(cluster: str = DEFAULT_CLUSTER) -> CausalToken | None:
    """Return the latest token of `cluster` in this context, None when there is none."""
    scope = _scope.get()
    return None if scope is None else scope.tokens.get(cluster)


def observe(token: CausalToken, cluster: str = DEFAULT_CLUSTER) -> None:
    """Have later reads in this context see at least what `token` stands for.

    :param cluster: the name the application knows the cluster by: with Django the primary's alias
    """
    scope = _scope.get()
    if scope is None:
        scope = CausalScope()
        _scope.set(scope)
    scope.observe(token, cluster)
