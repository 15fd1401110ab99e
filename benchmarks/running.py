"""The clients' processes, as those who watch them see them."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any, Self

from benchmarks.children import BenchmarkError, Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.catalogue import ClientKind
    from benchmarks.sites import Site

__all__ = ["RunningClient", "check_all", "stop_all", "wait_until"]

_POLL = 0.1
_STOP_TIMEOUT = 20.0


class RunningClient:
    """A client's process.

    :param kind: which
    :param site: the cluster
    :param folder: for its log and its history
    :param verbose: whether it logs all that it does
    """

    def __init__(self, kind: ClientKind, site: Site, folder: Path, *, verbose: bool) -> None:
        self.kind = kind
        self.oldest_success = 0.0
        self._history = folder / f"{kind.name}.json"
        wish = {
            "client": dataclasses.asdict(kind),
            "site": dataclasses.asdict(site),
            "history": str(self._history),
            "verbose": verbose,
        }
        self.child = Child("client", wish, folder / f"{kind.name}.log", self._heard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.child.__exit__(*exc_info)

    def _heard(self, oldest_success: float) -> None:
        self.oldest_success = oldest_success

    def history(self) -> dict[str, Any]:
        """Return what it wrote down: `writes` and `attempts`, as ``benchmarks.client`` has them. It has ended."""
        history: dict[str, Any] = json.loads(self._history.read_text(encoding="utf-8"))
        return history


def wait_until(done: Callable[[], bool] | None, running: Sequence[RunningClient], timeout: float, what: str) -> None:
    """Wait until it is `done`, or for the whole `timeout`; a client that ends meanwhile is the end of all.

    :param what: what is waited for, for the message
    :raises BenchmarkError: it was not done in time, or a client has ended
    """
    for _ in _ticks(timeout):
        check_all(running)
        if done is not None and done():
            return
    if done is not None:
        late = [client for client in running if client.oldest_success == 0]
        said = [f"{client.kind.name}: {client.child.said()}" for client in late]
        raise BenchmarkError("\n".join([f"waited {timeout:g} s in vain for {what}", *said]))


def _ticks(timeout: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        yield
        time.sleep(_POLL)


def check_all(running: Sequence[RunningClient]) -> None:
    """Make sure that all of them run.

    :raises BenchmarkError: when one has ended
    """
    for client in running:
        client.child.check()


def stop_all(running: Sequence[RunningClient]) -> None:
    """Stop them, all at the same time, and wait for their ends.

    :raises BenchmarkError: when one did not end well
    """
    for client in running:
        client.child.tell_to_stop()
    for client in running:
        client.child.end(time.monotonic() + _STOP_TIMEOUT)
