"""No thread can be started for a while, or ever: what waits for one is done in place, and nothing stays blind."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from patroni_db.acquisition import Attempt, acquire, acquire_async
from patroni_db.bounded import call_within
from patroni_db.cli.view import ask_members
from patroni_db.client import NodeStatus, PatroniClient
from patroni_db.config import PatroniConfig
from patroni_db.errors import DiscoveryError, NoPrimaryError
from patroni_db.network import AddressBook
from patroni_db.push import LeaderPush, Stop
from patroni_db.suspects import Suspects
from patroni_db.topology import Address, parse_cluster
from tests.spec.replay import Answers, Clock, discovery_of, members, route_of, wait_for_flights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.discovery import Discovery

CALM = "n1:leader/running/tl1 n2:replica/streaming/tl1 n3:replica/streaming/tl1"
NOBODY = "n1:replica/stopped/tlNone n2:replica/streaming/tl1 n3:replica/streaming/tl1"
MOVED = "n1:replica/streaming/tl2 n2:leader/running/tl2 n3:replica/streaming/tl2"
EVERY = ("watcher", "look", "suspicion", "push", "connect")


class Limit:
    """The limit of a container: threads whose names begin so do not start."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.refused: list[str] = []

    def reached(self, *kinds: str) -> None:
        self.names = {f"patroni-db {kind}" for kind in kinds} | {"asyncio"}

    def lifted(self) -> None:
        self.names = set()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    one, start = Limit(), threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith(tuple(one.names)):
            one.refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return one


