"""A client's process of the read benchmark: each of its threads is a user who reads an account, or moves money.

What each did is kept in memory, and written to a file when the standard input ends.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from patroni_db.causal_context import causal_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from patroni_db.causal import CausalToken

__all__ = ["CREATE", "SUBJECTS", "Wish", "main"]

# As pgbench's: wide enough that not all of a table is in one page.
CREATE = """
CREATE TABLE bench_account (id integer PRIMARY KEY, balance integer NOT NULL, filler char(84) NOT NULL);
CREATE TABLE bench_history (id bigserial PRIMARY KEY, account integer NOT NULL, delta integer NOT NULL);
INSERT INTO bench_account SELECT number, 0, '' FROM generate_series(1, {accounts}) AS number
"""
# Transactions of each thread before the process counts as ready.
_WARM_UP = 30
_MOST = 5000
_HEARTBEAT = 0.1
_JOIN_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client is to do.

    :param subject: one of :data:`SUBJECTS`
    :param replicas: whether reads go to replicas
    :param tags: tag sets that a replica must have, as ``patroni_tags``
    :param causal: whether each user sees what it wrote
    :param threads: how many users
    :param writes: share of the transactions that write, 0 to 1
    :param accounts: how many there are
    :param seed: of the random choices
    :param urls: of Patroni's APIs
    :param user: who logs in
    :param password: the user's
    :param history: the file to write to
    """

    subject: str
    replicas: bool
    tags: str
    causal: bool
    threads: int
    writes: float
    accounts: int
    seed: int
    urls: tuple[str, ...]
    user: str
    password: str
    history: str

    @property
    def reads(self) -> dict[str, str]:
        """The settings of whoever reads, without their prefix."""
        return {"target": "replica", **({"tags": self.tags} if self.tags else {})}


class User(Protocol):
    """One user's doings; each returns where it was done, as ``host:port``."""

    def read(self, account: int) -> str:
        """Read an account."""

    def write(self, account: int, delta: int) -> str:
        """Add to an account, read it, and write that down: pgbench's simple update."""


def _place(connection: Any) -> str:
    return f"{connection.info.host}:{connection.info.port}"


# -- Django --------------------------------------------------------------------------------------------------------


def _django(wish: Wish) -> Callable[[], User]:
    import django  # noqa: PLC0415 - each process loads one subject's libraries
    from django.conf import settings  # noqa: PLC0415

    from django_backend.config import databases  # noqa: PLC0415

    options = {"patroni_urls": list(wish.urls), **{f"patroni_{name}": value for name, value in wish.reads.items()}}
    settings.configure(
        SECRET_KEY="of no use elsewhere",  # noqa: S106
        DATABASES=databases(NAME="app", USER=wish.user, PASSWORD=wish.password, CONN_MAX_AGE=None, OPTIONS=options),
        DATABASE_ROUTERS=["django_backend.router.PrimaryReplicaRouter"],
        INSTALLED_APPS=["django_backend"],
        USE_TZ=True,
    )
    django.setup()
    from django.core.signals import request_finished, request_started  # noqa: PLC0415
    from django.db import connections, models, transaction  # noqa: PLC0415

    from django_backend.causal import consistency, current_token  # noqa: PLC0415
    from django_backend.router import alias_for_reads  # noqa: PLC0415
    from django_backend.routing import use_primary  # noqa: PLC0415

    class Account(models.Model):  # noqa: DJ008
        id = models.IntegerField(primary_key=True)
        balance = models.IntegerField()
        filler = models.CharField(max_length=84)
        objects: models.Manager[Account] = models.Manager()

        class Meta:
            app_label = "bench"
            db_table = "bench_account"

    class History(models.Model):  # noqa: DJ008
        id = models.BigAutoField(primary_key=True)
        account = models.IntegerField()
        delta = models.IntegerField()
        objects: models.Manager[History] = models.Manager()

        class Meta:
            app_label = "bench"
            db_table = "bench_history"

    def look(account: int) -> str:
        Account.objects.get(pk=account)
        return _place(connections[alias_for_reads(Account)].connection)  # in one request it is the same again

    def change(account: int, delta: int) -> str:
        with transaction.atomic():
            Account.objects.filter(pk=account).update(balance=models.F("balance") + delta)
            Account.objects.values_list("balance", flat=True).get(pk=account)
            History.objects.create(account=account, delta=delta)
        return _place(connections["default"].connection)

    class Visitor:
        def __init__(self) -> None:
            self._token: str | None = None

        def _request(self, work: Callable[[], str], *, writes: bool) -> str:
            request_started.send(sender=None)
            try:
                if not wish.causal:
                    if wish.replicas:
                        return work()
                    with use_primary():
                        return work()
                with consistency("causal", self._token):
                    place = work()
                    if writes:
                        self._token = current_token()
                    return place
            finally:
                request_finished.send(sender=None)

        def read(self, account: int) -> str:
            return self._request(lambda: look(account), writes=False)

        def write(self, account: int, delta: int) -> str:
            return self._request(lambda: change(account, delta), writes=True)

    return Visitor


