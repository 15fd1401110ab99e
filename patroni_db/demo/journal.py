"""What a client writes down of its work, one JSON object a line, and how that is read while it grows.

A client appends a line before it begins a write and another when it knows the outcome, each with a single
``write`` to a file opened for appending: lines of several threads do not mix, and what was written is there
although the client be killed in the next moment.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Self

from patroni_db.demo.history import Outcome, Read, Write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Journal", "JournalReader", "described"]

_LONGEST_ERROR = 300


def described(error: BaseException) -> str:
    """Return an error in one line: its class, and the first line of its message."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    lines = str(error).strip().splitlines()
    return f"{name}: {lines[0]}"[:_LONGEST_ERROR] if lines else name


class Journal:
    """The client's side. For any number of threads.

    :param path: the file; made when it is not there
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write_began(self, lane: int, reference: str) -> None:
        """Note that a write is about to begin."""
        self._append({"event": "began", "lane": lane, "reference": reference, "at": time.monotonic()})

    def write_acknowledged(self, reference: str, server: str | None, timeline: int) -> None:
        """Note that COMMIT returned.

        :param reference: the write's id
        :param server: the address of the server that stored it, by its own word
        :param timeline: the timeline that server was on, likewise
        """
        at = time.monotonic()
        self._append(
            {"event": "acknowledged", "reference": reference, "at": at, "server": server, "timeline": timeline}
        )

    def write_raised(self, reference: str, error: BaseException) -> None:
        """Note that an error was raised instead."""
        at = time.monotonic()
        self._append({"event": "raised", "reference": reference, "at": at, "error": described(error)})

    def read_answered(self, lane: int, began: float, server: str | None) -> None:
        """Note that a read was answered.

        :param lane: the thread or task
        :param began: when it began
        :param server: the address of the server that answered, by its own word
        """
        self._append({"event": "read", "lane": lane, "began": began, "at": time.monotonic(), "server": server})

    def read_raised(self, lane: int, began: float, error: BaseException) -> None:
        """Note that a read raised an error."""
        at = time.monotonic()
        self._append({"event": "read", "lane": lane, "began": began, "at": at, "error": described(error)})

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    def _append(self, event: Mapping[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(event, separators=(",", ":")).encode() + b"\n")


class JournalReader:
    """The demo's side: what the client has written so far. One thread at a time calls :meth:`poll`.

    :param path: the client's file; it need not be there yet
    :param client: the client's name
    :param nodes: names of the nodes by address
    """

    def __init__(self, path: Path, client: str, nodes: Mapping[str, str]) -> None:
        self._path = path
        self._client = client
        self._nodes = nodes
        self._offset = 0
        self._rest = b""
        self._pending: dict[str, tuple[int, float]] = {}
        self._writes: list[Write] = []
        self._reads: list[Read] = []
        self.successes: dict[int, list[float]] = {}
        """When something succeeded, by lane."""
        self.errors = 0
        """Errors so far."""

    def poll(self) -> None:
        """Read what was added."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return
        self._offset += len(added)
        self.feed(added)

    def feed(self, added: bytes) -> None:
        """Take in what was added; the last line may be incomplete as yet."""
        *lines, self._rest = (self._rest + added).split(b"\n")
        for line in lines:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "began":
                self._pending[event["reference"]] = (event["lane"], event["at"])
            elif event["event"] == "read":
                self._read(event)
            else:
                self._write(event)

    def _read(self, event: Mapping[str, Any]) -> None:
        lane, at, error = event["lane"], event["at"], event.get("error")
        node = None if error else self._node(event["server"])
        self._reads.append(Read(self._client, lane, event["began"], at, node, error))
        self._count(lane, at, error)

    def _write(self, event: Mapping[str, Any]) -> None:
        reference, at, error = event["reference"], event["at"], event.get("error")
        lane, began = self._pending.pop(reference)
        outcome = Outcome.RAISED if error else Outcome.ACKNOWLEDGED
        node = None if error else self._node(event["server"])
        timeline = event.get("timeline")
        self._writes.append(Write(self._client, lane, reference, began, at, outcome, node, timeline, error))
        self._count(lane, at, error)

    def _count(self, lane: int, at: float, error: str | None) -> None:
        if error:
            self.errors += 1
        else:
            self.successes.setdefault(lane, []).append(at)

    def _node(self, server: str | None) -> str:
        return self._nodes.get(server or "", server or "a local socket")

    @property
    def operations(self) -> int:
        """Reads and writes that succeeded so far."""
        return sum(map(len, self.successes.values()))

    def last_errors(self) -> tuple[str, ...]:
        """Return the errors so far, the latest first."""
        operations: list[Read | Write] = [*self._reads, *self._writes]
        return tuple(operation.error for operation in reversed(operations) if operation.error)

    def writes(self) -> tuple[Write, ...]:
        """Return the writes; those without an outcome are unfinished."""
        unfinished = (
            Write(self._client, lane, reference, began, None, Outcome.UNFINISHED)
            for reference, (lane, began) in self._pending.items()
        )
        return (*self._writes, *unfinished)

    def reads(self) -> tuple[Read, ...]:
        """Return the reads."""
        return tuple(self._reads)
