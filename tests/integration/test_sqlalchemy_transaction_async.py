"""Transactions on an event loop: nothing blocks it, a cancelled task leaves nothing, and waiting costs little."""

# ruff: noqa: S608 - tables' names are made here

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker, create_async_engine

from patroni_db import markers
from sqlalchemy_dialect import run_transaction_async
from tests.integration.faults import crash, switchover
from tests.integration.synchronous import replicate_synchronously
from tests.integration.test_sqlalchemy_failover import rows
from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

DRIVERS = ("patroni", "asyncpg")
# Seconds. Waiting for a primary blocks for twice as long.
STALL = 1.0


class StallDetector:
    """Asks the event loop all the time, from another thread, whether it still goes round, or stays where it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stalls: list[str] = []
        self._loop = loop
        self._ident = threading.get_ident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            answered = threading.Event()
            self._loop.call_soon_threadsafe(answered.set)
            while not answered.wait(STALL) and not self._stop.is_set():
                place = self._place()
                # Who is busy moves on.
                if not answered.wait(STALL) and self._place() == place and not self._stop.is_set():
                    self.stalls.append("".join(traceback.format_stack(sys._current_frames()[self._ident])))
                    break

    def _place(self) -> tuple[int, int]:
        frame = sys._current_frames()[self._ident]
        return id(frame), frame.f_lasti


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@pytest.fixture
def table(cluster: LocalCluster) -> Iterator[str]:
    name = f"notes_{uuid.uuid4().hex}"
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as connection:
        connection.execute(f"""
            CREATE TABLE {name} (note text NOT NULL);
            CREATE FUNCTION {name}_slow() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {name}
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.note = 'slow') EXECUTE FUNCTION {name}_slow();
            GRANT ALL ON {name} TO {cluster.user};
        """)
        connection.execute(f"SET ROLE {cluster.user}")
        connection.execute(markers.CREATE_TABLE)
    yield name
    cluster.wait_for_leader()
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as connection:
        connection.execute(f"DROP TABLE {name}; DROP FUNCTION {name}_slow()")


@contextlib.asynccontextmanager
async def disposed(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    try:
        yield engine
    finally:
        await engine.dispose()


async def eventually(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain: {what}"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("driver", "fault"),
    [
        ("patroni", crash),
        pytest.param("patroni", switchover, marks=pytest.mark.thorough),
        pytest.param("asyncpg", crash, marks=pytest.mark.thorough),
        pytest.param("asyncpg", switchover, marks=pytest.mark.thorough),
    ],
)
def test_a_thousand_tasks_write_once_each_through_a_failover_and_nothing_blocks_the_loop(
    cluster: LocalCluster, table: str, driver: str, fault: Callable[[LocalCluster], None]
) -> None:
    replicate_synchronously(cluster)

    async def main() -> list[str]:
        async with disposed(create_async_engine(url_of(cluster, driver), pool_size=15)) as engine:
            sessions = async_sessionmaker(engine)

            async def write(number: int) -> str:
                async def work(session: AsyncSession) -> str:
                    await session.execute(text(f"INSERT INTO {table} VALUES (:note)"), {"note": str(number)})
                    await session.execute(text("SELECT pg_sleep(0.01)"))
                    return str(number)

                return await run_transaction_async(sessions, work, exactly_once=True)

            await write(0)
            with StallDetector(asyncio.get_running_loop()) as detector:
                failing = asyncio.create_task(asyncio.to_thread(fault, cluster))
                written = await asyncio.gather(*(write(number) for number in range(1, 1000)))
                await failing
                await write(1000)
            assert not detector.stalls, detector.stalls[0]
            return written

    written = asyncio.run(main())
    assert written == [str(number) for number in range(1, 1000)]
    counted = Counter(note for (note,) in rows(cluster, f"SELECT note FROM {table}"))
    assert counted == {str(number): 1 for number in range(1001)}


@pytest.mark.parametrize("driver", [pytest.param("patroni", marks=pytest.mark.thorough), "asyncpg"])
def test_a_thousand_tasks_that_wait_for_a_primary_cost_one_probe(
    cluster: LocalCluster, table: str, driver: str
) -> None:
    """There is no primary: one of them looks, the others wait for its answer."""
    tries = 0

    async def connect(*args: Any, **kwargs: Any) -> Any:
        nonlocal tries
        tries += 1
        make = asyncpg.connect if driver == "asyncpg" else psycopg.AsyncConnection.connect
        return await make(*args, **kwargs)

    async def main() -> list[BaseException | None]:
        nonlocal tries
        url = url_of(cluster, driver)
        made = create_async_engine(url, max_overflow=-1, connect_args={"async_creator_fn": connect})
        async with disposed(made) as engine:
            await run_transaction_async(engine, AsyncConnection.get_raw_connection)
            await asyncio.to_thread(cluster.stop_etcd)

            def all_in_recovery() -> bool:
                with contextlib.suppress(psycopg.OperationalError):
                    return all(_in_recovery(cluster, node.name) for node in cluster.nodes)
                return False

            await eventually(all_in_recovery, "the primary to step down")
            tries, began = 0, time.monotonic()
            with StallDetector(asyncio.get_running_loop()) as detector:
                waiting = []
                for _ in range(1000):
                    waiting.append(asyncio.create_task(run_transaction_async(engine, _never, deadline=5)))
                    await asyncio.sleep(0)  # or the loop is busy with all of them at once
                ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert not detector.stalls, detector.stalls[0]
            # One after the other, on at most three servers; not once for each task.
            assert 0 < tries < 60 * (time.monotonic() - began)
            return ended

    try:
        ended = asyncio.run(main())
    finally:
        cluster.start_etcd()
    others = [end for end in ended if type(end) is not OperationalError]
    assert not others, repr(others[0])


def _in_recovery(cluster: LocalCluster, node: str) -> bool:
    with psycopg.connect(cluster.conninfo(node)) as connection:
        return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


async def _never(_connection: Any) -> None:
    raise AssertionError("it must not be called")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("moment", ["statement", "commit", "pause"])
def test_a_cancelled_task_leaves_no_session_behind(cluster: LocalCluster, table: str, driver: str, moment: str) -> None:
    mine = f"application_name = '{table}'"
    settings: dict[str, Any] = {"application_name": table}
    if driver == "asyncpg":
        settings = {"server_settings": settings}
    busy = f"SELECT count(*) FROM pg_stat_activity WHERE {mine} AND wait_event = 'PgSleep'"
    left = f"SELECT count(*) FROM pg_stat_activity WHERE {mine} AND state <> 'idle'"
    calls = 0

    async def work(connection: AsyncConnection) -> None:
        nonlocal calls
        calls += 1
        await connection.execute(text(f"INSERT INTO {table} VALUES ('slow')"))
        if moment == "statement":
            await connection.execute(text("SELECT pg_sleep(30)"))
        if moment == "pause":
            await connection.execute(text("DO $$ BEGIN RAISE 'again' USING ERRCODE = '40001'; END $$"))

    async def quick(connection: AsyncConnection) -> int:
        return int((await connection.execute(text("SELECT 1"))).scalar_one())

    async def main() -> None:
        made = create_async_engine(url_of(cluster, driver), pool_size=1, max_overflow=0, connect_args=settings)
        async with disposed(made) as engine:
            await run_transaction_async(engine, quick)
            task = asyncio.create_task(run_transaction_async(engine, work, exactly_once=True))
            if moment == "pause":
                await eventually(lambda: calls > 10, "the pauses to be long")
            else:
                await eventually(lambda: rows(cluster, busy) == [(1,)], "the server to be busy")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: rows(cluster, left) == [(0,)], "the session to end")
            assert await run_transaction_async(engine, quick) == 1, "the pool has no place left"

    asyncio.run(main())
    assert rows(cluster, f"SELECT * FROM {table}") == []
