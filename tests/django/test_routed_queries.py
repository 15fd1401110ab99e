"""Objects read from replicas are of one database with those that were written: what Django's ORM does with both.

Both aliases lead to the primary here; which one a statement was executed on is looked at.
"""

# ruff: noqa: PLW0108 - whose manager is asked when it is called

from __future__ import annotations

import copy
import io
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connections, router, transaction
from django.db.models import BigIntegerField, BooleanField, Count, Exists, F, Func, OuterRef, Prefetch, Value
from django.db.transaction import TransactionManagementError
from psycopg import sql

from django_backend.causal import consistency
from django_backend.routed_alias import RoutedAlias
from django_backend.router import alias_for_reads
from django_backend.routing import prevent_writes, use_primary, use_replica
from tests.django.backends import executed_on
from tests.django.shop.models import Book, Comic, Label, Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "replica"]),
    pytest.mark.usefixtures("routed"),
]


@pytest.fixture(autouse=True)
def shelves() -> list[Shelf]:
    first, second = (Shelf.objects.create(name=name) for name in ("first", "second"))
    for number in range(3):
        Comic.objects.create(title=str(number), shelf=second).shown_on.add(second)
    Label.objects.create(labelled=second)
    ContentType.objects.clear_cache()
    return [first, second]


def read(model: Any) -> list[Any]:
    with executed_on() as aliases:
        found = list(model.objects.order_by("pk"))
    assert aliases == ["replica"]
    assert {(type(thing._state.db), thing._state.db) for thing in found} == {(RoutedAlias, "default")}
    return found


class TryLock(Func):
    function = "pg_try_advisory_lock"
    output_field = BooleanField()


class NextValue(Func):
    function = "nextval"
    output_field = BigIntegerField()


class TransactionId(Func):
    function = "txid_current"
    output_field = BigIntegerField()


async def read_async() -> list[Book]:
    await Book.objects.aget(title="1")
    return [book async for book in Book.objects.aiterator()]


READS: dict[str, Callable[[], Any]] = {
    "all": lambda: list(Book.objects.all()),
    "get": lambda: Book.objects.get(title="1"),
    "first": lambda: Book.objects.first(),
    "values": lambda: list(Book.objects.values("title")),
    "values_list": lambda: list(Book.objects.values_list("title", flat=True)),
    "named": lambda: list(Book.objects.values_list("title", named=True)),
    "count": lambda: Book.objects.count(),
    "count of what is distinct": lambda: Book.objects.values("shelf").distinct().count(),
    "exists": lambda: Book.objects.exists(),
    "contains": lambda: Book.objects.contains(Book(pk=1)),
    "aggregate": lambda: Book.objects.annotate(shown=Count("shown_on")).aggregate(Count("shown")),
    "in_bulk": lambda: Book.objects.in_bulk(),
    "explain": lambda: Book.objects.all().explain(),
    "iterator": lambda: list(Book.objects.iterator(chunk_size=1)),
    "subquery": lambda: list(Shelf.objects.filter(Exists(Book.objects.filter(shelf=OuterRef("pk"))))),
    "in": lambda: list(Shelf.objects.filter(pk__in=Book.objects.values("shelf"))),
    "union": lambda: list(Book.objects.filter(title="1").union(Book.objects.filter(title="2"))),
    "dates": lambda: list(Book.objects.extra(select={"one": "1"})),
    "select_related": lambda: [book.shelf for book in Book.objects.select_related("shelf")],
    "prefetch": lambda: [list(book.shown_on.all()) for book in Book.objects.prefetch_related("shown_on")],
    "prefetch of a slice": lambda: list(
        Shelf.objects.prefetch_related(Prefetch("books", Book.objects.all()[:2], to_attr="few"))
    ),
    "deferred": lambda: Book.objects.defer("title").earliest("pk").title,
    "refresh": lambda: Book.objects.earliest("pk").refresh_from_db(),
    "parents": lambda: list(Comic.objects.all()),
    "child": lambda: Book.objects.earliest("pk").comic,
    "forward": lambda: Book.objects.earliest("pk").shelf,
    "reverse": lambda: list(Shelf.objects.latest("pk").books.all()),
    "count of reverse": lambda: Shelf.objects.latest("pk").books.count(),
    "many": lambda: list(Book.objects.earliest("pk").shown_on.all()),
    "count of many": lambda: Book.objects.earliest("pk").shown_on.count(),
    "generic": lambda: list(Shelf.objects.latest("pk").labels.all()),
    "validation": lambda: Book(title="x", shelf=Shelf.objects.earliest("pk")).full_clean(),
    "generic prefetch": lambda: [label.labelled for label in Label.objects.prefetch_related("labelled")],
    "manager": lambda: list(Book.objects.db_manager(router.db_for_read(Book)).all()),
    "async": lambda: async_to_sync(read_async)(),
}


