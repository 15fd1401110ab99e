"""What a statement may do is read from its SQL, and from SQLAlchemy's constructs: what only reads, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    text,
    union,
    update,
    values,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable

from patroni_db.sql_effect import Effect, effect_of_sql
from sqlalchemy_dialect.clauses import effect_of

NEUTRAL, READS, MAY_WRITE, WRITES = Effect


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True), Column("note", String))

SQL = {
    "SELECT 1": READS,
    "  select 1 ; ": READS,
    "(SELECT 1) UNION (SELECT 2)": READS,
    "VALUES (1)": READS,
    "TABLE users": READS,
    "WITH x AS (SELECT 1) SELECT * FROM x": READS,
    "/* INSERT INTO */ SELECT 1 -- FOR UPDATE": READS,
    "-- only this\nSELECT 1": READS,
    "SELECT 'INTO ; FOR UPDATE', E'it\\'s FOR UPDATE', $$ ; DELETE FROM x $$, $a$ $$ INTO $a$": READS,
    'SELECT "into", "for" FROM "update"': READS,
    "SELECT update, delete FROM log": READS,
    "SELECT max(update) FROM log": READS,
    "SELECT x::text, :into, %(for_update)s, $1 FROM t": READS,
    "SELECT substring('abc' FROM 1 FOR 2)": READS,
    "SELECT pg_is_in_recovery(), now(), count(*) FROM t": READS,
    "SELECT 'nextval(1)' -- setval(1)": READS,
    'SELECT next_nextval(1), "lastval" FROM t': READS,
    "SHOW server_version": READS,
    "EXPLAIN SELECT 1": READS,
    "EXPLAIN DELETE FROM x": READS,
    "": NEUTRAL,
    "-- nothing": NEUTRAL,
    "SET LOCAL statement_timeout = 1": NEUTRAL,
    "SAVEPOINT a": NEUTRAL,
    "ROLLBACK TO SAVEPOINT a": NEUTRAL,
    "SET LOCAL work_mem = 1; SELECT 1": NEUTRAL,
    "CALL work()": MAY_WRITE,
    "DO $$ BEGIN END $$": MAY_WRITE,
    "LOCK TABLE t": MAY_WRITE,
    "SELECT pg_advisory_xact_lock(1)": MAY_WRITE,
    "SELECT pg_catalog.pg_try_advisory_lock(1)": MAY_WRITE,
    "SELECT lastval()": MAY_WRITE,
    "PREPARE TRANSACTION 'x'": MAY_WRITE,
    "INSERT INTO t VALUES (1)": WRITES,
    "/* SELECT */ update t set x = 1": WRITES,
    "DELETE FROM t": WRITES,
    "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE": WRITES,
    "TRUNCATE t": WRITES,
    "COPY t FROM STDIN": WRITES,
    "EXPLAIN ANALYZE DELETE FROM x": WRITES,
    "CREATE TABLE t ()": WRITES,
    "SELECT * INTO copy FROM t": WRITES,
    "SELECT * FROM t FOR UPDATE": WRITES,
    "SELECT * FROM t FOR\nNO KEY UPDATE SKIP LOCKED": WRITES,
    "SELECT * FROM (SELECT * FROM t FOR /* all */ SHARE) x": WRITES,
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x": WRITES,
    "WITH x AS MATERIALIZED (DELETE FROM t RETURNING *) SELECT * FROM x": WRITES,
    "WITH x AS (SELECT 1) UPDATE t SET y = 1": WRITES,
    "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x": WRITES,
    "SELECT nextval('s')": WRITES,
    "SELECT pg_catalog.\"nextval\" ('s')": WRITES,
    "SELECT 1; DROP TABLE t": WRITES,
}


@pytest.mark.parametrize("sql", SQL)
def test_sql(sql: str) -> None:
    assert effect_of_sql(sql) is SQL[sql]


inserted = insert(notes).values(note="x").returning(notes.c.id).cte("inserted")
CLAUSES: dict[str, tuple[Any, Effect]] = {
    "a query": (select(User).where(User.name.in_(["a"])).order_by(User.id), READS),
    "a count": (select(func.count()).select_from(User), READS),
    "a union": (union(select(User.id), select(notes.c.id)), READS),
    "a function": (func.now(), READS),
    "a query in SQL": (select(User).from_statement(text("SELECT * FROM users")), READS),
    "columns of SQL": (text("SELECT 1 AS x").columns(column("x")), READS),
    "a piece of SQL": (select(User).where(text("name = :name")), READS),
    "values": (select(values(column("x", Integer), name="v").data([(1,)])), READS),
    "locked": (select(User).with_for_update(), WRITES),
    "locked within": (select(User).where(User.id.in_(select(notes.c.id).with_for_update(read=True))), WRITES),
    "an insert": (insert(User), WRITES),
    "an update": (update(User), WRITES),
    "a delete": (delete(notes), WRITES),
    "a query of what is inserted": (select(inserted.c.id), WRITES),
    "a query beside what is inserted": (select(User).add_cte(inserted), WRITES),
    "deep below": (select(User).where(exists(select(inserted.c.id))), WRITES),
    "an insert in SQL": (select(User).from_statement(text("INSERT INTO users DEFAULT VALUES RETURNING *")), WRITES),
    "columns of an insert": (text("INSERT INTO t VALUES (1) RETURNING x").columns(column("x")), WRITES),
    "a procedure in SQL": (select(User).from_statement(text("CALL x()")), MAY_WRITE),
    "a sequence": (Sequence("s"), MAY_WRITE),
    "a sequence in a query": (select(Sequence("s").next_value()), WRITES),
    "nextval": (select(func.pg_catalog.nextval("s")), WRITES),
    "nextval in SQL": (select(literal_column("nextval('s')")), WRITES),
    "a lock": (select(func.pg_advisory_xact_lock(1)), MAY_WRITE),
    "a lock in a piece of SQL": (select(User).where(text("pg_try_advisory_lock(id)")), MAY_WRITE),
    "a definition": (CreateTable(notes), MAY_WRITE),
}


@pytest.mark.parametrize("what", CLAUSES)
def test_clauses(what: str) -> None:
    clause, effect = CLAUSES[what]
    assert effect_of(clause) is effect


@given(st.text(), st.sampled_from(["INSERT INTO t VALUES (1)", "DELETE FROM t", "SELECT nextval('s')"]))
def test_no_comment_or_string_hides_a_write(noise: str, write: str) -> None:
    quoted = noise.replace("'", "''")
    commented = noise.replace("*/", "").replace("/*", "").strip("*/")
    line = " ".join(noise.splitlines()).replace("\r", "").replace("\n", "")
    for sql in (f"SELECT '{quoted}'; {write}", f"/*{commented} */ {write}", f"--{line}\n{write}"):
        assert effect_of_sql(sql) is WRITES
