"""SQLAlchemy's clients: they make and read reports, in threads and on an event loop."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from sqlalchemy import func
from sqlalchemy.ext.asyncio import create_async_engine

from example_project.reports.job import (
    Report,
    database_url,
    figures,
    new_report,
    reader_engine,
    store,
    writer_engine,
)
from example_project.traffic.lanes import Stored, when_stdin_ends

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from patroni_db.demo.journal import Journal

__all__ = ["SQLAlchemyReader", "SQLAlchemyWriter", "run_async_writers"]


class SQLAlchemyWriter:
    """Counts the orders and stores a report, in one transaction on the primary.

    :param lanes: threads that will write
    """

    def __init__(self, lanes: int) -> None:
        self._engine = writer_engine(pool_size=lanes)

    def write(self, reference: uuid.UUID) -> Stored:
        """Make a report."""
        with self._engine.begin() as connection:
            count, revenue = connection.execute(figures()).one()
            report = store(connection, count, revenue, reference)
        return Stored(report.server, report.timeline)


class SQLAlchemyReader:
    """Counts the orders on a replica.

    :param lanes: threads that will read
    """

    def __init__(self, lanes: int) -> None:
        self._engine = reader_engine(pool_size=lanes)

    def read(self) -> str | None:
        """Count."""
        statement = figures().add_columns(func.host(func.inet_server_addr()).label("server"))
        with self._engine.connect() as connection:
            server: str | None = connection.execute(statement).one().server
        return server


def run_async_writers(journal: Journal, lanes: int, pause: float) -> None:
    """Store reports from `lanes` tasks of one event loop until standard input ends.

    :param journal: where it is written down
    :param lanes: number of tasks
    :param pause: seconds between two operations of a task
    """
    asyncio.run(_async_writers(journal, lanes, pause))


async def _async_writers(journal: Journal, lanes: int, pause: float) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    when_stdin_ends(lambda: loop.call_soon_threadsafe(stop.set))
    engine = create_async_engine(database_url("primary"), pool_size=lanes)

    async def lane(number: int) -> None:
        while not stop.is_set():
            await _async_write(engine, journal, number)
            await asyncio.sleep(pause)

    try:
        await asyncio.gather(*(lane(number) for number in range(lanes)))
    finally:
        await engine.dispose()


async def _async_write(engine: AsyncEngine, journal: Journal, lane: int) -> None:
    reference = uuid.uuid4()
    journal.write_began(lane, str(reference))
    try:
        async with engine.begin() as connection:
            count, revenue = (await connection.execute(figures())).one()
            row = (await connection.execute(new_report(count, revenue, reference))).one()
        report = Report.from_row(row)
    except Exception as exc:  # noqa: BLE001 - whatever an application would see is what is counted
        journal.write_raised(str(reference), exc)
    else:
        journal.write_acknowledged(str(reference), report.server, report.timeline)
