"""What the code says of its own reads and writes: rules, levels, and writes that are refused."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, ProgrammingError, connections, router, transaction
from django.utils.connection import ConnectionDoesNotExist
from psycopg import sql

from django_backend.causal import consistency, current_token
from django_backend.errors import WriteRefusedError
from django_backend.router import alias_for_reads
from django_backend.routing import current_rules, prevent_writes, use_primary, use_replica
from django_backend.transaction import run_atomic
from django_backend.work import current_work
from patroni_db.errors import PatroniError
from tests.django.backends import executed_on
from tests.django.shop.models import Customer, Order

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "replica"]),
    pytest.mark.usefixtures("routed"),
]


def reader() -> str:
    """Return where the ORM's next read goes, which is what raw SQL is told too."""
    with executed_on() as aliases:
        Customer.objects.exists()
    told = alias_for_reads(Customer)
    assert aliases == [told]
    return told


# -- Rules ------------------------------------------------------------------------------------------------------


def test_of_several_rules_the_innermost_counts() -> None:
    assert reader() == "replica"
    with use_primary():
        assert reader() == "default"
        with use_replica("default"):
            assert reader() == "replica"
            with use_primary("another"):
                assert reader() == "replica"
            with use_primary():
                assert reader() == "default"
        assert reader() == "default"
        assert Customer.objects.using("replica").db == "replica"
    assert reader() == "replica"
    assert current_rules() is None


def test_a_rule_holds_inside_atomic_too() -> None:
    with transaction.atomic():
        assert reader() == "default"
        with use_replica():
            assert reader() == "replica"
            assert router.db_for_write(Customer) == "default"


def test_a_rule_may_be_entered_again_and_ends_with_an_error() -> None:
    rule = use_primary()

    def descend(depth: int) -> None:
        with rule:
            assert reader() == "default"
            if not depth:
                raise KeyError
            descend(depth - 1)

    with pytest.raises(KeyError):
        descend(3)
    assert reader() == "replica"


def test_decorated_functions_of_all_kinds() -> None:
    @use_primary()
    def plain(argument: int) -> tuple[int, str]:
        return argument, reader()

    @use_primary()
    async def coroutine() -> str:
        await asyncio.sleep(0)
        return await sync_to_async(reader)()

    assert plain(argument=1) == (1, "default")
    assert plain.__name__ == "plain"
    assert async_to_sync(coroutine)() == "default"
    assert reader() == "replica"


def test_a_generator_does_not_lend_its_rule_to_its_caller() -> None:
    seen: list[object] = []

    @use_primary()
    def generator() -> Generator[str, str, int]:
        try:
            seen.append((yield reader()))
        except LookupError as exc:
            seen.append(exc)
        try:
            yield reader()
        finally:
            seen.append(reader())
        return 7

    first = generator()
    assert next(first) == "default"
    assert reader() == "replica"
    assert first.send("sent") == "default"
    with pytest.raises(StopIteration) as end:
        next(first)
    assert (end.value.value, seen) == (7, ["sent", "default"])

    seen.clear()
    second = generator()
    next(second)
    failure = LookupError()
    assert second.throw(failure) == "default"
    second.close()
    assert seen == [failure, "default"]
    assert current_rules() is None


def test_nor_does_an_asynchronous_one() -> None:
    seen: list[object] = []

    @use_primary()
    async def generator() -> AsyncGenerator[str, str]:
        try:
            seen.append((yield await sync_to_async(reader)()))
            yield await sync_to_async(reader)()
        except LookupError as exc:
            seen.append(exc)
            yield "caught"
        finally:
            seen.append(await sync_to_async(reader)())

    async def consume() -> None:
        first = generator()
        assert await anext(first) == "default"
        assert await sync_to_async(reader)() == "replica"
        assert await first.asend("sent") == "default"
        assert await first.athrow(LookupError()) == "caught"
        await first.aclose()
        assert current_rules() is None
        assert [found async for found in generator()] == ["default"] * 2

    async_to_sync(consume)()
    assert seen[0] == "sent"
    assert seen[2:] == ["default", None, "default"]


