"""System V shared memory that killed PostgreSQL servers leave behind.

Besides its real shared memory a postmaster holds one tiny System V segment, its interlock. A postmaster that
is killed cannot remove it, and it would stay until the machine restarts.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

__all__ = ["remove_segments", "segments_of"]

_IPC_RMID = 0
_TABLE = Path("/proc/sysvipc/shm")


def segments_of(table: str, creators: AbstractSet[int]) -> tuple[int, ...]:
    """Return the ids of the unused segments that the processes `creators` made.

    :param table: text of Linux' ``/proc/sysvipc/shm``
    """
    lines = table.splitlines()
    if not lines:
        return ()
    header = lines[0].split()
    shmid, cpid, nattch = (header.index(name) for name in ("shmid", "cpid", "nattch"))
    rows = (line.split() for line in lines[1:])
    return tuple(int(row[shmid]) for row in rows if int(row[cpid]) in creators and int(row[nattch]) == 0)


def _from_pid_files(data_dirs: Iterable[Path]) -> set[int]:
    found = set()
    for data_dir in data_dirs:
        try:
            # Line 7 of postmaster.pid is "key id" of the segment.
            found.add(int((data_dir / "postmaster.pid").read_text().splitlines()[6].split()[1]))
        except (OSError, IndexError, ValueError):
            continue
    return found


def remove_segments(creators: AbstractSet[int], data_dirs: Iterable[Path]) -> None:
    """Remove the segments of postmasters that are gone.

    :param creators: process ids of all the processes that have ended
    :param data_dirs: data directories, whose pid files name segments too
    """
    ids: set[int]
    try:
        ids = set(segments_of(_TABLE.read_text(), creators))
    except OSError:
        ids = _from_pid_files(data_dirs)
    if ids:
        libc = ctypes.CDLL(None, use_errno=True)
        for shmid in ids:
            libc.shmctl(shmid, _IPC_RMID, None)
