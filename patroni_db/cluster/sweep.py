"""Ending what a killed supervisor left: its servers are nobody's children then, and are found by their folder."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import psutil

from patroni_db.cluster import ipc

__all__ = ["sweep"]

_TIMEOUT = 10.0


def sweep(folder: Path, *, keep: bool) -> None:
    """Kill every process that works in `folder`, then remove the folder and what was left in shared memory.

    :param folder: a cluster's own folder
    :param keep: whether logs and configuration stay
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _TIMEOUT
    while (remaining := _working_in(folder)) and time.monotonic() < deadline:
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed.add(process.pid)
        time.sleep(0.02)
    ipc.remove_segments(killed, folder.glob("n*/data"))
    if keep:
        for data_dir in folder.glob("*/data"):
            shutil.rmtree(data_dir, ignore_errors=True)
        (folder / "control").unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _working_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found
