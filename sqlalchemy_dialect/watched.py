"""The drivers' connections, which look whether they are lost before they send COMMIT.

What was lost before has not happened; what was lost meanwhile may have. SQLAlchemy's event ``commit`` would tell the
moment too, but a listener for it makes every transaction about 25 µs slower, as SQLAlchemy then looks for listeners of
all events (measured with 2.1). Looking here takes 2 µs.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final

from patroni_db.connections import driver_of
from patroni_db.isolation import refuses_serializable

if TYPE_CHECKING:
    from patroni_db.connections import Driver, Stamp
    from patroni_db.selection import Target
    from sqlalchemy_dialect.attempt import Attempt

__all__ = ["Watched", "let_the_loop_read", "watched_class", "watches"]

# asyncio hands a server's farewell to asyncpg one loop iteration after it was polled, and its end of file another
# one later: measured, four iterations tell (three with uvloop). Each costs about 6 µs on an idle loop.
_ITERATIONS: Final = 4

# psycopg.IsolationLevel and psycopg2.extensions: the levels' numbers.
_PSYCOPG_SERIALIZABLE: Final = 4
_PSYCOPG2_SERIALIZABLE: Final = 3
_PSYCOPG2_REPEATABLE_READ: Final = 2

_classes: dict[type, type] = {}


class Watched:
    """A mixin for connection classes."""

    attempt: Attempt | None = None
    """The attempt of ``run_transaction`` that has it."""
    lost_before: bool | None = None
    """Whether it was lost before COMMIT was sent; None when none was, it was answered, or its server stands by."""
    may_stand_by: bool = True
    """Whether its server may say at a COMMIT that it stands by: not when the connection is for the primary alone, and
    not when a pooler answers for the server."""
    route: tuple[Stamp, Target] | None = None
    """Where it leads, and what it is for."""
    _driver: Driver | None = None

    def allow_commit(self) -> Driver:
        """Return how to look at the connection before COMMIT is sent.

        :raises InvalidRequestError: ``run_transaction``'s callable commits by itself
        """
        if self.attempt is not None:
            self.attempt.refuse_commit()
        driver = self._driver
        if driver is None:
            driver = self._driver = driver_of(self)
        return driver

    def refuses_serializable(self) -> bool:
        """Return whether it only reads, on a server that refuses SERIALIZABLE."""
        return self.route is not None and refuses_serializable(driver_of(self), self, *self.route)

    def note(self, driver: Driver, *, lost: bool) -> None:
        """Note, when COMMIT is about to be sent, whether the connection is lost already."""
        stands_by = self.may_stand_by and not lost and driver.parameter(self, "in_hot_standby") == "on"
        self.lost_before = None if stands_by else lost
        if self.attempt is not None:
            self.attempt.sent = True


def watches(base: object) -> bool:
    """Return whether `base` is a class that :func:`watched_class` takes."""
    return isinstance(base, type) and _mixin(base) is not None


def watched_class(base: type) -> type:
    """Return a subclass of `base`, a driver's connection class or an application's own, that looks.

    :raises TypeError: for a class of another driver
    """
    known = _classes.get(base)
    if known is None:
        mixin = _mixin(base)
        if mixin is None:
            problem = f"{base} is not a connection class of psycopg, psycopg2 or asyncpg"
            raise TypeError(problem)
        known = _classes[base] = type(f"Watched{base.__name__}", (mixin, base), {"__module__": __name__})
    return known


def _mixin(base: type) -> type[Watched] | None:
    mixins = (_MIXINS.get((cls.__module__.partition(".")[0], cls.__name__)) for cls in base.__mro__)
    return next((mixin for mixin in mixins if mixin is not None), None)


class _Synchronous(Watched):
    """psycopg's ``Connection`` and psycopg2's ``connection``."""

    def look(self) -> None:
        """Look whether the connection is lost."""
        driver = self.allow_commit()
        self.note(driver, lost=driver.consume(self))

    def commit(self) -> None:
        """Commit the transaction under way."""
        self.look()
        super().commit()  # type: ignore[misc]  # the driver's
        self.lost_before = None

    def tpc_commit(self, *xid: Any) -> None:
        """Commit a prepared transaction."""
        self.look()
        super().tpc_commit(*xid)  # type: ignore[misc]  # the driver's
        self.lost_before = None


class _Psycopg(_Synchronous):
    """psycopg's ``Connection``."""

    def set_isolation_level(self, value: Any) -> None:
        """Set the level, or the one that a standby can do; the property's setter calls this."""
        if value == _PSYCOPG_SERIALIZABLE and self.refuses_serializable():
            self.set_read_only(True)  # type: ignore[attr-defined]  # the driver's
            value -= 1
        super().set_isolation_level(value)  # type: ignore[misc]  # the driver's


