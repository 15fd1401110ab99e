"""Finding and signalling whole trees of server processes.

A server's processes do not stay below it: Patroni starts the postmaster by a double fork in a session of its
own. What they have in common is the working directory, which is their node's folder or lies in it, and that
all of them are adopted by the supervisor when their parent ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Census", "census", "descendants", "freeze", "is_frozen", "kill", "postmaster", "thaw"]

_Look = Callable[[], list[psutil.Process]]


def descendants(root: Path) -> list[psutil.Process]:
    """Return every process the supervisor is responsible for.

    :param root: the cluster's folder; where orphans are not adopted (macOS), they are found by it
    """
    me = psutil.Process()
    found = me.children(recursive=True)
    if sys.platform != "linux":
        uid = os.getuid()
        known = {process.pid for process in found} | {me.pid}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid not in known and process.uids().real == uid and _works_in(process, root):
                    found.append(process)
    return found


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):
        return False


@dataclass(frozen=True, slots=True)
class Census:
    """The cluster's live processes at one moment.

    :param processes: all of them
    :param parents: process id of each one's parent
    :param folders: working directory of each one, where it could be seen
    """

    processes: tuple[psutil.Process, ...]
    parents: Mapping[int, int]
    folders: Mapping[int, Path]

    def of(self, folder: Path, main: int | None) -> list[psutil.Process]:
        """Return the processes of one server.

        :param folder: the server's folder
        :param main: process id of the program that was started
        """
        chosen = {pid for pid, cwd in self.folders.items() if cwd.is_relative_to(folder)}
        if main is not None:
            chosen.add(main)
        while below := {pid for pid, parent in self.parents.items() if parent in chosen} - chosen:
            chosen |= below
        return [process for process in self.processes if process.pid in chosen]


def census(root: Path) -> Census:
    """Look at every live process of the cluster.

    :param root: the cluster's folder
    """
    live: list[psutil.Process] = []
    parents: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for process in descendants(root):
        with contextlib.suppress(psutil.Error, OSError), process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            live.append(process)
            parents[process.pid] = process.ppid()
            folders[process.pid] = Path(process.cwd())
    return Census(tuple(live), parents, folders)


def is_frozen(process: psutil.Process) -> bool:
    """Tell whether the process is stopped by a signal."""
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def postmaster(data_dir: Path, processes: Iterable[psutil.Process]) -> psutil.Process | None:
    """Return the postmaster of `data_dir` among `processes`, or None when PostgreSQL is not running there."""
    try:
        pid = int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    # The file outlives a killed server, and the number may have been given away: it must be one of ours.
    return next((process for process in processes if process.pid == abs(pid)), None)


def _until_settled(look: _Look) -> Iterator[psutil.Process]:
    """Yield every process that `look` finds, until it finds no new one: a tree may grow while it is walked."""
    seen: set[psutil.Process] = set()
    while fresh := [process for process in look() if process not in seen]:
        seen.update(fresh)
        yield from fresh


def freeze(look: _Look) -> int:
    """Stop (SIGSTOP) everything `look` finds; return how many processes."""
    count = 0
    for process in _until_settled(look):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            count += 1
    return count


def thaw(look: _Look) -> int:
    """Continue (SIGCONT) everything `look` finds; return how many processes."""
    count = 0
    for process in look():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
            count += 1
    return count


def kill(look: _Look) -> int:
    """Kill everything `look` finds at one blow, like a power cut: stopped first, so that none can react.

    :returns: how many processes; they may still be zombies, which only their parent can bury
    """
    frozen: set[psutil.Process] = set()
    for process in _until_settled(look):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            frozen.add(process)
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return len(frozen)
