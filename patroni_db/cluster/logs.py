"""The logs of a local cluster: their last lines, and what is added to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from patroni_db.cluster.local import LocalCluster

__all__ = ["LogFile", "chosen_logs", "logs_of"]

_CHUNK: Final = 1 << 16


class LogFile:
    """A text file that a server appends to; it may not exist yet.

    :param path: the file
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._pending = b""

    def last(self, count: int) -> list[str]:
        """Return the last `count` whole lines; :meth:`fresh` goes on after them."""
        try:
            with self._path.open("rb") as file:
                start = position = file.seek(0, 2)
                tail = b""
                # One line feed more than lines: what stands before the first of them may be half a line.
                while start and tail.count(b"\n") <= count:
                    start = max(0, start - _CHUNK)
                    file.seek(start)
                    tail = file.read(position - start)
        except FileNotFoundError:
            return []
        *lines, self._pending = tail.split(b"\n")
        self._position = position
        return [_text(line) for line in lines[-count:]] if count else []

    def fresh(self) -> list[str]:
        """Return the whole lines that were added since the last call."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._position:  # begun anew
                    self._position, self._pending = 0, b""
                file.seek(self._position)
                added = file.read()
        except FileNotFoundError:
            return []
        self._position += len(added)
        *lines, self._pending = (self._pending + added).split(b"\n")
        return [_text(line) for line in lines]


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r").expandtabs()


def logs_of(cluster: LocalCluster) -> dict[str, Path]:
    """Return every log of a running cluster by its name: ``etcd``, ``n1/patroni``, ``n1/postgres`` and so on.

    :raises ClusterError: the cluster is not running
    """
    logs = {"etcd": cluster.directory / "etcd.log"}
    for node in cluster.nodes:
        logs |= {f"{node.name}/patroni": node.patroni_log, f"{node.name}/postgres": node.postgres_log}
    return logs


def chosen_logs(logs: Mapping[str, Path], wanted: tuple[str, ...]) -> dict[str, Path]:
    """Return those of `logs` that `wanted` names: whole names, a node (``n1``) or a program (``postgres``).

    :param wanted: nothing means all
    :raises ClusterError: a name means none of them
    """
    for name in wanted:
        if not any(name in {log, *log.split("/")} for log in logs):
            raise ClusterError(f"there is no log {name!r} (logs: {', '.join(logs)})")
    return {log: path for log, path in logs.items() if not wanted or {log, *log.split("/")} & set(wanted)}