def test_rules_hold_in_tasks_and_not_in_plain_threads() -> None:
    found: dict[str, str] = {}

    async def both() -> None:
        async def inner(name: str) -> None:
            found[name] = await sync_to_async(reader)()

        with use_primary():
            task = asyncio.create_task(inner("task"))
        await asyncio.gather(task, inner("beside"))

    async_to_sync(both)()
    with use_primary():
        thread = threading.Thread(target=lambda: found.update(thread=reader()))
        thread.start()
        thread.join()
    assert found == {"task": "default", "beside": "replica", "thread": "replica"}


# -- Transactions -----------------------------------------------------------------------------------------------


def test_a_transaction_is_noticed_however_it_begins() -> None:
    transaction.set_autocommit(False)
    try:
        assert reader() == "default"
        Customer.objects.count()
        transaction.rollback()
        assert alias_for_reads(Customer) == "default"
    finally:
        transaction.set_autocommit(True)
    assert reader() == "replica"
    with transaction.atomic():
        with transaction.atomic():
            assert reader() == "default"
        assert reader() == "default"
        connections["default"].close()
        assert alias_for_reads(Customer) == "default"
    assert reader() == "replica"
    with transaction.atomic(using="replica"):
        assert reader() == "replica"


def test_a_transaction_of_another_thread_counts_where_they_share_its_connection() -> None:
    found: list[str] = []
    mine = connections["default"]

    def look() -> None:
        connections["default"] = mine
        found.append(reader())

    mine.inc_thread_sharing()
    try:
        with transaction.atomic():
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
    finally:
        mine.dec_thread_sharing()
    assert found == ["default"]


# -- Writes that are refused ------------------------------------------------------------------------------------


def _execute(alias: str, statement: Any) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)


