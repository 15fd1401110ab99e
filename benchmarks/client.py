"""A client's process: its workers write a row in a transaction, pause, and write the next one.

No row is ever written again: where one is there twice, a library has repeated it. What happens is kept in memory,
and given out when the standard input ends.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.catalogue import ClientKind
from benchmarks.counting import count_attempts
from benchmarks.sites import Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.records import Key

__all__ = ["RETRY", "main"]

# Seconds from an error to the next write.
RETRY = 0.02
_HEARTBEAT = 0.2
_JOIN_TIMEOUT = 1.0
_LONGEST_ERROR = 200

# Began, ended, node, error.
_Entry = list[Any]


class Workers:
    """The workers of one client, and what they write down.

    :param kind: the client
    :param site: the cluster
    """

    def __init__(self, kind: ClientKind, site: Site) -> None:
        self._kind = kind
        self._factory: Any = getattr(importlib.import_module(f"benchmarks.{kind.module}"), kind.factory)
        self._site = site
        self._stop = threading.Event()
        self._rng = random.Random(kind.name)  # noqa: S311 - spreads the workers, guards nothing
        self.entries: list[list[_Entry]] = [[] for _ in range(kind.workers)]
        self._threads: list[threading.Thread] = []
        self._errors: set[str] = set()

    def start(self) -> None:
        """Begin to write."""
        if self._kind.is_async:
            self._threads = [threading.Thread(target=asyncio.run, args=(self._run_tasks(),), daemon=True)]
        else:
            make = self._factory(self._site)
            self._threads = [
                threading.Thread(target=self._run, args=(worker, make()), daemon=True)
                for worker in range(self._kind.workers)
            ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no write any more, and give those under way a moment."""
        self._stop.set()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def oldest_success(self) -> float:
        """Return when the worker that has gone longest without success began its last acknowledged write."""
        return min(self._last_success(entries) for entries in self.entries)

    @staticmethod
    def _last_success(entries: list[_Entry]) -> float:
        return next((entry[0] for entry in reversed(entries.copy()) if entry[2] is not None), 0.0)

    def _run(self, worker: int, write: Callable[[Key], str]) -> None:
        time.sleep(self._rng.uniform(0, self._kind.pace))
        while not self._stop.is_set():
            entry = self._begin(worker)
            try:
                node = write((self._kind.name, worker, len(self.entries[worker])))
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is counted
                self._end(entry, None, exc)
                self._stop.wait(RETRY)
            else:
                self._end(entry, node, None)
                self._stop.wait(self._kind.pace)

    async def _run_tasks(self) -> None:
        write = await self._factory(self._site)
        await asyncio.gather(*(self._run_async(worker, write) for worker in range(self._kind.workers)))

    async def _run_async(self, worker: int, write: Callable[[Key], Awaitable[str]]) -> None:
        await asyncio.sleep(self._rng.uniform(0, self._kind.pace))
        while not self._stop.is_set():
            entry = self._begin(worker)
            try:
                node = await write((self._kind.name, worker, len(self.entries[worker])))
            except Exception as exc:  # noqa: BLE001 - as above
                self._end(entry, None, exc)
                await asyncio.sleep(RETRY)
            else:
                self._end(entry, node, None)
                await asyncio.sleep(self._kind.pace)

    def _begin(self, worker: int) -> _Entry:
        entry: _Entry = [time.monotonic(), None, None, None]
        self.entries[worker].append(entry)
        return entry

    def _end(self, entry: _Entry, node: str | None, error: Exception | None) -> None:
        entry[2] = node
        if error is not None:
            entry[3] = " ".join(f"{type(error).__qualname__}: {error}".split())[:_LONGEST_ERROR]
            if entry[3] not in self._errors:
                self._errors.add(entry[3])
                sys.stderr.write(f"{time.monotonic():.3f} {entry[3]}\n")
        entry[1] = time.monotonic()  # last: it says that the entry is complete


class _Monotonic(logging.Formatter):
    """Log lines with the clock that everything else is measured with."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{time.monotonic():.3f} {record.threadName} {record.name}: {record.getMessage()}"


def _die(hooked: threading.ExceptHookArgs) -> None:
    """End the process: without one of its workers it would be measured all the same."""
    sys.excepthook(hooked.exc_type, hooked.exc_value or hooked.exc_type(), hooked.exc_traceback)
    os._exit(1)


def main() -> None:
    """Be the client that the first line of the standard input asks for, until that ends."""
    # Whoever counts what a process holds does not mean garbage.
    signal.signal(signal.SIGUSR1, lambda *_: gc.collect())
    wish = json.loads(sys.stdin.readline())
    threading.excepthook = _die
    if wish["verbose"]:
        handler = logging.StreamHandler()
        handler.setFormatter(_Monotonic())
        logging.getLogger("patroni_db").addHandler(handler)
        logging.getLogger("patroni_db").setLevel(logging.DEBUG)
    attempts: list[float] = []
    count_attempts(attempts)
    site = wish["site"]
    site["servers"] = tuple((host, port) for host, port in site["servers"])
    workers = Workers(ClientKind(**wish["client"]), Site(**{**site, "haproxy": tuple(site["haproxy"])}))
    workers.start()
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    while not ended.wait(_HEARTBEAT):
        print(json.dumps(workers.oldest_success()), flush=True)
    workers.stop()
    history = {"writes": workers.entries, "attempts": attempts}
    Path(wish["history"]).write_text(json.dumps(history), encoding="utf-8")
    os._exit(0)  # a worker may hang for ever


if __name__ == "__main__":
    main()
