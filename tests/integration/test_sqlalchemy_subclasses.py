"""Subclasses of routing sessions, SQLModel's among them: what is promised of a session holds whatever they override."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import sqlmodel
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, SAWarning
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, aliased, scoped_session, sessionmaker
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from patroni_db.causal_context import causal_context
from sqlalchemy_dialect import (
    AsyncRoutingSession,
    ReadOnlyError,
    RoutingSession,
    async_writer_and_reader,
    use_replica,
    writer_and_reader,
)
from tests.integration.lagging import replay_paused
from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster
    from sqlalchemy_dialect.engines import Engines

STANDS_BY = text("SELECT pg_is_in_recovery()")

# SQLModel would have everybody use exec() instead.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*You probably want to use:DeprecationWarning")


class Hero(SQLModel, table=True):
    __tablename__ = f"heroes_{uuid.uuid4().hex}"
    id: int | None = Field(default=None, primary_key=True)
    name: str


class RoutingFirst(RoutingSession, sqlmodel.Session):
    pass


class ModelFirst(sqlmodel.Session, RoutingSession):
    pass


class StepsAround(RoutingSession):
    """Calls what stands above the routing session, past its overrides."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return Session.execute(self, *args, **kwargs)

    def connection(self, *args: Any, **kwargs: Any) -> Any:
        return Session.connection(self, *args, **kwargs)


class Forgets(RoutingSession):
    """Does not hand on what its ``get_bind`` is given."""

    def get_bind(self, mapper: Any = None, *, clause: Any = None, **_kwargs: Any) -> Any:
        return super().get_bind(mapper, clause=clause)


class OwnChoice(RoutingSession):
    """Knows better."""

    def get_bind(self, *_args: Any, **_kwargs: Any) -> Any:
        return self._reader if self._read_only else self.bind


class AsyncModelSession(AsyncRoutingSession, SQLModelAsyncSession):
    sync_session_class = ModelFirst


SUBCLASSES = [RoutingSession, RoutingFirst, ModelFirst, StepsAround, Forgets]


@pytest.fixture(scope="module")
def engines(patroni_cluster: LocalCluster) -> Iterator[Engines]:
    patroni_cluster.heal()
    pair = writer_and_reader(url_of(patroni_cluster, "patroni", causal_wait=0))
    SQLModel.metadata.create_all(pair.writer, [Hero.__table__])  # type: ignore[attr-defined]  # SQLModel makes it
    patroni_cluster.wait_until_streaming()
    yield pair
    SQLModel.metadata.drop_all(pair.writer, [Hero.__table__])  # type: ignore[attr-defined]
    for engine in pair:
        engine.dispose()


def executed(session: Session, statement: Any) -> Any:
    return session.exec(statement) if isinstance(session, sqlmodel.Session) else session.execute(statement).scalars()


WAYS: list[Callable[[Session, int], Any]] = [
    lambda session, key: executed(session, select(Hero.name).where(Hero.id == key)).one(),
    lambda session, key: getattr(session.get(Hero, key), "name", None),
    lambda session, key: session.query(Hero).filter(text(f"id = {key}")).one().name,
    lambda session, key: session.connection().scalar(select(Hero.name).where(Hero.id == key)),
    lambda session, key: session.connection(None, {"stream_results": False}).scalar(
        select(Hero.name).filter_by(id=key)
    ),
]


def test_every_subclass_sees_what_was_written_while_replicas_lag(
    patroni_cluster: LocalCluster, engines: Engines
) -> None:
    with replay_paused(patroni_cluster):
        for cls in SUBCLASSES:
            maker = sessionmaker(engines.writer, class_=cls, reader=engines.reader)
            for way in WAYS:
                with causal_context():
                    with maker() as session:
                        hero = Hero(name=cls.__name__)
                        session.add(hero)
                        session.commit()
                        key = hero.id
                    assert key is not None
                    with maker(read_only=True) as session:
                        assert way(session, key) == cls.__name__
                    with use_replica(), maker() as session:
                        assert way(session, key) == cls.__name__
            registry = scoped_session(maker)
            with causal_context():
                registry.add(Hero(name="scoped"))
                registry.commit()
                registry.remove()
                with use_replica():
                    assert registry.query(Hero).filter_by(name="scoped").count() == SUBCLASSES.index(cls) + 1
                registry.remove()
        with causal_context():
            with OwnChoice(engines.writer, reader=engines.reader) as session:
                session.add(Hero(name="own choice"))
                session.commit()
            with (
                OwnChoice(engines.writer, reader=engines.reader, read_only=True) as session,
                pytest.raises(InvalidRequestError, match="OwnChoice chose a replica that does not show"),
            ):
                session.scalars(select(Hero)).all()
        asyncio.run(_asynchronous(patroni_cluster))


