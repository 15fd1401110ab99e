# ruff: noqa: S608 - nothing is executed

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db.statements import StatementKind, keeps_state, kind_of, shapes_reads, takes_lock

READS = [
    "SELECT 1",
    "  \n (select a from t) UNION (SELECT b FROM u);",
    "/* INSERT /* nested */ INTO t */ -- DELETE FROM t\nSELECT 'INSERT INTO t; DELETE'",
    'SELECT "for update", "into" FROM "a;b" WHERE x = E\'\\\'; DELETE FROM t\'',
    "SELECT $q$ FOR UPDATE; DROP TABLE t $q$, $$ INTO $$",
    "SELECT update, delete FROM t WHERE insert = $1",
    "WITH a AS (SELECT 1), b AS (SELECT CAST(update AS int) FROM t) SELECT * FROM a, b",
    "EXPLAIN INSERT INTO t VALUES (1)",
    "EXPLAIN (ANALYZE, BUFFERS) SELECT 1",
    "SHOW server_version",
    "SET TIME ZONE 'UTC'",
    "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT 1",
    "COPY t TO STDOUT",
    "COPY (SELECT a FROM t) TO STDOUT",
    "TABLE t",
    "SELECT x AS into FROM t",
    "SELECT substring(a FROM 2 FOR 3) FROM t",
    "SELECT e'it''s \\' FOR UPDATE' || 'INTO ' FROM te",
    "SELECT a$b$c FROM t -- $b$ INTO",
    "",
    ";",
]
WRITES = [
    "INSERT INTO t VALUES (1)",
    "\tupdate t set a = 1",
    "/* why */ Delete From t",
    "MERGE INTO t USING u ON true WHEN MATCHED THEN DO NOTHING",
    "WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a",
    "WITH a AS MATERIALIZED (update only t set a = 1 returning *) SELECT * FROM a",
    'WITH a AS (SELECT 1) UPDATE "t" SET a = 1',
    "WITH a AS (SELECT 1) DELETE FROM t",
    "SELECT * INTO u FROM t",
    "SELECT * FROM t FOR UPDATE SKIP LOCKED",
    "SELECT * FROM t FOR NO KEY UPDATE OF t",
    "SELECT * FROM t\nFOR  KEY\nSHARE",
    "SELECT 1; DROP TABLE t",
    "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
    "EXPLAIN (VERBOSE, ANALYZE) DELETE FROM t",
    "COPY t (a, b) FROM STDIN",
    "TRUNCATE t",
    "CREATE TEMP TABLE x (a int)",
    "VACUUM",
]
UNKNOWN = ["CALL p()", "DO $$ BEGIN DELETE FROM t; END $$", "EXECUTE q(1)", "LOCK TABLE t", "SELECT 1; CALL p()", "%s"]


@pytest.mark.parametrize("sql", READS)
def test_a_read(sql: str) -> None:
    assert kind_of(sql) is StatementKind.READ


@pytest.mark.parametrize("sql", WRITES)
def test_a_write(sql: str) -> None:
    assert kind_of(sql) is StatementKind.WRITE
    assert kind_of(sql + " --" + " " * 5000) is StatementKind.WRITE


@pytest.mark.parametrize("sql", UNKNOWN)
def test_what_only_the_server_knows(sql: str) -> None:
    assert kind_of(sql) is StatementKind.UNKNOWN


@given(st.text(alphabet="'\"$eE/*-; \n()aINTO\\"))
def test_no_text_is_too_strange(text: str) -> None:
    assert kind_of(text) in StatementKind
    quoted = text.replace("'", "''")
    assert kind_of(f"SELECT '{quoted}' FROM t") is StatementKind.READ
    assert kind_of(f"SELECT '{quoted}' INTO u FROM t") is StatementKind.WRITE
    name = text.replace('"', '""')
    assert kind_of(f'WITH "{name}" AS (DELETE FROM "{name}" RETURNING *) SELECT 1') is StatementKind.WRITE


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", False),
        ("SELECT 'SET x = 1; LISTEN a' AS set, declare FROM t -- PREPARE p", False),
        ("SHOW search_path", False),
        ("SET LOCAL work_mem = '1MB'", False),
        ("SET TRANSACTION READ ONLY", False),
        ("set work_mem = '1MB'", True),
        ("/* report */ SET SESSION work_mem = '1MB'", True),
        ("SELECT 1; SET work_mem = '1MB'", True),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", True),
        ("PREPARE p AS SELECT 1", True),
        ("PREPARE TRANSACTION 'x'", False),
        ("CREATE TEMP TABLE t (a int)", True),
        ("create temporary view v as select 1", True),
        ("SELECT 1 AS a INTO TEMP t", True),
        ("CREATE TABLE temp (a int)", False),
        ("INSERT INTO temporary_files VALUES (1)", False),
        ("INSERT INTO t VALUES (1)", False),
        ("LISTEN jobs", True),
        ("SELECT set_config('work_mem', '1MB', false)", True),
        ("SELECT pg_try_advisory_lock (1)", True),
        ("SELECT pg_advisory_lock_shared(1)", True),
    ],
)
def test_what_a_session_holds_afterwards(sql: str, expected: bool) -> None:
    assert keeps_state(sql) is expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", False),
        ("SELECT 'SET ROLE x' -- SET ROLE x", False),
        ("SET work_mem = '1MB'", False),
        ("SET TIME ZONE 'UTC'", False),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", False),
        ("SET LOCAL search_path TO tenant", False),
        ("SET LOCAL app.tenant = 1", False),
        ("UPDATE t SET a.b = 1", False),
        ("set search_path = tenant, public", True),
        ("SELECT 1; SET SESSION search_path TO tenant", True),
        ("SET ROLE reader", True),
        ("SET SESSION AUTHORIZATION reader", True),
        ("SET SCHEMA 'tenant'", True),
        ("SET app.tenant = 1", True),
        ('SET "app".tenant = 1', True),
        ("SET pg_trgm.similarity_threshold = 0.5", True),
        ("SET row_security = off", True),
        ("SELECT set_config('app.tenant', '1', false)", True),
        ("CREATE TEMP TABLE t (a int)", True),
        ("SELECT 1 AS a INTO TEMPORARY t", True),
        ("SELECT pg_advisory_lock(1)", False),
    ],
)
def test_what_a_session_was_given_shapes_what_it_reads(sql: str, expected: bool) -> None:
    assert shapes_reads(sql) is expected
    assert keeps_state(sql) or not expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT pg_advisory_lock(1)", True),
        ("SELECT pg_try_advisory_lock_shared (1)", True),
        ("SELECT pg_advisory_xact_lock(1)", False),
        ("SELECT pg_advisory_unlock(1)", False),
        ("SELECT 'pg_advisory_lock(1)'", False),
    ],
)
def test_whether_the_session_holds_a_lock(sql: str, expected: bool) -> None:
    assert takes_lock(sql) is expected
