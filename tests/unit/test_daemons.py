"""Who starts a thread is told when none can be started, and the log is, once."""

from __future__ import annotations

import threading

import pytest

from patroni_db.daemons import _Log, start_daemon


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(_Log, "is_told", False)
    return monkeypatch


def test_a_daemon_calls_its_target() -> None:
    called: list[int] = []
    thread = start_daemon("patroni-db test", called.append, 7)
    assert thread is not None
    thread.join(10)
    assert (called, thread.daemon, thread.name) == ([7], True, "patroni-db test")


def test_it_is_told_once_that_none_can_be_started(
    refusal: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert start_daemon("patroni-db test", print) is None
    assert caplog.messages == ["no thread 'patroni-db test': can't start new thread"]
    refusal.undo()
    assert start_daemon("patroni-db test", lambda: None) is not None


def test_the_end_of_the_interpreter_is_no_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert start_daemon("patroni-db test", print) is None
    assert not caplog.messages
