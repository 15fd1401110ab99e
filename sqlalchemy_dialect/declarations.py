"""What an application declares of its transactions: that they only read, or need the primary.

Whoever is nearest is heard: an execution option of the statement or connection that begins the transaction, then
:func:`use_primary` and :func:`use_replica` around it, then the session's own argument.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast

from sqlalchemy.exc import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token

__all__ = ["READ_ONLY", "USE", "Declaration", "Using", "declaration", "use_primary", "use_replica"]

P = ParamSpec("P")
R = TypeVar("R")
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
    return _declared(only, use == "primary")


@functools.cache
def _declared(read_only: bool, primary: bool) -> Declaration:  # noqa: FBT001 - keys; making one anew takes longer
    return Declaration(read_only, primary)


def use_primary() -> Using:
    """Have all transactions of routing sessions that begin within be the primary's.

    A context manager, and a decorator of functions and coroutine functions. What is declared to read only stays so.
    """
    return Using("primary")


def use_replica() -> Using:
    """Declare all transactions of routing sessions that begin within to read only: they are replicas'.

    A context manager, and a decorator of functions and coroutine functions.
    """
    return Using("replica")


class Using:
    """What :func:`use_primary` and :func:`use_replica` return.

    :param use: where transactions go
    """

    def __init__(self, use: Use) -> None:
        self._use = use
        self._resets: list[Token[Use | None]] = []

    def __enter__(self) -> None:
        self._resets.append(_use.set(self._use))

    def __exit__(self, *exc_info: object) -> None:
        _use.reset(self._resets.pop())

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Return `fn` with this around each of its calls.

        :raises TypeError: `fn` is a generator function, whose code runs later
        """
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{fn.__qualname__} is a generator function: use `with` in it")
        use = self._use
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Using(use):
                    return await fn(*args, **kwargs)

            return cast("Callable[P, R]", coroutine)

        @functools.wraps(fn)
        def function(*args: P.args, **kwargs: P.kwargs) -> R:
            with Using(use):
                return fn(*args, **kwargs)

        return function
