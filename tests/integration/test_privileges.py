"""The rights that docs/security.md gives to applications, pruning and monitoring: enough, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors, sql

from patroni_db.causal_reads import _CAPTURE
from patroni_db.markers import CREATE_TABLE, MARK, PRUNE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cluster import LocalCluster

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
DATABASE = "least_privileges"

Execute = Callable[..., Any]


def grants() -> str:
    """Return the statements that the page shows."""
    if not PAGE.is_file():
        pytest.skip("the documents are in a checkout alone")
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def acting(patroni_cluster: LocalCluster) -> Iterator[Execute]:
    """Return a function that executes a statement as one of the roles of the page."""
    statements = grants()
    leader = patroni_cluster.wait_for_leader()
    roles = sorted(set(re.findall(r"CREATE ROLE (\w+)", statements)))
    with psycopg.connect(patroni_cluster.conninfo(leader), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {DATABASE}")
        with psycopg.connect(patroni_cluster.conninfo(leader, dbname=DATABASE), autocommit=True) as connection:
            connection.execute(CREATE_TABLE)
            connection.execute(statements.encode())

            def execute(role: str, statement: str, *arguments: Any) -> Any:
                connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
                try:
                    cursor = connection.execute(statement.encode(), arguments or None)
                    return cursor.fetchone() if cursor.description else cursor.rowcount
                finally:
                    connection.execute("RESET ROLE")

            yield execute
        admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        for role in roles:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def refused(acting: Execute, role: str, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            acting(role, statement)


def test_an_application_can_leave_markers_and_nothing_else(acting: Execute) -> None:
    assert acting("webapp", MARK, "key") == (0,)
    assert acting("webapp", MARK, "key") == (1,)
    refused(
        acting,
        "webapp",
        "DELETE FROM patroni_commit_marker",
        "TRUNCATE patroni_commit_marker",
        "UPDATE patroni_commit_marker SET key = 'x'",
        "DROP TABLE patroni_commit_marker",
    )


def test_causal_tokens_need_no_right(acting: Execute) -> None:
    assert len(acting("webapp", _CAPTURE)) == 3


def test_who_prunes_can_delete_and_nothing_else(acting: Execute) -> None:
    acting("webapp", MARK, "old")
    assert acting("marker_pruner", PRUNE, -1, 100) >= 1
    refused(
        acting,
        "marker_pruner",
        "INSERT INTO patroni_commit_marker (key) VALUES ('x')",
        "TRUNCATE patroni_commit_marker",
        "UPDATE patroni_commit_marker SET key = 'x'",
    )


def test_monitoring_sees_sessions_and_no_data(acting: Execute) -> None:
    assert acting("monitor", "SELECT count(*) FROM pg_stat_replication, pg_stat_activity") is not None
    refused(acting, "monitor", "SELECT * FROM patroni_commit_marker")