async def _asynchronous(cluster: LocalCluster) -> None:
    pair = async_writer_and_reader(url_of(cluster, "patroni"))
    with causal_context():
        async with AsyncModelSession(pair.writer, reader=pair.reader) as session:
            session.add(Hero(name="async"))
            await session.commit()
        async with AsyncModelSession(pair.writer, reader=pair.reader, read_only=True) as session:
            assert (await session.exec(select(Hero.name).where(Hero.name == "async"))).all() == ["async"]
    await pair.writer.dispose()
    await pair.reader.dispose()


@pytest.mark.parametrize("cls", SUBCLASSES)
def test_every_subclass_reads_on_replicas_and_refuses_to_write_there(cls: type[Any], engines: Engines) -> None:
    with cls(engines.writer, reader=engines.reader, read_only=True) as session:
        assert session.execute(STANDS_BY).scalar() is True
        assert session.connection().scalar(STANDS_BY) is True
        with pytest.raises(ReadOnlyError):
            session.execute(text("UPDATE pg_class SET relname = relname WHERE false"))
        session.rollback()
        session.add(Hero(name="x"))
        with pytest.raises(ReadOnlyError):
            session.flush()
    with cls(engines.writer, reader=engines.reader, read_only=True) as session, pytest.raises(ReadOnlyError):
        session.connection().execute(text("CREATE TABLE nowhere ()"))


@pytest.mark.parametrize("cls", [RoutingSession, RoutingFirst, ModelFirst, StepsAround])
def test_execution_options_and_automatic_mode_reach_every_subclass(cls: type[Any], engines: Engines) -> None:
    with cls(engines.writer, reader=engines.reader, automatic=True) as session:
        assert executed(session, select(Hero)).all() is not None
        assert session.execute(STANDS_BY).scalar() is True
    with cls(engines.writer, reader=engines.reader) as session:
        assert session.execute(STANDS_BY, execution_options={"patroni_read_only": True}).scalar() is True
    with cls(engines.writer, reader=engines.reader, read_only=True) as session:
        assert session.execute(STANDS_BY, execution_options={"patroni_use": "primary"}).scalar() is False


def test_the_primary_that_was_asked_for_is_not_passed_over(engines: Engines) -> None:
    with (
        StepsAround(engines.writer, reader=engines.reader, read_only=True) as session,
        pytest.raises(InvalidRequestError, match="StepsAround chose a replica although the primary was asked for"),
    ):
        session.connection(execution_options={"patroni_use": "primary"})


@pytest.mark.skipif(not list(RoutingSession().dispatch.do_orm_execute), reason="SQLAlchemy is older than 2.0.50")
def test_a_warning_names_its_caller(engines: Engines) -> None:
    one, other = aliased(Hero), aliased(Hero)
    with (
        RoutingSession(engines.writer, reader=engines.reader, read_only=True) as session,
        pytest.warns(SAWarning, match="cartesian product") as caught,
    ):
        session.scalars(select(one.id, other.id)).all()
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("cls", SUBCLASSES)
def test_what_a_session_is_bound_to_can_be_connected_to(cls: type[Any], engines: Engines) -> None:
    with cls(engines.writer, reader=engines.reader, read_only=True) as session:
        for _ in range(2):
            with session.get_bind().connect() as connection:
                assert connection.scalar(STANDS_BY) is True
            assert session.get_bind() is engines.reader
            assert session.scalar(STANDS_BY) is True
            with session.begin_nested():
                assert session.scalar(STANDS_BY) is True
    assert engines.reader.pool.checkedout() == 0  # type: ignore[attr-defined]  # a queue pool


def test_an_asynchronous_session_names_the_asynchronous_engine(patroni_cluster: LocalCluster) -> None:
    async def names() -> None:
        pair = async_writer_and_reader(url_of(patroni_cluster, "patroni"))
        async with AsyncRoutingSession(pair.writer, reader=pair.reader) as session:
            assert session.get_bind() is pair.writer.sync_engine
            with use_replica():
                assert await session.scalar(STANDS_BY) is True
            assert session.get_bind() is pair.reader.sync_engine
            if hasattr(AsyncSession, "get_async_bind"):  # from SQLAlchemy 2.1
                assert session.get_async_bind() is pair.reader
        await pair.writer.dispose()
        await pair.reader.dispose()

    asyncio.run(names())
