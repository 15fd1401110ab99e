"""What type checkers say of the public interface. Never executed: mypy checks it, and that each `ignore` is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from django_backend.causal import Consistency, causal, consistency, current_token
from django_backend.routing import prevent_writes, use_primary, use_replica
from django_backend.transaction import atomic_rerun, run_atomic
from patroni_db import PatroniConfig, Target
from sqlalchemy_dialect import RoutingSession, run_transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import Connection, Engine


# -- Targets --------------------------------------------------------------------------------------------------------

PatroniConfig(urls="http://pg1:8008", target="replica_preferred")
PatroniConfig(urls="http://pg1:8008", target=Target.ANY)
PatroniConfig(urls="http://pg1:8008", target=Target("primary"))
PatroniConfig(urls="http://pg1:8008", target="master")  # type: ignore[arg-type]


# -- Levels of consistency, and the token that a decorated function takes ---------------------------------------------


@consistency("causal")
def invoice(order: int, *, urgent: bool = False) -> str:
    return f"{order} {urgent}"


@consistency(Consistency.STRONG)
async def report(day: str) -> int:
    return len(day)


@consistency("eventual")
def pages(count: int) -> Iterator[str]:
    yield from map(str, range(count))


@consistency("strong")
async def pages_async(count: int) -> AsyncIterator[str]:
    for page in range(count):
        yield str(page)


consistency("sticky")  # type: ignore[arg-type]

text: str = invoice(1)
text = invoice(1, urgent=True, causal_token=current_token())
text = invoice(1, causal_token=None)
invoice("one")  # type: ignore[call-overload]
invoice()  # type: ignore[call-overload]
invoice(1, causal_token=1)  # type: ignore[call-overload]
number: int = invoice(1)  # type: ignore[assignment]
for page in pages(3, causal_token="token"):
    text = page


async def ask() -> int:
    async for each in pages_async(3):
        assert each
    return await report("today", causal_token=current_token())


class Command(BaseCommand):
    @consistency("causal")
    def handle(self, *args: Any, **options: Any) -> str | None:
        return self.work(1)

    @consistency("causal")
    def work(self, job: int) -> str:
        return str(job)


with causal(current_token()) as work, consistency("strong"):
    assert not work.has_uncaptured


# -- Rules of routing -----------------------------------------------------------------------------------------------


@use_primary()
@use_replica("billing")
@prevent_writes()
def balance(account: int) -> float:
    return float(account)


amount: float = balance(1)
balance("one")  # type: ignore[arg-type]


# -- Transactions ---------------------------------------------------------------------------------------------------


@atomic_rerun
def place(order: int) -> str:
    return str(order)


@atomic_rerun(key=lambda order: f"pay-{order}", fingerprint=lambda order: f"{order}", if_applied="paid before")
def pay(order: int) -> str:
    return str(order)


text = place(1)
text = pay(1)
pay("one")  # type: ignore[arg-type]
number = run_atomic(lambda: 1, key="job", fingerprint=b"work")
run_atomic(lambda: 1, fingerprint=1)  # type: ignore[arg-type]


def insert(connection: Connection) -> int:
    return connection.exec_driver_sql("SELECT 1").scalar_one()  # type: ignore[no-any-return]


def transact(engine: Engine) -> None:
    count: int = run_transaction(engine, insert, key="job", fingerprint="work")
    assert count
    run_transaction(engine, "insert")  # type: ignore[call-overload]
    RoutingSession(engine, reader=engine, on_write="switch")
    RoutingSession(engine, reader=engine, on_write="maybe")  # type: ignore[arg-type]
