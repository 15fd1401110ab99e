"""The table of commit markers, made by SQLAlchemy and by Alembic, is the one of the plain SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import MetaData, create_engine, inspect

from patroni_db import markers
from sqlalchemy_dialect import commit_marker_table, create_commit_marker_table
from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from patroni_db.cluster import LocalCluster

# Columns with types, defaults and all; indexes and constraints by their definitions.
_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum
"""
_INDEXES = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass ORDER BY 1"
_CONSTRAINTS = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass ORDER BY 1"


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> Iterator[LocalCluster]:
    conninfo = healthy_patroni_cluster.conninfo(dbname=healthy_patroni_cluster.dbname)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(markers.DROP_TABLE)
    yield healthy_patroni_cluster
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(markers.DROP_TABLE)


def described(cluster: LocalCluster) -> list[Any]:
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname)) as connection:
        return [connection.execute(query, [markers.TABLE]).fetchall() for query in (_COLUMNS, _INDEXES, _CONSTRAINTS)]


def by_create_all(connection: Connection) -> None:
    convention = {"pk": "pk_%(table_name)s", "ix": "ix_%(column_0_label)s"}
    metadata = MetaData(schema="elsewhere", naming_convention=convention)
    commit_marker_table(metadata)
    metadata.create_all(connection)


def by_hand(connection: Connection) -> None:
    create_commit_marker_table(connection)
    create_commit_marker_table(connection)


def by_alembic(connection: Connection) -> None:
    metadata = MetaData()
    commit_marker_table(metadata)
    context = MigrationContext.configure(connection, opts={"include_object": only_ours})
    operations = Operations(context)
    upgrade = produce_migrations(context, metadata).upgrade_ops
    assert upgrade is not None
    for table in upgrade.ops:
        for operation in getattr(table, "ops", [table]):
            operations.invoke(operation)


def only_ours(_object: Any, name: str | None, kind: str, *_others: Any) -> bool:
    return kind != "table" or name == markers.TABLE


@pytest.mark.parametrize("make", [by_create_all, by_hand, by_alembic])
def test_it_is_the_table_of_the_plain_sql(cluster: LocalCluster, make: Callable[[Connection], None]) -> None:
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as plain:
        plain.execute(markers.CREATE_TABLE)
        wanted = described(cluster)
        plain.execute(markers.DROP_TABLE)
    engine = create_engine(url_of(cluster, "patroni"))
    with engine.begin() as connection:
        make(connection)
        assert inspect(connection).has_table(markers.TABLE)
    engine.dispose()
    assert described(cluster) == wanted


def test_autogenerate_finds_no_difference_to_the_plain_sql(cluster: LocalCluster) -> None:
    metadata = MetaData()
    commit_marker_table(metadata)
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as plain:
        plain.execute(markers.CREATE_TABLE)
    engine = create_engine(url_of(cluster, "patroni"))
    with engine.connect() as connection:
        options = {"include_object": only_ours, "compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    engine.dispose()
