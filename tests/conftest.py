"""What all suites share: their order, a folder for temporary files, and the proof that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

TESTS = Path(__file__).parent

# Quick ones first, faults of the shared cluster last.
ORDER = ("unit", "spec", "django", "sqlalchemy", "integration")

# Seconds in which processes and threads that were told to end must have done so.
PATIENCE = 20.0

# Not ours: the standard library keeps it for as long as the process lives.
_KEPT = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def pytest_configure() -> None:
    """Let ``kill`` and a closed terminal end the session as Ctrl-C does: in order, with every fixture undone."""
    owner = os.getpid()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            signal.default_int_handler(signum, frame)
        signal.signal(signum, signal.SIG_DFL)  # a forked child ends as it would have anywhere else
        os.kill(os.getpid(), signum)

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell leaves it to what it starts in the background. Programs under test would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, interrupt)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Run the suites in their order, whichever way they were named on the command line.

    Several workers (pytest-xdist) have a cluster each; with ``--dist worksteal`` each begins with a piece of this
    order, so that neighbours share what their module sets up, and takes over from the others when it is done.
    """

    def rank(item: pytest.Item) -> int:
        suite = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        return ORDER.index(suite) if suite in ORDER else len(ORDER)

    yield
    items.sort(key=rank)  # after pytest-django has put its own order


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the session when, after its last fixture, a server, a thread of ours or a temporary file is left.

    Temporary files of the tests and of the servers they start go into a folder of this session's own, by which
    also servers are found that nobody is the parent of any more.
    """
    before = os.environ.get("TMPDIR")
    folder = Path(tempfile.mkdtemp(prefix="pdb-")).resolve()
    # Like /tmp: servers that a test starts as root run as another user. Short: a socket's path ends at 107 bytes.
    folder.chmod(0o1777)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    try:
        yield
        for item in request.session.items:
            # pytest keeps the last test's fixtures to the very end: an engine among them would keep its threads.
            (getattr(item, "funcargs", None) or {}).clear()
        processes = _until_none(lambda: _processes(folder))
        threads = _until_none(_threads)
        files = _until_none(lambda: _clusters_files(folder))
        assert not processes, f"left running: {processes}"
        assert not threads, f"threads left: {threads}"
        assert not files, f"left on disk: {files}"
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _until_none(look: Callable[[], list[str]]) -> list[str]:
    """Return what `look` still finds when patience is at its end, at best nothing."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _processes(folder: Path) -> list[str]:
    """Return the processes that descend from this one or work in the session's folder."""
    try:
        import psutil  # not there where only the core is tested, and then no server was started
    except ImportError:
        return []
    me = psutil.Process()
    suspects = {process.pid: process for process in me.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != me.pid and f"{process.cwd()}/".startswith(f"{folder}/"):
                suspects[process.pid] = process
    found = []
    for process in suspects.values():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and not any(kept in command for kept in _KEPT):
                found.append(f"{process.pid} {command}")
    return found


def _threads() -> list[str]:
    """Return the library's threads: they end with the last user of what they serve."""
    gc.collect()
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("patroni-db")]


def _clusters_files(folder: Path) -> list[str]:
    """Return the folders of clusters that should have removed them; the names of clusters are kept in a shared one."""
    return [str(path) for path in folder.glob("patroni-db-*") if "names" not in path.name or any(path.iterdir())]