@pytest.mark.parametrize("reads", READS.values(), ids=READS)
def test_what_reads_is_executed_on_a_replica(reads: Callable[[], Any]) -> None:
    ContentType.objects.get_for_model(Shelf)
    with executed_on() as aliases:
        reads()
    assert set(aliases) == {"replica"}
    for rule in (transaction.atomic(), use_primary(), consistency("strong")):
        with rule, executed_on() as aliases:
            reads()
        assert set(aliases) == {"default"}
    with transaction.atomic(), use_replica(), executed_on() as aliases:
        reads()
    assert set(aliases) == {"replica"}


def test_what_names_an_alias_itself_is_executed_on_that() -> None:
    book = read(Book)[0]
    with executed_on() as aliases:
        list(Book.objects.using("default"))
        list(Book.objects.using(book._state.db))
        book.refresh_from_db(using=book._state.db)
        assert read(Label)[0].labelled == Shelf.objects.using("default").latest("pk")
        list(Book.objects.using(book._state.db).iterator())
    assert set(aliases) == {"default", "replica"}
    assert aliases.count("replica") == 1  # read(Label)
    with executed_on() as aliases, use_replica():
        list(Book.objects.using("default"))
    assert aliases == ["default"]


def test_raw_sql_is_executed_on_the_primary_unless_an_alias_is_named() -> None:
    query = "SELECT * FROM shop_book"
    with executed_on() as aliases:
        books = list(Book.objects.raw(query))
        list(Book.objects.using(books[0]._state.db).all())
        with connections[router.db_for_read(Book)].cursor() as cursor:
            cursor.execute(query)
    assert set(aliases) == {"default"}
    with executed_on() as aliases:
        list(Book.objects.using(alias_for_reads(Book)).raw(query))
        list(Book.objects.using("replica").raw(query))
        with connections[alias_for_reads(Book)].cursor() as cursor:
            cursor.execute(query)
    assert set(aliases) == {"replica"}


def in_atomic(shelf: Shelf) -> None:
    with transaction.atomic():
        shelf.books.set(Book.objects.all())