# -- SQLAlchemy ----------------------------------------------------------------------------------------------------


def _engines(wish: Wish) -> Any:
    from sqlalchemy import URL  # noqa: PLC0415

    from sqlalchemy_dialect import writer_and_reader  # noqa: PLC0415

    query = {"patroni_urls": ",".join(wish.urls)}
    url = URL.create("postgresql+patroni", wish.user, wish.password, database="app", query=query)
    return writer_and_reader(url, reads=wish.reads, pool_size=wish.threads)


class _Remembering:
    """A user who takes along from one transaction to the next what was written."""

    def __init__(self, wish: Wish) -> None:
        self._causal = wish.causal
        self._tokens: Mapping[str, CausalToken] = {}

    def within(self, work: Callable[[], str]) -> str:
        """Return what `work` returns."""
        if not self._causal:
            return work()
        with causal_context(self._tokens) as scope:
            place = work()
            self._tokens = scope.tokens
        return place


def _sqlalchemy_session(wish: Wish) -> Callable[[], User]:
    from sqlalchemy import CHAR, BigInteger, Integer, update  # noqa: PLC0415
    from sqlalchemy.orm import DeclarativeBase, mapped_column, sessionmaker  # noqa: PLC0415

    from sqlalchemy_dialect import RoutingSession  # noqa: PLC0415

    class Base(DeclarativeBase):
        pass

    class Account(Base):
        __tablename__ = "bench_account"
        id = mapped_column(Integer, primary_key=True)
        balance = mapped_column(Integer)
        filler = mapped_column(CHAR(84))

    class History(Base):
        __tablename__ = "bench_history"
        id = mapped_column(BigInteger, primary_key=True)
        account = mapped_column(Integer)
        delta = mapped_column(Integer)

    engines = _engines(wish)
    maker = sessionmaker(engines.writer, class_=RoutingSession, reader=engines.reader)

    class Visitor(_Remembering):
        def read(self, account: int) -> str:
            return self.within(lambda: self._look(account))

        def write(self, account: int, delta: int) -> str:
            return self.within(lambda: self._change(account, delta))

        def _look(self, account: int) -> str:
            with maker(read_only=wish.replicas) as session:
                session.get_one(Account, account)
                return _place(session.connection().connection.driver_connection)

        def _change(self, account: int, delta: int) -> str:
            with maker.begin() as session:
                session.execute(update(Account).where(Account.id == account).values(balance=Account.balance + delta))
                session.get_one(Account, account)
                session.add(History(account=account, delta=delta))
                return _place(session.connection().connection.driver_connection)

    return lambda: Visitor(wish)


