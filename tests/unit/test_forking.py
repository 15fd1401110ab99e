"""A fork and connections that are being made at that moment."""

from __future__ import annotations

import os
import threading

import pytest

from patroni_db import forking
from patroni_db.forking import no_fork

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