class _Psycopg2(_Synchronous):
    """psycopg2's ``connection``."""

    def set_isolation_level(self, level: int) -> None:
        """Set the level, or the one that a standby can do."""
        if level == _PSYCOPG2_SERIALIZABLE and self.refuses_serializable():
            level = _PSYCOPG2_REPEATABLE_READ
            self.readonly = True
        super().set_isolation_level(level)  # type: ignore[misc]  # the driver's


class _Asynchronous(Watched):
    """psycopg's ``AsyncConnection``."""

    async def set_isolation_level(self, value: Any) -> None:
        """Set the level, or the one that a standby can do."""
        if value == _PSYCOPG_SERIALIZABLE and self.refuses_serializable():
            await self.set_read_only(True)  # type: ignore[attr-defined]  # the driver's
            value -= 1
        await super().set_isolation_level(value)  # type: ignore[misc]  # the driver's

    def look(self) -> None:
        """Look whether the connection is lost."""
        driver = self.allow_commit()
        self.note(driver, lost=driver.consume(self))

    async def commit(self) -> None:
        """Commit the transaction under way."""
        self.look()
        await super().commit()  # type: ignore[misc]  # the driver's
        self.lost_before = None

    async def tpc_commit(self, *xid: Any) -> None:
        """Commit a prepared transaction."""
        self.look()
        await super().tpc_commit(*xid)  # type: ignore[misc]  # the driver's
        self.lost_before = None


class _Asyncpg(Watched):
    """asyncpg's ``Connection``, whose transactions are objects of their own."""

    def transaction(self, **options: Any) -> Any:
        """Return a transaction that looks at its connection before it commits."""
        if self.is_in_transaction():  # type: ignore[attr-defined]  # the driver's
            return super().transaction(**options)  # type: ignore[misc]  # the driver's: a savepoint
        if options.get("isolation") == "serializable" and self.refuses_serializable():
            options |= {"isolation": "repeatable_read", "readonly": True}
        transaction = _looking_transaction()(self, *({**_ASYNCPG_OPTIONS, **options}.values()))
        transaction.watched = self
        return transaction


@functools.cache
def _looking_transaction() -> Any:
    from asyncpg.transaction import Transaction  # noqa: PLC0415 - one driver is installed, not necessarily all

    class Looking(Transaction):
        watched: Any

        async def commit(self) -> None:
            driver = self.watched.allow_commit()
            if not driver.is_closed(self.watched):
                await let_the_loop_read(self.watched)
            self.watched.note(driver, lost=driver.is_closed(self.watched))
            await super().commit()
            self.watched.lost_before = None

    return Looking


# The options of asyncpg's ``Connection.transaction``, in the order in which its ``Transaction`` takes them.
_ASYNCPG_OPTIONS: Final = {"isolation": None, "readonly": False, "deferrable": False}
_MIXINS: Final[dict[tuple[str, str], type[Watched]]] = {
    ("psycopg", "Connection"): _Psycopg,
    ("psycopg", "AsyncConnection"): _Asynchronous,
    ("psycopg2", "connection"): _Psycopg2,
    ("asyncpg", "Connection"): _Asyncpg,
}


async def let_the_loop_read(_connection: object) -> None:
    """Let the event loop take in what has arrived, for drivers that show their socket to nobody."""
    for _ in range(_ITERATIONS):
        await asyncio.sleep(0)
