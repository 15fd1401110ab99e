"""A fork and connections that are being made at that moment."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from patroni_db import forking
from patroni_db.forking import no_fork, note_end

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def exit_code_of_a_child() -> int:
    """Fork a child that makes a connection of its own; return how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with no_fork():
                code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_waits_until_a_connection_is_made() -> None:
    begun, made = threading.Event(), threading.Event()

    def make() -> None:
        with no_fork():
            begun.set()
            threading.Event().wait(0.2)
            made.set()

    thread = threading.Thread(target=make)
    thread.start()
    begun.wait()
    assert exit_code_of_a_child() == 0
    assert made.is_set()
    thread.join()


def test_a_connection_that_hangs_does_not_keep_anybody_from_forking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_LONGEST", 0.01)
    begun, end = threading.Event(), threading.Event()

    def hang() -> None:
        with no_fork():
            begun.set()
            end.wait()

    thread = threading.Thread(target=hang)
    thread.start()
    begun.wait()
    assert exit_code_of_a_child() == 0
    end.set()
    thread.join()
    assert exit_code_of_a_child() == 0


def test_connections_are_made_again_after_a_fork() -> None:
    assert exit_code_of_a_child() == 0
    with no_fork():
        pass


def test_a_fork_finds_its_moment_while_connections_are_made_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_LONGEST", 30.0)
    connecting: set[int] = set()
    stop, all_begun = threading.Event(), threading.Barrier(4)

    def connect_again_and_again(number: int) -> None:
        all_begun.wait()
        while not stop.is_set():
            with no_fork():
                connecting.add(number)
                threading.Event().wait(0.01)
                connecting.discard(number)

    threads = [threading.Thread(target=connect_again_and_again, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    all_begun.wait()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(len(connecting))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("says_so", [False, True])
def test_a_fork_waits_until_a_thread_that_made_a_connection_has_ended_for_the_kernel_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says_so: bool
) -> None:
    monkeypatch.setattr(forking, "_THREADS", str(tmp_path))
    monkeypatch.setattr(forking, "_LONGEST", 30.0)
    entry, made, end = tmp_path / "thread", threading.Event(), threading.Event()

    def make() -> None:
        nonlocal entry
        entry = tmp_path / str(threading.get_native_id())
        entry.touch()
        with no_fork():
            pass
        if says_so:
            note_end()
            made.set()
            end.wait()  # what is left of it for Python
        made.set()

    thread = threading.Thread(target=make)
    thread.start()
    made.wait()
    if not says_so:
        thread.join()
    gone = threading.Timer(0.2, entry.unlink)
    gone.start()
    assert exit_code_of_a_child() == 0
    assert not entry.exists()
    end.set()
    thread.join()
    gone.join()
