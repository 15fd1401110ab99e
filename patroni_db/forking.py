"""No fork while a thread of ours holds a lock that nobody can let go of in the child.

The C library holds locks while it resolves a name, OpenSSL while it seeds the random generator that each thread has
(SCRAM takes its nonce from it, so also sessions without TLS do), and Python while it imports a module. A child that
another thread forks in such a moment has these locks as they were, held by a thread that it does not have, and hangs
for ever when it needs one. (Measured: of 3,700 children, forked while three threads connected all the time, each
connection in a new thread, eight hung in OpenSSL's locks within libpq's PQconnectPoll.) So a fork waits until they are
through, and until those of them that end have ended: a thread that goes gives back what OpenSSL keeps for it, under a
lock, when Python has forgotten it already.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["no_fork", "note_end"]

# Seconds for which a fork waits at most: a connection may hang, and does so where no such lock is held.
_LONGEST: Final = 1.0
# Seconds between looks whether a thread has ended.
_LOOKS: Final = 0.0002
# Among so many of the last threads.
_LATEST: Final = 64
# Linux has here a directory for each thread of the process until its end, see proc(5). Elsewhere none is waited for.
_THREADS: Final = "/proc/self/task"


class _Sections:
    """How many threads are where no fork must be.

    A fork that waits goes before those who come after it: else, while some connect all the time, it finds no moment at
    which none does. What the forking thread itself is in goes on in the child.
    """

    def __init__(self) -> None:
        # Reentrant: a signal's handler may fork in a thread that holds it.
        self._changed = threading.Condition(threading.RLock())
        self._inside: Counter[int] = Counter()  # by thread: sections may lie within each other
        self._forking: set[int] = set()
        # Threads that may end at any time, and those that do now: their native ids.
        self._left: deque[int] = deque(maxlen=_LATEST)
        self._ended: deque[int] = deque(maxlen=_LATEST)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        thread = threading.get_ident()
        with self._changed:
            if thread not in self._inside:
                self._changed.wait_for(lambda: not self._forking, _LONGEST)
            self._inside[thread] += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[thread] -= 1
                if not self._inside[thread]:
                    del self._inside[thread]
                    self._left.append(threading.get_native_id())
                self._changed.notify_all()

    def note_end(self) -> None:
        with self._changed:  # not while a process is being forked
            self._ended.append(threading.get_native_id())

    def before_fork(self) -> None:
        self._changed.acquire()
        thread = threading.get_ident()
        self._forking.add(thread)
        self._changed.wait_for(lambda: self._inside.keys() <= {thread}, _LONGEST)
        deadline = time.monotonic() + _LONGEST
        gone: set[int] = set()
        # The last look for threads that end asks nothing of the kernel: a thread could come to its end meanwhile.
        while (ending := self._ending() - gone) and time.monotonic() < deadline:
            gone.update(thread for thread in ending if not os.path.exists(f"{_THREADS}/{thread}"))  # noqa: PTH110
            if not ending <= gone:
                time.sleep(_LOOKS)
        alive = _alive()
        self._left = deque((thread for thread in self._left if thread in alive), _LATEST)
        self._ended.clear()

    def after_fork(self) -> None:
        self._forking.discard(threading.get_ident())
        self._changed.notify_all()
        self._changed.release()

    def _ending(self) -> set[int]:
        """Return the threads that said that they end, and those that were here and Python has done with."""
        return (set(self._left) - _alive()).union(self._ended)


def _alive() -> set[int]:
    """Return the native ids of the threads that Python knows."""
    return {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}


_sections = _Sections()


def no_fork() -> contextlib.AbstractContextManager[None]:
    """Return a context in which blocking calls resolve, connect or import, and no other thread forks."""
    return _sections.one()


def note_end() -> None:
    """Say that the calling thread does nothing more: a fork waits until the kernel has done with it, too."""
    _sections.note_end()


def _before_fork() -> None:
    _sections.before_fork()


def _after_fork_in_parent() -> None:
    _sections.after_fork()


def _after_fork_in_child() -> None:
    """Begin anew: the parent's other threads, and what they were at, do not exist here."""
    global _sections  # noqa: PLW0603 - as says the docstring
    _sections = _Sections()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
