"""Lanes: threads that do one thing again and again and write down how it went."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from patroni_db.demo.journal import Journal

__all__ = ["Reader", "Stored", "Writer", "read_once", "run_lanes", "when_stdin_ends", "write_once"]

# Seconds a lane may still be busy after it was told to stop.
_PATIENCE = 8.0


class Stored(NamedTuple):
    """Where a write went, by the word of the server that took it.

    :param server: its address
    :param timeline: its timeline
    """

    server: str | None
    timeline: int


class Writer(Protocol):
    """Something that writes."""

    def write(self, reference: uuid.UUID) -> Stored:
        """Write one thing in one transaction."""


class Reader(Protocol):
    """Something that reads."""

    def read(self) -> str | None:
        """Read once; return the address of the server that answered, by its own word."""


def when_stdin_ends(stop: Callable[[], object]) -> None:
    """Call `stop` when standard input ends: whoever started us wants us to stop, or is gone.

    Should work go on regardless, the process ends hard a few seconds later: it must never outlive its starter.
    """

    def wait() -> None:
        sys.stdin.buffer.read()
        stop()
        time.sleep(_PATIENCE)
        os._exit(1)

    threading.Thread(target=wait, name="stdin", daemon=True).start()


def run_lanes(work: Callable[[int], None], lanes: int, pause: float) -> None:
    """Work in `lanes` threads until standard input ends.

    :param work: one operation; called with the number of the lane, by all threads
    :param lanes: number of threads
    :param pause: seconds between two operations of a thread
    """
    stop = threading.Event()

    def lane(number: int) -> None:
        while not stop.is_set():
            work(number)
            stop.wait(pause)

    threads = [threading.Thread(target=lane, args=(number,), name=f"lane-{number}") for number in range(lanes)]
    when_stdin_ends(stop.set)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def write_once(client: Writer, journal: Journal, lane: int) -> None:
    """Write one thing and note how it went.

    :param client: what writes
    :param journal: where it is written down
    :param lane: the number of the lane
    """
    reference = uuid.uuid4()
    journal.write_began(lane, str(reference))
    try:
        stored = client.write(reference)
    except Exception as exc:  # noqa: BLE001 - whatever an application would see is what is counted
        journal.write_raised(str(reference), exc)
    else:
        journal.write_acknowledged(str(reference), stored.server, stored.timeline)


def read_once(client: Reader, journal: Journal, lane: int) -> None:
    """Read once and note how it went.

    :param client: what reads
    :param journal: where it is written down
    :param lane: the number of the lane
    """
    began = time.monotonic()
    try:
        server = client.read()
    except Exception as exc:  # noqa: BLE001 - as above
        journal.read_raised(lane, began, exc)
    else:
        journal.read_answered(lane, began, server)