WRITES: dict[str, Callable[[Shelf], Any]] = {
    "add": lambda shelf: shelf.books.add(read(Book)[0]),
    "add one by one": lambda shelf: shelf.books.add(read(Book)[1], bulk=False),
    "set": lambda shelf: shelf.books.set(Book.objects.all()),
    "set inside atomic": in_atomic,
    "set nothing": lambda shelf: read(Shelf)[1].books.set([]),
    "remove": lambda shelf: read(Shelf)[1].books.remove(*read(Book)),
    "clear": lambda shelf: read(Shelf)[1].books.clear(),
    "add many": lambda shelf: read(Book)[0].shown_on.add(read(Shelf)[0]),
    "set many": lambda shelf: read(Book)[0].shown_on.set(Shelf.objects.all()),
    "remove many": lambda shelf: read(Book)[0].shown_on.remove(read(Shelf)[1]),
    "create many": lambda shelf: read(Book)[0].shown_on.create(name="x"),
    "add generic": lambda shelf: shelf.labels.add(read(Label)[0]),
    "set generic": lambda shelf: shelf.labels.set(Label.objects.all()),
    "remove generic": lambda shelf: read(Shelf)[1].labels.remove(read(Label)[0]),
    "assign generic": lambda shelf: Label.objects.create(labelled=read(Shelf)[1]),
    "assign": lambda shelf: Book(shelf=read(Shelf)[0]).save(),
    "assign what was written": lambda shelf: setattr(read(Book)[0], "shelf", shelf),
    "save": lambda shelf: read(Comic)[0].save(),
    "save where it is from": lambda shelf: read(Book)[0].save(using=read(Book)[0]._state.db),
    "delete": lambda shelf: read(Shelf)[1].delete(),
    "delete where it is from": lambda shelf: read(Shelf)[1].delete(using=read(Shelf)[1]._state.db),
    "delete all": lambda shelf: Book.objects.filter(shelf__in=Shelf.objects.all()).delete(),
    "update": lambda shelf: Comic.objects.filter(drawn_by="").update(title=F("title"), drawn_by="x"),
    "update by what was read": lambda shelf: Book.objects.filter(shelf__in=read(Shelf)).update(title="x"),
    "bulk_update": lambda shelf: Book.objects.bulk_update(read(Book), ["shelf"]),
    "bulk_create": lambda shelf: Book.objects.bulk_create([Book(shelf=read(Shelf)[0])]),
    "get_or_create": lambda shelf: Book.objects.get_or_create(title="x", shelf=read(Shelf)[0]),
    "update_or_create": lambda shelf: read(Shelf)[1].books.update_or_create(title="1", defaults={"title": "x"}),
    "where it is from": lambda shelf: Book.objects.using(read(Shelf)[0]._state.db).get_or_create(title="1"),
    "pickled": lambda shelf: shelf.books.add(pickle.loads(pickle.dumps(read(Book)[0]))),
    "copied": lambda shelf: shelf.books.add(copy.deepcopy(read(Book)[0])),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_was_read_may_be_written(write: Callable[[Shelf], Any], shelves: list[Shelf]) -> None:
    write(shelves[0])


@pytest.mark.parametrize("write", ["delete where it is from", "save where it is from", "get_or_create", "update"])
def test_what_a_write_has_to_read_is_read_on_the_primary(write: str, shelves: list[Shelf]) -> None:
    with executed_on() as aliases:
        WRITES[write](shelves[0])
    # The last one before the first write is what read() has read.
    assert "replica" not in aliases[2:]


@pytest.mark.parametrize("alias", ["default", "replica"])
def test_a_dump_comes_from_the_alias_that_is_named(alias: str, shelves: list[Shelf]) -> None:
    with executed_on() as aliases:
        output = io.StringIO()
        call_command("dumpdata", "shop", database=alias, stdout=output)
    assert set(aliases) == {alias}
    dumped = json.loads(output.getvalue())
    assert [thing["fields"]["shown_on"] for thing in dumped if thing["model"] == "shop.book"] == [[shelves[1].pk]] * 3
    assert router.allow_migrate("replica", "shop") is False


def test_rows_are_locked_on_the_primary() -> None:
    with executed_on() as aliases:
        with transaction.atomic(), use_replica():
            list(Book.objects.select_for_update())
            list(Book.objects.using(router.db_for_read(Book)).select_for_update())
        with pytest.raises(TransactionManagementError):
            list(Book.objects.using(router.db_for_read(Book)).select_for_update())
        with prevent_writes():
            read(Book)
    assert aliases == ["default", "default", "replica"]


NEEDS_PRIMARY: dict[str, Callable[[], Any]] = {
    "a lock by an annotation": lambda: list(Book.objects.annotate(got=TryLock(Value(1)))),
    "a lock by a filter": lambda: list(Book.objects.alias(got=TryLock("pk")).filter(got=True)),
    "a lock in extra": lambda: list(Book.objects.extra(where=["pg_try_advisory_lock(shop_book.id)"])),
    "a lock in a subquery": lambda: list(Shelf.objects.filter(Exists(Book.objects.filter(TryLock(OuterRef("pk")))))),
    "a lock in an aggregate": lambda: Book.objects.annotate(got=TryLock("pk")).aggregate(Count("got")),
    "a number of a sequence": lambda: list(Book.objects.values(number=NextValue(Value("shop_book_id_seq")))),
    "the transaction": lambda: Book.objects.values_list(TransactionId()).first(),
}


@pytest.mark.parametrize("reads", NEEDS_PRIMARY.values(), ids=NEEDS_PRIMARY)
def test_functions_that_need_the_primary_are_called_there(reads: Callable[[], Any]) -> None:
    with executed_on() as aliases:
        list(Book.objects.annotate(text=Value("nextval('s')")).iterator())
        reads()
        with use_replica():
            reads()
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock_all()")
    assert aliases == ["replica", "default", "default", "default"]


@pytest.mark.parametrize(
    "statement",
    [
        "SET search_path TO public, pg_temp",
        sql.SQL("SET search_path TO {}").format(sql.Identifier("public")),
        b"SET SESSION search_path = public",
        "SET SCHEMA 'public'",
        'SET "shop"."tenant" = 5',
        "SET shop.tenant TO 5",
        "SELECT set_config('shop.tenant', '5', false)",
        "CREATE TEMPORARY TABLE mine AS SELECT 1 AS one",
    ],
    ids=str,
)
def test_reads_follow_what_the_session_was_given(statement: Any) -> None:
    read(Book)
    with connections["default"].cursor() as cursor:
        cursor.execute(statement)
    with executed_on() as aliases:
        list(Book.objects.all())
        with use_replica():
            list(Book.objects.all())
    assert aliases == ["default", "replica"]
    connections["default"].close()
    read(Book)


@pytest.mark.parametrize(
    "statement", ["SET statement_timeout = 0", "SET LOCAL search_path TO public", "LISTEN jobs", "SELECT 'SET a.b = 1'"]
)
def test_reads_go_to_a_replica_whatever_else_the_session_was_given(statement: str) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute(statement)
    read(Book)


def test_what_a_lock_guards_is_read_on_the_primary() -> None:
    wrapper = connections["default"]
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(1)")
        with executed_on() as aliases:
            list(Book.objects.all())
        cursor.execute("SELECT pg_advisory_unlock(1)")
    assert aliases == ["default"]
    wrapper.close_if_unusable_or_obsolete()
    read(Book)


def test_the_alias_is_that_of_the_primary_to_everybody_else() -> None:
    alias: Any = router.db_for_read(Book)
    assert (alias, hash(alias), str(alias), f"{alias}") == ("default", hash("default"), "default", "default")
    assert connections[alias] is connections["default"]
    assert type(connections[alias].alias) is str
    for same in (pickle.loads(pickle.dumps(alias)), copy.copy(alias), copy.deepcopy(alias), str(alias)):
        assert (type(same), same) == (str, "default")
    book = read(Book)[0]
    assert type(pickle.loads(pickle.dumps(book))._state.db) is str
    # A wrapper that is made by such a name has a plain one.
    wrapper = connections.create_connection(RoutedAlias("default", "replica"))
    assert type(wrapper.alias) is str