def _execute_many(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.executemany("INSERT INTO shop_customer (name) VALUES (%s)", [("x",), ("y",)])


def _lock(alias: str) -> None:
    with transaction.atomic(using=alias):
        list(Customer.objects.using(alias).select_for_update())


WRITES: dict[str, Any] = {
    "save": lambda alias: Customer(name="x").save(using=alias),
    "create": lambda alias: Customer.objects.using(alias).create(name="x"),
    "update": lambda alias: Customer.objects.using(alias).update(name="x"),
    "delete": lambda alias: Customer.objects.using(alias).all().delete(),
    "bulk_create": lambda alias: Customer.objects.using(alias).bulk_create([Customer(name="x")]),
    "locks": _lock,
    "by hand": lambda alias: _execute(
        alias, "/* a */ WITH t AS (SELECT 1) INSERT INTO shop_customer (name) VALUES ('x')"
    ),
    "composed": lambda alias: _execute(alias, sql.SQL("DELETE FROM {}").format(sql.Identifier("shop_customer"))),
    "many": _execute_many,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writes_are_refused_where_they_do_not_belong(write: Any) -> None:
    Customer.objects.create(name="before")
    # Here both aliases lead to the primary, as they do in production while there is no replica.
    with pytest.raises(WriteRefusedError, match="'replica' reads from replicas") as caught:
        write("replica")
    assert isinstance(caught.value, (PatroniError, DatabaseError))
    with prevent_writes(), pytest.raises(ProgrammingError, match="prevent_writes"):
        write("default")
    assert [customer.name for customer in Customer.objects.all()] == ["before"]
    with prevent_writes("another"):
        write("default")


def test_what_only_reads_is_not_refused() -> None:
    Customer.objects.create(name="for update; insert into")
    with prevent_writes():
        with executed_on() as aliases:
            assert Customer.objects.get(name="for update; insert into")._state.db == "default"
        assert aliases == ["replica"]
        with transaction.atomic():
            assert Customer.objects.filter(name__contains="delete").count() == 0
        _execute("replica", "SET statement_timeout = 0")
        _execute("replica", "EXPLAIN DELETE FROM shop_customer")


def test_what_only_the_server_could_know_is_refused_where_it_would_let_it_pass() -> None:
    with pytest.raises(WriteRefusedError):
        _execute("replica", "DO $$ BEGIN DELETE FROM shop_customer; END $$")


def test_a_refused_write_does_not_run_again() -> None:
    runs = []

    def work() -> None:
        runs.append(1)
        Customer.objects.using("replica").create(name="x")

    with pytest.raises(WriteRefusedError):
        run_atomic(work)
    assert len(runs) == 1


# -- Levels -----------------------------------------------------------------------------------------------------


def test_a_task_reads_from_the_primary_after_its_write() -> None:
    with consistency("causal"):
        Customer.objects.count()
        assert reader() == "replica"
        with transaction.atomic():
            Customer.objects.count()
        assert reader() == "replica"
        with transaction.atomic():
            _execute("default", "DELETE FROM shop_customer")
            transaction.set_rollback(True)
        assert reader() == "replica"
        _execute("default", "DELETE FROM shop_customer")
        assert reader() == "default"
        assert Customer.objects.using("replica").db == "replica"
    assert reader() == "replica"


def test_a_transaction_that_wrote_is_followed_by_reads_from_the_primary() -> None:
    with consistency("causal"):
        with transaction.atomic():
            _execute("default", "DELETE FROM shop_customer")
        assert reader() == "default"


def test_who_asks_where_to_write_reads_there_from_then_on() -> None:
    with consistency("causal"):
        assert router.db_for_write(Customer) == "default"
        assert reader() == "default"


def test_the_other_levels() -> None:
    with consistency("strong"):
        assert reader() == "default"
        with use_replica():
            assert reader() == "replica"
    with consistency("eventual"):
        Customer.objects.create(name="x")
        assert reader() == "replica"
        with transaction.atomic():
            assert reader() == "default"
    with pytest.raises(ValueError, match="delayed"):
        consistency("delayed")  # type: ignore[arg-type]


def test_a_task_within_a_request_tells_it_of_its_writes() -> None:
    with consistency("causal"):
        with consistency("eventual"):
            Customer.objects.create(name="x")
        assert reader() == "default"
        with consistency("causal"):
            assert reader() == "default"


def test_each_call_of_a_decorated_function_is_a_task() -> None:
    @consistency("causal")
    def job(note: str) -> tuple[str, str]:
        before = reader()
        Customer.objects.create(name=note)
        return before, reader()

    assert [job(note) for note in "ab"] == [("replica", "default")] * 2
    token = current_token()
    assert job("c", causal_token=token) == ("replica", "default")
    assert current_work() is None


def test_a_token_of_what_is_not_committed_cannot_be_had() -> None:
    with transaction.atomic():
        customer = Customer.objects.create(name="x")
        Order.objects.create(customer=customer, note="n")
        with pytest.raises(transaction.TransactionManagementError, match="on_commit"):
            current_token()
        tokens: list[str | None] = []
        transaction.on_commit(lambda: tokens.append(current_token()))
    assert tokens[0]


def test_a_token_is_had_where_there_is_one() -> None:
    with consistency("causal"):
        Customer.objects.count()
        assert current_token() is None
        Customer.objects.create(name="x")
        first = current_token()
        assert first
        assert current_token() == first
        Customer.objects.create(name="y")
        assert current_token() not in (None, first)
    with pytest.raises(ConnectionDoesNotExist, match="nonsense"):
        current_token("nonsense")


@pytest.mark.parametrize("text", ["", "nonsense", "1.2.3.4.5", "~:~", "ä" * 9999, None])
def test_a_text_that_is_no_token_is_as_if_there_was_none(text: str) -> None:
    with consistency("causal", text):
        assert reader() == "replica"
        assert Customer.objects.count() == 0