class Stage:
    """A discovery with the real clock, and the answers it gets."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.everywhere(CALM)
        self.discovery = self.discover()

    def discover(self, **settings: Any) -> Discovery:
        return discovery_of(self.answers, time.monotonic, refresh=0.05, **settings)  # type: ignore[arg-type]

    def everywhere(self, text: str) -> None:
        self.answers.set({name: members(text) for name in ("n1", "n2", "n3")})

    def led_by(self, name: str) -> bool:
        found = self.discovery.wait_for(lambda t: t if t.leader is not None and t.leader.name == name else None, 10)
        return found is not None


@pytest.fixture
def stage() -> Iterator[Stage]:
    one = Stage()
    yield one
    one.discovery.close()
    wait_for_flights()


def test_the_first_use_works_and_so_do_later_ones(stage: Stage, limit: Limit) -> None:
    limit.reached(*EVERY)
    assert stage.discovery.topology(10).leader is not None
    stage.everywhere(MOVED)
    assert stage.led_by("n2")
    limit.lifted()
    stage.everywhere(CALM.replace("tl1", "tl3"))
    assert stage.led_by("n1")
    assert any(thread.name == "patroni-db watcher" for thread in threading.enumerate())


@pytest.mark.parametrize("kinds", [("look",), ("watcher", "look"), EVERY])
def test_an_alarm_at_the_limit_sees_the_new_leader_and_so_does_a_later_one(
    stage: Stage, limit: Limit, kinds: tuple[str, ...]
) -> None:
    assert stage.led_by("n1")
    limit.reached(*kinds)
    stage.everywhere(NOBODY)
    stage.discovery.invalidate("n1", Address("n1", 5432))
    assert stage.discovery.wait_for(lambda t: True if t.leader is None else None, 10)
    assert limit.refused
    stage.everywhere(MOVED)
    assert stage.led_by("n2")
    limit.lifted()
    stage.everywhere(CALM.replace("tl1", "tl3"))
    assert stage.led_by("n1")


def test_a_connection_is_made_without_any_thread(stage: Stage, limit: Limit) -> None:
    limit.reached(*EVERY)
    connections: list[int] = []

    class Connection:
        def close(self) -> None:
            """Nothing is open."""

    Connection.__module__ = "psycopg"

    def connect(attempt: Attempt) -> Connection:
        connections.append(threading.get_ident())
        raise ConnectionRefusedError("refused")

    config = stage.discovery.config.replace(failover_timeout=0.3)
    with pytest.raises(NoPrimaryError, match="refused"):
        acquire(stage.discovery, config, connect)
    assert set(connections) == {threading.get_ident()}


def test_a_coroutine_connects_without_any_thread(stage: Stage, limit: Limit) -> None:
    limit.reached(*EVERY)

    async def connect(attempt: Attempt) -> psycopg.AsyncConnection[Any]:
        raise psycopg.OperationalError("refused, or is it?")  # libpq does not say: the server is asked

    config = stage.discovery.config.replace(failover_timeout=0.3)
    with pytest.raises(NoPrimaryError, match="or is it"):
        asyncio.run(acquire_async(stage.discovery, config, connect))
    assert any(name.startswith("asyncio") for name in limit.refused)


def test_a_call_is_made_in_place_and_keeps_its_result_its_error_and_its_context(limit: Limit) -> None:
    limit.reached("connect")
    assert call_within(1, threading.get_ident, lambda _: None) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        call_within(1, lambda: 1 / 0, lambda _: None)


def test_a_server_that_could_not_be_asked_whether_it_hangs_is_asked_later(limit: Limit) -> None:
    asked = threading.Event()

    class Owner:
        def silence_changed(self) -> None: ...
        def is_hung(self, name: str) -> None: ...
        def has_member(self, name: str) -> bool:
            return True

    def asks(_: Address) -> bool:
        asked.set()
        return False

    owner = Owner()
    suspects = Suspects(owner, asks, Clock())
    limit.reached("suspicion")
    suspects.suspect("n1", Address("n1", 5432), times=1)
    assert not asked.is_set()
    limit.lifted()
    suspects.suspect("n1", Address("n1", 5432), times=1)
    assert asked.wait(10)


def test_a_push_that_could_not_be_started_is_started_at_a_later_look(stage: Stage, limit: Limit) -> None:
    runs = threading.Event()

    class Bus:
        def run(self, changed: Callable[[str | None], None], stop: Stop) -> None:
            runs.set()
            stop.wait(60)

    limit.reached("push")
    push = LeaderPush(stage.discovery, Bus())
    assert not push.start()
    limit.lifted()
    assert push.start()
    assert runs.wait(10)
    push.stop()
    limit.reached("push")
    etcd = stage.discover(etcd="http://127.0.0.1:9", scope="lab")
    try:
        etcd.topology(10)
        etcd.wait_for_look(10)
        assert "patroni-db push" in limit.refused
        limit.lifted()
        etcd.wait_for_look(10)
        etcd.wait_for_look(10)
        assert any(thread.name == "patroni-db push" for thread in threading.enumerate())
    finally:
        etcd.close()


class Bug(Answers):
    """A client with a fault of its own, for a while."""

    error: Exception | None = None

    def cluster(self, base_url: str) -> Any:
        if self.error is not None:
            raise self.error
        return super().cluster(base_url)


@pytest.mark.parametrize("error", [AttributeError("read1"), MemoryError(), OSError(24, "Too many files")], ids=repr)
def test_anything_unexpected_is_the_failure_that_users_see_and_the_next_look_happens(error: Exception) -> None:
    answers = Bug()
    answers.set({name: members(CALM) for name in ("n1", "n2", "n3")})
    clock = Clock()
    discovery = discovery_of(answers, clock)
    answers.error = error
    discovery.look()
    wait_for_flights()
    assert isinstance(discovery.failure, DiscoveryError)
    assert type(error).__name__ in str(discovery.failure)
    answers.error = None
    clock.now += 1
    discovery.look()
    wait_for_flights()
    discovery.look()
    assert route_of(discovery).primary == "n1"
    assert discovery.failure is None
    answers.error = error
    clock.now += 60
    discovery.look()
    wait_for_flights()
    discovery.look()
    wait_for_flights()
    assert type(error).__name__ in str(discovery.failure)
    assert route_of(discovery).primary == "n1"


@pytest.mark.parametrize("alarmed", [True, False])
def test_a_fault_in_taking_an_answer_is_the_failure_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, alarmed: bool
) -> None:
    assert stage.led_by("n1")

    def fail(_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(stage.discovery, "_publish", fail)
    if alarmed:
        stage.discovery.hint()
    stage.discovery.wait_for_look(10)
    stage.discovery.wait_for_look(10)
    assert "ZeroDivisionError: a bug" in str(stage.discovery.failure)
    monkeypatch.undo()
    stage.discovery.wait_for_look(10)
    stage.discovery.wait_for_look(10)
    assert stage.discovery.failure is None


def test_the_members_are_asked_one_by_one_for_the_command_line(limit: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    limit.reached("ask")
    config = PatroniConfig(urls="http://n1:8008", timeout=1)
    asked: list[str] = []

    def node(_: PatroniClient, url: str) -> NodeStatus:
        asked.append(url)
        return NodeStatus("replica", "running", 1, None)

    monkeypatch.setattr(PatroniClient, "node", node)
    topology = parse_cluster(json.dumps(members(CALM)))
    assert set(ask_members(config, AddressBook(), topology)) == {"n1", "n2", "n3"}
    assert set(asked) == {f"http://{name}:8008" for name in ("n1", "n2", "n3")}


def test_a_fault_of_the_look_itself_is_the_failure_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(stage.discovery, "_look_everywhere", fail)
    with pytest.raises(DiscoveryError, match="looking failed: ZeroDivisionError: a bug"):
        stage.discovery.topology(10)
    monkeypatch.undo()
    assert stage.led_by("n1")
