"""Two-phase transactions through a failover: what was prepared waits on the new primary for whoever ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from patroni_db.cluster import LocalCluster
from sqlalchemy_dialect import CommitOutcomeUnknown
from tests.integration.faults import crash
from tests.integration.synchronous import wait_for_synchronous_standby
from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

# It needs a cluster of its own, as its servers have to be started with room for prepared transactions.
pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

FOUND = text("SELECT id FROM entry ORDER BY id")


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(2, synchronous=True, parameters={"max_prepared_transactions": 8}) as cluster:
        yield cluster


@pytest.fixture(params=["patroni", "psycopg2"])
def engine(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Engine]:
    cluster.heal()
    wait_for_synchronous_standby(cluster)
    engine = create_engine(url_of(cluster, request.param))
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


def test_what_was_prepared_outlives_the_primary(cluster: LocalCluster, engine: Engine) -> None:
    with Session(engine, twophase=True) as session:
        session.add(Entry(id=1))
        session.commit()
        session.add(Entry(id=2))
        session.flush()
        session.rollback()
    with engine.connect() as connection:
        transaction = connection.begin_twophase("order-3")
        connection.execute(Entry.__table__.insert(), {"id": 3})  # type: ignore[attr-defined]  # a Table
        transaction.prepare()
        crash(cluster)
        with pytest.raises(DBAPIError) as caught:
            transaction.commit()
        assert caught.value.connection_invalidated
        assert not isinstance(caught.value, CommitOutcomeUnknown), "the connection was lost before"
    with engine.connect() as connection:
        assert connection.execute(FOUND).scalars().all() == [1]
        assert connection.recover_twophase() == ["order-3"]
        connection.rollback()
        connection.commit_prepared("order-3", recover=True)
    with engine.connect() as connection:
        assert connection.execute(FOUND).scalars().all() == [1, 3]
        assert connection.recover_twophase() == []
