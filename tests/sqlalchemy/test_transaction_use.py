"""Wrong use of ``run_transaction`` is told before anything is connected; errors keep what they carry."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg2.extensions
import pytest
from sqlalchemy import MetaData, Table, create_engine
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session, sessionmaker

import patroni_db
from sqlalchemy_dialect import (
    CommitOutcomeUnknown,
    commit_marker_table,
    run_transaction,
    run_transaction_async,
)
from sqlalchemy_dialect.watched import watched_class

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "postgresql+patroni://app@/app?patroni_urls=http://127.0.0.1:1"
STOCK = "postgresql+psycopg://app@127.0.0.1:1/app"


class Base(DeclarativeBase):
    pass


class Routing(Session):
    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        return create_engine(URL)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a connection": (lambda: None, "an Engine or a sessionmaker, not a NoneType"),
    "a session": (lambda: Session(create_engine(URL)), "not a Session: it must own the whole transaction"),
    "a scoped session": (lambda: scoped_session(sessionmaker(create_engine(URL))), "must own the whole transaction"),
    "an asynchronous engine": (lambda: create_async_engine(URL), "await run_transaction_async"),
    "an asynchronous sessionmaker": (lambda: async_sessionmaker(create_async_engine(URL)), "run_transaction_async"),
    "another engine": (lambda: create_engine(STOCK), "not on a Patroni cluster"),
    "a sessionmaker of another engine": (lambda: sessionmaker(create_engine(STOCK)), "not on a Patroni cluster"),
    "no engine": (sessionmaker, r"sessionmaker\(bind=engine\)"),
    "several engines": (lambda: sessionmaker(binds={Base: create_engine(URL)}), "one engine"),
    "a routing session": (lambda: sessionmaker(class_=Routing), "one engine"),
    "two phases": (lambda: sessionmaker(create_engine(URL), twophase=True), "two phases"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_own_a_transaction_is_refused(what: str) -> None:
    make, message = WRONG[what]
    with pytest.raises(ArgumentError, match=message):
        run_transaction(make(), _never)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_engine(URL), "call run_transaction"),
        (lambda: sessionmaker(create_engine(URL)), "call run_transaction"),
        (lambda: AsyncSession(create_async_engine(URL)), "must own the whole transaction"),
        (lambda: async_sessionmaker(create_async_engine(STOCK)), "not on a Patroni cluster"),
        (async_sessionmaker, r"async_sessionmaker\(bind=engine\)"),
    ],
)
def test_the_same_on_an_event_loop(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        asyncio.run(run_transaction_async(make(), _never))


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", 7])
def test_a_key_that_could_not_be_stored_is_refused(key: Any) -> None:
    with pytest.raises(ArgumentError, match="key"):
        run_transaction(create_engine(URL), _never, key=key)


@pytest.mark.parametrize("options", [{"exactly_once": True}, {"key": "k"}])
def test_markers_are_written_on_the_primary_only(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="target any"):
        run_transaction(create_engine(f"{URL}&patroni_target=any"), _never, **options)
    with pytest.raises(ArgumentError, match="target replica"):
        asyncio.run(run_transaction_async(create_async_engine(f"{URL}&patroni_target=replica"), _never, **options))


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "autocommit"])
def test_autocommit_is_no_transaction(level: str) -> None:
    with pytest.raises(ArgumentError, match="AUTOCOMMIT"):
        run_transaction(create_engine(URL), _never, isolation_level=level)


def test_engines_made_by_execution_options_are_known() -> None:
    engine = create_engine(URL, isolation_level="SERIALIZABLE").execution_options(logging_token="x")
    with pytest.raises(OperationalError, match=r"no primary|no Patroni API"):
        run_transaction(engine, _never, deadline=0.1)


def test_connecting_that_was_given_up_is_not_tried_again() -> None:
    with pytest.raises(OperationalError) as raised:
        run_transaction(create_engine(URL), _never, deadline=0.3)
    assert not hasattr(raised.value, "__notes__")


def test_a_doubt_is_an_error_of_both() -> None:
    cause = psycopg.OperationalError("gone")
    error = CommitOutcomeUnknown("COMMIT PREPARED 'x'", {"a": 1}, cause, connection_invalidated=True)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(one, patroni_db.CommitOutcomeUnknown)
        assert isinstance(one, OperationalError)
        assert (one.sqlstate, one.statement, one.params) == ("08007", "COMMIT PREPARED 'x'", {"a": 1})
        assert one.connection_invalidated
        assert str(one.orig) == "gone"
        assert "it may have taken effect" in str(one)
        assert "gone" in str(one)
    assert "while COMMIT was" in str(CommitOutcomeUnknown(None, None, cause))


def test_the_table_of_markers_is_made_once_and_without_a_schema() -> None:
    metadata = MetaData(schema="app")
    table = commit_marker_table(metadata)
    assert isinstance(table, Table)
    assert table.schema is None
    assert commit_marker_table(metadata) is table


def test_an_applications_own_connection_class_looks_too() -> None:
    class Own(psycopg2.extensions.connection):
        pass

    watched = watched_class(Own)
    assert issubclass(watched, Own)
    assert watched_class(Own) is watched
    with pytest.raises(TypeError, match="not a connection class"):
        watched_class(dict)


def _never(_subject: Any) -> Any:
    raise AssertionError("it must not be called")
