"""What somebody who needs a connection does, step by step, with a clock that stands still unless told."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from patroni_db.acquisition import Acquisition, Attempt, Pause
from patroni_db.client import NodeStatus
from patroni_db.config import PatroniConfig
from patroni_db.discovery import Discovery
from patroni_db.errors import DiscoveryError, NoPrimaryError, NoReplicaError
from patroni_db.watcher import Watcher
from tests.spec.replay import SEEDS, Answers, Clock, members, wait_for_flights

CALM = "n1:leader/running/tl1 n2:replica/streaming/tl1 n3:replica/streaming/tl1"
NOBODY = "n1:replica/stopped/tlNone n2:replica/running/tl1 n3:replica/running/tl1"
MOVED = "n2:leader/running/tl1 n3:replica/running/tl1"


class StillWatcher(Watcher):
    """Looks only when a test says so."""

    def start(self) -> bool:
        return True

    def keep(self) -> float:
        return math.inf


class StillDiscovery(Discovery):
    def _start_clean(self) -> None:
        super()._start_clean()
        self._watcher = StillWatcher(self, "never started")


class Stage:
    def __init__(self, text: str | None = CALM) -> None:
        self.answers, self.clock = Answers(), Clock()
        self.silent: set[str] = set()
        config = PatroniConfig(urls=SEEDS)
        self.discovery = StillDiscovery(
            config,
            clock=self.clock,
            rng=random.Random(1),
            client=lambda _: self.answers,  # type: ignore[arg-type, return-value]
            asks=lambda _: False,
        )
        if text is not None:
            self.look(text)

    def look(self, text: str, after: float = 1.0) -> None:
        self.clock.now += after
        said = {name: "connection refused" if name in self.silent else members(text) for name in ("n1", "n2", "n3")}
        self.answers.set(said)
        self.discovery.look()
        wait_for_flights()

    def seek(self, **settings: Any) -> Acquisition:
        return Acquisition(self.discovery, PatroniConfig(**{"urls": SEEDS, "failover_timeout": 10, **settings}))


def attempt(search: Acquisition) -> Attempt:
    step = search.step()
    assert isinstance(step, Attempt), "expected an attempt, not a pause"
    return step


def pause(search: Acquisition) -> Pause:
    step = search.step()
    assert isinstance(step, Pause), "expected a pause, not an attempt"
    return step


def refuse(search: Acquisition, one: Attempt) -> None:
    search.failed(one, ConnectionRefusedError("refused"), refused=False)


def test_the_primary_is_tried_at_once_and_its_connection_is_stamped() -> None:
    stage = Stage()
    search = stage.seek()
    one = attempt(search)
    stamp = search.succeeded(one)
    assert (one.address.host, stamp and stamp.member, stamp and stamp.generation) == ("n1", "n1", 1)


def test_after_a_failure_nobody_tries_again_before_the_next_look() -> None:
    stage = Stage()
    search = stage.seek()
    refuse(search, attempt(search))
    waiting = pause(search)
    assert not waiting.waiter.woken
    stage.look(CALM)
    assert waiting.waiter.woken
    assert attempt(search).address.host == "n1"


def test_one_probes_and_the_others_sleep_until_the_primary_is_proved() -> None:
    stage = Stage()
    prober, others = stage.seek(), [stage.seek() for _ in range(50)]
    one = attempt(prober)
    sleeping = [pause(other) for other in others]
    stage.look(NOBODY)
    stage.look(CALM)
    assert not any(step.waiter.woken for step in sleeping)
    prober.succeeded(one)
    assert all(step.waiter.woken for step in sleeping)
    assert {attempt(other).address.host for other in others} == {"n1"}


def test_when_the_prober_gives_up_one_other_takes_over() -> None:
    stage = Stage()
    prober, others = stage.seek(), [stage.seek() for _ in range(3)]
    attempt(prober)
    sleeping = [pause(other) for other in others]
    prober.end()
    assert [step.waiter.woken for step in sleeping] == [True, False, False]
    assert attempt(others[0]).address.host == "n1"


def test_without_a_leader_it_waits_and_then_follows_the_new_one() -> None:
    stage = Stage()
    search = stage.seek()
    refuse(search, attempt(search))
    pause(search)
    stage.look(NOBODY)
    pause(search)
    stage.look(MOVED)
    assert attempt(search).address.host == "n2"


def test_a_connection_made_while_routing_moved_away_is_not_used() -> None:
    stage = Stage()
    search = stage.seek()
    one = attempt(search)
    stage.look(MOVED)
    assert search.succeeded(one) is None


def test_a_connection_made_while_something_else_moved_is_used_under_the_new_generation() -> None:
    stage = Stage()
    search = stage.seek()
    one = attempt(search)
    stage.look(CALM.replace(" n3:replica/streaming/tl1", ""))
    stamp = search.succeeded(one)
    assert stamp is not None
    assert stamp.generation == 2


def test_past_the_deadline_the_error_tells_what_was_tried_and_why_it_failed() -> None:
    stage = Stage()
    search = stage.seek()
    refuse(search, attempt(search))
    pause(search)
    stage.clock.now += 11
    with pytest.raises(
        NoPrimaryError, match=r"no primary of cluster lab within 10 s .*last tried n1 at n1:5432: refused"
    ) as caught:
        search.step()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_past_the_deadline_without_a_leader_the_error_shows_the_members() -> None:
    stage = Stage(NOBODY)
    search = stage.seek()
    pause(search)
    stage.clock.now += 11
    with pytest.raises(NoPrimaryError, match=r"Patroni names none \(n1: replica stopped, n2: replica running"):
        search.step()


def test_a_timeout_of_zero_tries_once_and_does_not_wait() -> None:
    stage = Stage()
    search = stage.seek(failover_timeout=0)
    refuse(search, attempt(search))
    with pytest.raises(NoPrimaryError, match="within 0 s"):
        search.step()


def test_every_replica_is_tried_before_waiting() -> None:
    stage = Stage()
    search = stage.seek(target="replica")
    tried = []
    for _ in range(2):
        one = attempt(search)
        tried.append(one.address.host)
        refuse(search, one)
    assert sorted(tried) == ["n2", "n3"]
    pause(search)
    stage.clock.now += 11
    with pytest.raises(NoReplicaError):
        search.step()


def test_a_failed_replica_is_tried_last_by_the_next_reader() -> None:
    stage = Stage()
    first = stage.seek(target="replica")
    one = attempt(first)
    refuse(first, one)
    for _ in range(10):
        assert attempt(stage.seek(target="replica")).address != one.address


def test_readers_do_not_wait_for_a_primary() -> None:
    stage = Stage(NOBODY)
    assert attempt(stage.seek(target="replica_preferred")).address.host in {"n2", "n3"}


def test_a_login_refused_twice_by_a_living_server_is_the_drivers_own_error() -> None:
    stage = Stage()
    search = stage.seek()
    error = RuntimeError("password authentication failed")
    search.failed(attempt(search), error, refused=True)
    search.failed(attempt(search), error, refused=True)
    with pytest.raises(RuntimeError, match="password") as caught:
        search.step()
    assert caught.value is error


def test_a_refusal_by_a_server_that_came_up_a_moment_ago_is_forgotten_when_it_lets_us_in() -> None:
    stage = Stage()
    search = stage.seek()
    search.failed(attempt(search), RuntimeError("starting up"), refused=True)
    assert search.succeeded(attempt(search)) is not None


@pytest.mark.parametrize("state", [None, "08P01"])
def test_a_pooler_that_refuses_us_may_only_miss_its_server(state: str | None, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    search = stage.seek(port=6432)
    error = PermissionError("server login has been failing")
    error.sqlstate = state  # type: ignore[attr-defined]
    for _ in range(5):
        search.failed(attempt(search), error, refused=True)
        pause(search)
        stage.look(CALM)
    assert caplog.text.count("the pooler beside n1 refuses us: server login has been failing") == 1
    assert search.succeeded(attempt(search)) is not None


def test_what_no_pooler_would_say_is_believed_through_one_too() -> None:
    stage = Stage()
    search = stage.seek(port=6432)
    error = PermissionError("password authentication failed")
    error.sqlstate = "28P01"  # type: ignore[attr-defined]
    search.failed(attempt(search), error, refused=True)
    search.failed(attempt(search), error, refused=True)
    with pytest.raises(PermissionError, match="password authentication failed"):
        search.step()


def test_a_cold_start_waits_for_the_first_look() -> None:
    stage = Stage(None)
    search = stage.seek()
    waiting = pause(search)
    stage.look(CALM)
    assert waiting.waiter.woken
    assert attempt(search).address.host == "n1"


def test_a_cold_start_with_all_apis_down_waits_until_the_deadline_and_names_them() -> None:
    stage = Stage(None)
    stage.discovery.look()
    search = stage.seek()
    pause(search)
    stage.clock.now += 11
    with pytest.raises(NoPrimaryError, match="http://n1:8008: connection refused; http://n2:8008"):
        search.step()


def test_a_cold_start_with_wrong_urls_fails_at_once() -> None:
    class NotPatroni(Answers):
        def cluster(self, base_url: str) -> Any:
            raise DiscoveryError(base_url, "the body is not JSON")

    stage = Stage(None)
    stage.answers = NotPatroni()
    stage.discovery = StillDiscovery(PatroniConfig(urls=SEEDS), client=lambda _: stage.answers, asks=lambda _: False)  # type: ignore[arg-type, return-value]
    stage.discovery.look()
    with pytest.raises(DiscoveryError, match="the body is not JSON"):
        stage.seek().step()


def test_fallback_hosts_are_tried_while_no_api_ever_answered_and_not_afterwards() -> None:
    stage = Stage(None)
    stage.discovery.look()
    search = stage.seek(fallback_hosts="f1:5432,f2:5432")
    first, second = attempt(search), attempt(search)
    assert {first.address.host, second.address.host} == {"f1", "f2"}
    refuse(search, first)
    refuse(search, second)
    pause(search)
    stage.look(CALM)
    assert attempt(search).address.host == "n1"


def test_an_attempt_may_not_take_longer_than_is_left() -> None:
    stage = Stage()
    assert attempt(stage.seek(failover_timeout=60)).timeout == 2.0
    assert attempt(stage.seek(failover_timeout=0.5, target="replica")).timeout == 0.5


def attempts_within(stage: Stage, search: Acquisition, seconds: float, look: str | None = CALM) -> int:
    """Count the attempts of somebody who is refused each time, and woken by a look every 0.1 s."""
    count, end = 0, stage.clock.now + seconds
    while stage.clock.now < end:
        step = search.step()
        if isinstance(step, Attempt):
            count += 1
            refuse(search, step)
            continue
        step.waiter.cancel()
        if look is not None:
            stage.look(look, after=min(step.timeout, 0.1))
    return count


def test_a_primary_that_is_silent_with_its_patroni_is_tried_once_a_second() -> None:
    stage = Stage()
    stage.silent = {"n1"}
    assert attempts_within(stage, stage.seek(failover_timeout=60), 20) <= 22


def test_a_primary_that_restarts_is_tried_with_every_look() -> None:
    stage = Stage()
    stage.answers.nodes["http://n1:8008"] = NodeStatus("primary", "starting", 1, None)
    search = stage.seek(failover_timeout=60)
    assert 40 <= attempts_within(stage, search, 5) <= 60
    stage.answers.nodes["http://n1:8008"] = NodeStatus("primary", "running", 1, None)
    stage.look(CALM, after=0.1)
    assert attempt(search).address.host == "n1", "at once"


def test_a_primary_that_runs_and_is_not_reached_all_the_same_is_tried_less_and_less() -> None:
    stage = Stage()
    stage.answers.nodes["http://n1:8008"] = NodeStatus("primary", "running", 1, None)
    search = stage.seek(failover_timeout=60)
    assert attempts_within(stage, search, 20) <= 90


def test_a_primary_that_was_silent_is_tried_at_once_when_its_patroni_says_it_runs() -> None:
    stage = Stage()
    stage.silent = {"n1"}
    search = stage.seek(failover_timeout=60)
    attempts_within(stage, search, 5.3)
    stage.silent = set()
    stage.answers.nodes["http://n1:8008"] = NodeStatus("primary", "running", 1, None)
    pause(search)
    stage.look(CALM, after=0.06)
    assert attempt(search).address.host == "n1"


def test_readers_without_any_replica_that_answers_slow_down() -> None:
    stage = Stage()
    assert attempts_within(stage, stage.seek(target="replica", failover_timeout=60), 10) <= 2 * 16


def test_readers_try_at_once_what_routing_offers_anew() -> None:
    stage = Stage()
    search = stage.seek(target="replica", failover_timeout=60)
    attempts_within(stage, search, 3)  # nobody's quarantine has ended yet
    pause(search)
    stage.look(CALM + " n4:replica/streaming/tl1", after=0.01)
    assert isinstance(search.step(), Attempt)


def test_looks_stay_frequent_while_the_leaders_patroni_is_silent_though_its_server_serves() -> None:
    stage = Stage()
    stage.silent = {"n1"}
    stage.look(CALM)
    for _ in range(5):
        search = stage.seek()
        assert search.succeeded(attempt(search)) is not None
        search.end()
    assert stage.discovery.look() < 0.2
    stage.silent = set()
    stage.look(CALM)
    assert stage.discovery.look() > 1


def test_only_a_failure_that_patroni_does_not_explain_is_looked_into() -> None:
    stage = Stage()
    search = stage.seek()
    one = attempt(search)
    assert not search.explains(one), "nobody has asked"
    refuse(search, one)
    stage.answers.nodes["http://n1:8008"] = NodeStatus("primary", "starting", 1, None)
    stage.look(CALM)
    assert search.explains(one)
    stage.answers.nodes["http://n1:8008"] = NodeStatus("primary", "running", 1, None)
    stage.look(CALM)
    assert not search.explains(one)


def test_a_second_choice_that_was_reached_serves_though_the_first_is_still_listed() -> None:
    stage = Stage("n1:leader/running/tl1 n2:replica/streaming/tl1")
    search = stage.seek(target="replica_preferred")
    refuse(search, attempt(search))  # n2 hangs
    one = attempt(search)
    stage.look("n1:leader/running/tl1 n2:replica/streaming/tl1 n3:replica/stopped/tl1")  # routing moves meanwhile
    assert one.address.host == "n1"
    stamp = search.succeeded(one)
    assert stamp is not None
    assert stamp.member == "n1"


def test_a_server_that_left_serves_nobody() -> None:
    stage = Stage()
    search = stage.seek(target="replica")
    one = attempt(search)
    stage.look(" ".join(word for word in CALM.split() if not word.startswith(one.address.host)))
    assert search.succeeded(one) is None


def test_silence_does_not_outlive_who_would_have_noticed_its_end() -> None:
    stage = Stage()
    discovery = stage.discovery
    for forget in (discovery.close, discovery._start_clean):  # the latter is what a forked child does
        discovery._suspects.silent = frozenset({"n2"})
        discovery.silence_changed()
        before = discovery.snapshot
        assert before is not None
        assert before.silent == {"n2"}
        forget()
        after = discovery.snapshot
        assert after is not None
        assert not after.silent
        assert after.generation > before.generation


def test_the_log_says_which_server_hangs_and_who_leads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "patroni_db.discovery")
    stage = Stage()
    for silent in ({"n1"}, {"n1", "n2"}, {"n2"}):
        stage.discovery._suspects.silent = frozenset(silent)
        stage.discovery.silence_changed()
    stage.look(NOBODY)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "primary of lab is n1"),
        ("WARNING", "n1 hangs: new connections avoid it"),
        ("WARNING", "n2 hangs: new connections avoid it"),
        ("INFO", "n1 does not hang any more"),
        ("INFO", "lab has no primary at the moment"),
    ]