def _sqlalchemy_engines(wish: Wish) -> Callable[[], User]:
    from sqlalchemy import CHAR, Column, Integer, MetaData, Table, insert, select, update  # noqa: PLC0415

    data = MetaData()
    accounts = Table(
        "bench_account",
        data,
        Column("id", Integer, primary_key=True),
        Column("balance", Integer),
        Column("filler", CHAR(84)),
    )
    history = Table("bench_history", data, Column("account", Integer), Column("delta", Integer))
    engines = _engines(wish)

    class Visitor(_Remembering):
        def read(self, account: int) -> str:
            return self.within(lambda: self._look(account))

        def write(self, account: int, delta: int) -> str:
            return self.within(lambda: self._change(account, delta))

        def _look(self, account: int) -> str:
            engine = engines.reader if wish.replicas else engines.writer
            with engines.reading() if wish.causal else engine.connect() as connection:
                connection.execute(select(accounts).where(accounts.c.id == account)).one()
                return _place(connection.connection.driver_connection)

        def _change(self, account: int, delta: int) -> str:
            with engines.writing() if wish.causal else engines.writer.begin() as connection:
                mine = accounts.c.id == account
                connection.execute(update(accounts).where(mine).values(balance=accounts.c.balance + delta))
                connection.execute(select(accounts.c.balance).where(mine)).scalar_one()
                connection.execute(insert(history).values(account=account, delta=delta))
                return _place(connection.connection.driver_connection)

    return lambda: Visitor(wish)


# What to call each way to read, and what makes its users.
SUBJECTS: dict[str, tuple[str, Callable[[Wish], Callable[[], User]]]] = {
    "django": ("Django, `PrimaryReplicaRouter`", _django),
    "session": ("SQLAlchemy, `RoutingSession`", _sqlalchemy_session),
    "engines": ("SQLAlchemy, `writer_and_reader`", _sqlalchemy_engines),
}


# -- The process ---------------------------------------------------------------------------------------------------


class _Worker(threading.Thread):
    """A thread that is one user, until it is told to stop."""

    def __init__(self, number: int, wish: Wish, make: Callable[[], User], stopping: threading.Event) -> None:
        super().__init__(name=f"user {number}", daemon=True)
        self._rng = random.Random(f"{wish.seed} {number}")  # noqa: S311 - which account, no secret
        self._wish, self._make, self._stopping = wish, make, stopping
        self.done: list[tuple[bool, float, float, str, bool]] = []

    def run(self) -> None:
        user, wrote = self._make(), False
        while not self._stopping.is_set():
            account = self._rng.randint(1, self._wish.accounts)
            writes = self._rng.random() < self._wish.writes
            began = time.monotonic()
            place = user.write(account, self._rng.randint(-_MOST, _MOST)) if writes else user.read(account)
            self.done.append((writes, began, time.monotonic(), place, wrote and not writes))
            wrote = writes


def _die(hooked: threading.ExceptHookArgs) -> None:
    """End the process: without one of its users it would be measured all the same."""
    sys.excepthook(hooked.exc_type, hooked.exc_value or hooked.exc_type(), hooked.exc_traceback)
    os._exit(1)


def main() -> None:
    """Be the client that the first line of the standard input asks for, until that ends."""
    wish = Wish(**json.loads(sys.stdin.readline()))
    threading.excepthook = _die
    stopping = threading.Event()
    make = SUBJECTS[wish.subject][1](wish)
    workers = [_Worker(number, wish, make, stopping) for number in range(wish.threads)]
    for worker in workers:
        worker.start()
    while any(len(worker.done) < _WARM_UP for worker in workers):
        time.sleep(_HEARTBEAT)
    print(json.dumps("ready"), flush=True)
    sys.stdin.read()
    stopping.set()
    for worker in workers:
        worker.join(_JOIN_TIMEOUT)
    done = [one for worker in workers for one in worker.done]
    Path(wish.history).write_text(json.dumps(done), encoding="utf-8")
    if any(worker.is_alive() for worker in workers):
        sys.exit("a user hangs")


if __name__ == "__main__":
    main()
