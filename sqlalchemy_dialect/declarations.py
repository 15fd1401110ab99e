"""What an application declares of its transactions: that they only read, or need the primary.

Whoever is nearest is heard: an execution option of the statement or connection that begins the transaction, then
:func:`use_primary` and :func:`use_replica` around it, then the session's own argument.
"""

from __future__ import annotations

import contextlib
import dataclasses
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy.exc import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["READ_ONLY", "USE", "Declaration", "declaration", "use_primary", "use_replica"]

Use = Literal["primary", "replica"]

# Execution options, of a statement, a Connection, an Engine, or ``session.execute(..., execution_options=...)``.
READ_ONLY: Final = "patroni_read_only"
USE: Final = "patroni_use"
_USES: Final = ("primary", "replica")

_use: ContextVar[Use | None] = ContextVar("patroni_sqlalchemy_use", default=None)


@dataclasses.dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared of a transaction.

    :param read_only: it must not write
    :param primary: it needs the primary, also for reading
    """

    read_only: bool
    primary: bool


def declaration(options: Mapping[str, Any], *, read_only: bool) -> Declaration:
    """Return what is declared where a transaction begins.

    :param options: execution options
    :param read_only: the session's own argument
    :raises ArgumentError: an option has a value that means nothing
    """
    use, only = options.get(USE), options.get(READ_ONLY)
    if use is not None and use not in _USES:
        raise ArgumentError(f"{USE} is 'primary' or 'replica', not {use!r}")
    if only is not None and not isinstance(only, bool):
        raise ArgumentError(f"{READ_ONLY} is True or False, not {only!r}")
    if use == "replica" and only is False:
        raise ArgumentError(f"{USE}='replica' contradicts {READ_ONLY}=False")
    if use is None:
        use = _use.get() if only is not False or _use.get() == "primary" else None
    if only is None:
        only = use == "replica" or read_only
    return Declaration(read_only=only, primary=use == "primary")


@contextlib.contextmanager
def use_primary() -> Iterator[None]:
    """Have all transactions of routing sessions that begin within be the primary's.

    A context manager and a decorator of functions; those that are declared to read only stay so.
    """
    with _using("primary"):
        yield


@contextlib.contextmanager
def use_replica() -> Iterator[None]:
    """Declare all transactions of routing sessions that begin within to read only: they are replicas'.

    A context manager and a decorator of functions; in coroutines use ``with``.
    """
    with _using("replica"):
        yield


@contextlib.contextmanager
def _using(use: Use) -> Iterator[None]:
    reset = _use.set(use)
    try:
        yield
    finally:
        _use.reset(reset)
