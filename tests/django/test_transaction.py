"""Transactions and commit markers in a project's tests, and the table that its migrations make."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase
from django.utils import timezone

from django_backend.models import CommitMarker
from django_backend.transaction import atomic_rerun, run_atomic
from patroni_db import markers
from tests.django.shop.models import Customer

if TYPE_CHECKING:
    from pytest_django.fixtures import DjangoAssertNumQueries

pytestmark = pytest.mark.django_db(databases=["default", "replica"])

LOOK = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"""
INDEXES = """
SELECT replace(pg_get_indexdef(indexrelid), %s, 'it'), indisprimary FROM pg_index WHERE indrelid = %s::regclass"""


def looks(table: str) -> tuple[list[Any], list[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(LOOK, [table])
        columns = cursor.fetchall()
        cursor.execute(INDEXES, [table, table])
        return columns, sorted(cursor.fetchall())


def test_migrations_make_the_table_that_everybody_has() -> None:
    migrated = looks(markers.TABLE)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {markers.TABLE} RENAME TO other")
        cursor.execute(f"ALTER INDEX {markers.TABLE}_pkey RENAME TO other_pkey")
        cursor.execute(f"ALTER INDEX {markers.INDEX} RENAME TO other_age")
        cursor.execute(markers.CREATE_TABLE)
    assert looks(markers.TABLE) == migrated


def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "django_backend", check=True, dry_run=True, stdout=io.StringIO())


def test_the_migration_can_be_taken_back_and_made_where_the_table_is() -> None:
    out = io.StringIO()
    call_command("sqlmigrate", "django_backend", "0001", stdout=out)
    assert markers.TABLE in out.getvalue()
    call_command("migrate", "django_backend", "zero", stdout=io.StringIO())
    assert markers.TABLE not in connection.introspection.table_names()
    with connection.cursor() as cursor:
        cursor.execute(markers.CREATE_TABLE)
    call_command("migrate", "django_backend", stdout=io.StringIO())
    assert CommitMarker.objects.using("default").count() == 0


def test_a_table_without_fingerprints_gets_them_by_migration() -> None:
    with connection.cursor() as cursor:
        cursor.execute(markers.DROP_FINGERPRINT)
        cursor.execute(f"INSERT INTO {markers.TABLE} VALUES ('old')")  # noqa: S608 - a constant
    call_command("migrate", "django_backend", "0001", fake=True, stdout=io.StringIO())
    call_command("migrate", "django_backend", stdout=io.StringIO())
    found = CommitMarker.objects.using("default").get(key="old")
    assert found.fingerprint is None
    run_atomic(int, key="new", fingerprint="work")
    assert CommitMarker.objects.using("default").get(key="new").fingerprint == markers.fingerprint_of("work")
    with pytest.raises(ValueError, match="key"):
        run_atomic(int, fingerprint="work")


def test_the_model_reads_what_transactions_wrote() -> None:
    run_atomic(int, key="job")
    found = CommitMarker.objects.using("default").get()
    assert (str(found), found.collisions) == ("job", 0)
    assert abs(timezone.now() - found.created_at) < timedelta(minutes=5)
    assert CommitMarker.objects.using("default").create(key="by hand").collisions == 0


class InTestCase(TestCase):
    """Within the transaction of a test a callable runs in a savepoint."""

    databases = {"default", "replica"}  # noqa: RUF012 - Django's way

    def test_it_runs(self) -> None:
        with self.captureOnCommitCallbacks(execute=False) as callbacks:

            def work() -> Customer:
                transaction.on_commit(int)
                return Customer.objects.create(name="Ada")

            customer = run_atomic(work, exactly_once=True)
        assert Customer.objects.filter(pk=customer.pk).exists()
        assert len(callbacks) == 1

    def test_an_error_undoes_what_it_did(self) -> None:
        def work() -> None:
            Customer.objects.create(name="Ada")
            raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011 - the callable's own
            run_atomic(work)
        assert not Customer.objects.exists()

    def test_keys_count(self) -> None:
        @atomic_rerun(key="for {}".format, if_applied="before")
        def work(name: str) -> str:
            Customer.objects.create(name=name)
            return "now"

        assert [work("Ada"), work("Ada"), work("Bob")] == ["now", "before", "now"]
        assert Customer.objects.count() == 2

    def test_within_a_transaction_of_the_application_it_is_refused(self) -> None:
        with transaction.atomic(), pytest.raises(TransactionManagementError):
            run_atomic(int)


def test_markers_are_no_queries_of_the_applications_own(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(3):  # savepoint, insert, release
        run_atomic(lambda: Customer.objects.create(name="Ada"), exactly_once=True)


def test_aliases_of_other_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connections
    from django.db.backends.sqlite3.base import DatabaseWrapper

    settings = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    connections["lite"] = DatabaseWrapper({**settings, "OPTIONS": {}}, "lite")
    try:
        with pytest.raises(ImproperlyConfigured, match="lite"):
            run_atomic(int, using="lite")
    finally:
        del connections["lite"]


# -- manage.py patroni prune-markers ----------------------------------------------------------------------------


def prune(*words: str) -> str:
    out = io.StringIO()
    call_command("patroni", "prune-markers", *words, stdout=out, no_color=True)
    return out.getvalue()


@pytest.fixture
def aged() -> None:
    now = timezone.now()
    for hours in (0, 3, 30, 300):
        CommitMarker.objects.using("default").create(key=f"{hours} h", created_at=now - timedelta(hours=hours))


def left() -> set[str]:
    return set(CommitMarker.objects.using("default").values_list("key", flat=True))


@pytest.mark.usefixtures("aged")
def test_pruning_keeps_what_is_young() -> None:
    assert "deleted 1 commit markers older than 7d" in prune()
    assert left() == {"0 h", "3 h", "30 h"}
    assert json.loads(prune("--older-than", "1d", "--json")) == {
        "database": "default",
        "deleted": 1,
        "older_than": 86400.0,
    }
    assert left() == {"0 h", "3 h"}


@pytest.mark.usefixtures("aged")
def test_pruning_goes_on_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_backend.management.commands.patroni._BATCH", 1)
    assert "deleted 3 " in prune("--older-than", "1h")
    assert left() == {"0 h"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--older-than", "soon"], "is no age"),
        (["--older-than", "5m"], "less than 1h"),
        (["--database", "nowhere"], "nowhere"),
    ],
)
def test_what_pruning_refuses(words: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        prune(*words)
