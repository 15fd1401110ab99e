"""What is going on now: written by the course of the demo, read by the screens."""

from __future__ import annotations

import bisect
import contextlib
import enum
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patroni_db.demo.clients import ClientSpec
    from patroni_db.demo.journal import JournalReader
    from patroni_db.demo.oracle import LeaderWatch, Oracle

__all__ = ["ClientView", "Stage", "Step", "StepState"]

_POLL = 0.1


class StepState(enum.Enum):
    """How far a step is."""

    TO_COME = "to come"
    UNDER_WAY = "under way"
    DONE = "done"


@dataclass(slots=True)
class Step:
    """One step of the demo.

    :param title: what it does
    :param note: its latest news
    :param state: how far it is
    :param began: when it began
    :param ended: when it was done
    """

    title: str
    note: str = ""
    state: StepState = StepState.TO_COME
    began: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class ClientView:
    """A client, as it is seen at work.

    :param spec: which
    :param reader: what it has written down
    """

    spec: ClientSpec
    reader: JournalReader

    def pulse(self, now: float, cells: int, width: float) -> list[int]:
        """Return successes in each of the last `cells` spans of `width` seconds, the oldest first.

        Spans before the first success of all are left out.
        """
        first = min((times[0] for times in self._lanes() if times), default=now)
        cells = min(cells, int((now - first) / width) + 1)
        counts = [0] * cells
        for times in self._lanes():
            for time_ in times[bisect.bisect(times, now - cells * width) :]:
                index = cells - 1 - int((now - time_) / width)
                if 0 <= index < cells:
                    counts[index] += 1
        return counts

    def waiting(self, now: float) -> float:
        """Return for how many seconds the lane that waits longest has had no success."""
        latest = [times[-1] for times in self._lanes() if times]
        return now - min(latest) if latest else 0.0

    def is_at_work(self, since: float) -> bool:
        """Return whether every lane has had a success since then."""
        lanes = self._lanes()
        return len(lanes) == self.spec.lanes and all(times and times[-1] > since for times in lanes)

    def _lanes(self) -> list[list[float]]:
        return list(self.reader.successes.values())


@dataclass(slots=True)
class Stage:
    """Everything a screen may show.

    :param steps: all steps, in their order
    :param began: when the demo began
    """

    steps: Sequence[Step]
    began: float = field(default_factory=time.monotonic)
    clients: tuple[ClientView, ...] = ()
    oracle: Oracle | None = None
    watch: LeaderWatch | None = None

    @contextlib.contextmanager
    def polling(self) -> Iterator[None]:
        """Follow the clients' journals in a thread of its own; at the end they have been read to their end."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.is_set():
                self._poll()
                stop.wait(_POLL)

        thread = threading.Thread(target=follow, name="journals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        self._poll()

    def _poll(self) -> None:
        for client in self.clients:
            client.reader.poll()
