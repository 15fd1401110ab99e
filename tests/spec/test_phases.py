"""Phases of answers, and what must be known after each: what no healthy cluster shows on demand."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from patroni_db.client import NodeStatus
from patroni_db.connections import Stamp, still_right
from patroni_db.errors import DiscoveryError
from patroni_db.selection import candidates
from patroni_db.topology import Address
from tests.spec.replay import Answers, Clock, discovery_of, members, route_of, wait_for_flights

if TYPE_CHECKING:
    from patroni_db.discovery import Discovery
    from patroni_db.snapshot import Snapshot
    from patroni_db.topology import Topology

IDENTITY = "7000000000000000001"
CALM = "n1:leader/running/tl1 n2:replica/streaming/tl1 n3:replica/streaming/tl1"
MOVED = "n1:replica/streaming/tl2 n2:leader/running/tl2 n3:replica/streaming/tl2"


class Stage:
    """A discovery, the answers it gets and the clock it reads."""

    def __init__(self, **settings: Any) -> None:
        self.answers, self.clock = Answers(), Clock()
        self.discovery: Discovery = discovery_of(self.answers, self.clock, **settings)
        self.node("n1", "primary", timeline=1)

    def node(self, name: str, role: str, timeline: int, identity: str = IDENTITY) -> None:
        self.answers.nodes[f"http://{name}:8008"] = NodeStatus(role, "running", timeline, identity)

    def everywhere(self, text: str, **top: Any) -> None:
        self.answers.set({name: members(text, **top) for name in ("n1", "n2", "n3")})

    def look(self, times: int = 1, *, hanging: int = 0) -> Snapshot:
        for _ in range(times):
            self.clock.now += 0.1
            self.discovery.look()
            wait_for_flights(hanging)
        assert self.discovery.snapshot is not None
        return self.discovery.snapshot

    @property
    def primary(self) -> str | None:
        return route_of(self.discovery).primary


def test_the_next_seed_is_asked_when_one_fails_and_each_failure_is_told() -> None:
    stage = Stage()
    stage.answers.set({"n1": "HTTP status 500", "n2": "no answer within 2 s", "n3": members(CALM)})
    stage.look()
    assert stage.primary == "n1"
    assert stage.discovery.failure is None
    stage.answers.set({"n3": "redirects to http://x/"})
    stage.look()
    failure = stage.discovery.failure
    assert isinstance(failure, DiscoveryError)
    for part in ("http://n1:8008: HTTP status 500", "http://n2:8008: no answer", "http://n3:8008: redirects"):
        assert part in str(failure)


def test_the_leaders_api_is_asked_first_and_its_silence_is_an_alarm() -> None:
    stage = Stage()
    stage.everywhere(CALM)
    stage.look()
    stage.answers.asked.clear()
    assert stage.discovery.look() > 1
    assert stage.answers.asked == ["http://n1:8008"]
    stage.answers.set({"n1": "connection refused"})
    stage.answers.asked.clear()
    assert stage.discovery.look() < 0.2
    assert stage.primary == "n1"
    stage.discovery.look()
    assert set(stage.answers.asked) == {"http://n1:8008", "http://n2:8008", "http://n3:8008"}


def test_an_alarm_about_a_silent_api_ends_although_it_stays_silent() -> None:
    stage = Stage()
    stage.everywhere(CALM)
    stage.look()
    stage.answers.set({"n1": "connection refused"})
    stage.look(2)
    stage.clock.now += 60
    assert stage.discovery.look() > 1
    stage.answers.asked.clear()
    assert stage.discovery.look() > 1
    assert stage.answers.asked[0] != "http://n1:8008"


def test_in_an_alarm_a_leader_that_confirms_itself_wins_over_one_that_does_not() -> None:
    stage = Stage()
    stage.everywhere(CALM)
    stage.look()
    stage.node("n1", "replica", timeline=1)
    stage.node("n2", "primary", timeline=1)
    stage.discovery.hint()
    after = "n1:replica/stopped/tlNone n2:leader/running/tl1 n3:replica/running/tl1"
    stage.answers.set({"n2": members(after)})
    stage.look(2)
    assert stage.primary == "n2"


def test_an_answer_that_later_ones_overtook_does_not_bring_the_former_leader_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As recorded: the API of a node whose postmaster was killed names itself at once, and says what it is 1.5 s later.
    stage = Stage()
    stage.everywhere(CALM)
    stage.look()
    asked, answered = threading.Event(), threading.Event()
    says = stage.answers.node

    def node(base_url: str) -> NodeStatus:
        if base_url == "http://n1:8008" and not answered.is_set():
            asked.set()
            answered.wait(10)
        return says(base_url)

    monkeypatch.setattr(stage.answers, "node", node)
    stage.discovery.hint()
    stage.look(hanging=1)
    assert asked.wait(10)
    stage.node("n1", "replica", timeline=1)
    stage.node("n2", "primary", timeline=2)
    # The new leader's timeline is not shown yet: only its own word tells.
    after = "n1:replica/stopped/tlNone n2:leader/running/tl1 n3:replica/streaming/tl1"
    stage.answers.set({name: members(after) for name in ("n2", "n3")})
    stage.look(2, hanging=1)
    assert stage.primary == "n2"
    stage.clock.now += 1.5
    answered.set()
    wait_for_flights()
    assert stage.primary == "n2"


def test_learned_apis_are_asked_when_the_only_seed_is_gone() -> None:
    stage = Stage(urls="http://n1:8008")
    stage.everywhere(CALM)
    stage.look()
    stage.everywhere(MOVED)
    stage.answers.set({"n1": "connection refused"})
    stage.look(2)
    assert stage.primary == "n2"


def test_the_last_good_view_survives_an_outage_of_all_apis() -> None:
    stage = Stage()
    stage.everywhere(CALM)
    before = stage.look()
    for name in ("n1", "n2", "n3"):
        stage.answers.set({name: "connection refused"})
    assert stage.look(100) is before
    assert stage.primary == "n1"
    assert stage.discovery.failure is not None
    stage.everywhere(MOVED)
    stage.look()
    assert stage.primary == "n2"
    assert stage.discovery.failure is None


def test_a_view_from_before_the_failover_is_refused() -> None:
    stage = Stage()
    stage.everywhere(MOVED)
    stage.look()
    stage.everywhere(CALM)
    stage.node("n1", "replica", timeline=2)
    stage.look(3)
    assert stage.primary == "n2"
    assert "its view is behind: n1 leads timeline 1, after 2" in str(stage.discovery.failure)


def test_a_leader_whose_new_timeline_is_not_shown_yet_is_believed_when_it_confirms() -> None:
    stage = Stage()
    stage.everywhere(MOVED)
    stage.look()
    stage.everywhere("n1:replica/stopped/tlNone n2:replica/stopped/tlNone n3:leader/running/tl1")
    stage.node("n3", "replica", timeline=1)
    stage.look()
    assert stage.primary == "n2"
    stage.node("n3", "primary", timeline=3)
    stage.look()
    assert stage.primary == "n3"


def test_a_cluster_bootstrapped_anew_may_start_at_timeline_one_again() -> None:
    stage = Stage()
    stage.everywhere(MOVED)
    stage.node("n2", "primary", timeline=2)
    stage.look(3)
    for name in ("n1", "n2", "n3"):
        stage.node(name, "primary" if name == "n1" else "replica", timeline=1, identity="7999999999999999999")
    stage.everywhere(CALM)
    stage.look()
    assert stage.primary == "n1"
    stage.node("n2", "primary", timeline=2, identity="7999999999999999999")
    stage.everywhere("n1:replica/streaming/tl2 n2:leader/running/tl2 n3:replica/streaming/tl2")
    stage.look()
    assert stage.primary == "n2"


def test_an_earlier_timeline_is_believed_when_nothing_else_was_seen_for_long() -> None:
    # A point-in-time recovery keeps the identity and may begin at an earlier timeline.
    stage = Stage()
    stage.everywhere(MOVED)
    stage.look()
    stage.everywhere(CALM)
    stage.node("n1", "replica", timeline=1)
    stage.look()
    assert stage.primary == "n2"
    stage.clock.now += 31
    stage.look()
    assert stage.primary == "n1"


@pytest.mark.parametrize("seen", [2, 10**9, 2**32 - 1])
def test_after_going_back_to_an_earlier_timeline_every_view_is_believed_again(seen: int) -> None:
    """A cluster was restored in place, or one absurd timeline was seen."""
    stage = Stage()
    stage.everywhere(MOVED.replace("tl2", f"tl{seen}"))
    stage.look()
    stage.everywhere(CALM)
    stage.clock.now += 31
    stage.look()
    assert stage.primary == "n1"
    for leader, other in (("n2", "n1"), ("n1", "n2"), ("n2", "n1")):
        stage.node(leader, "primary", timeline=1)
        stage.node(other, "replica", timeline=1)
        stage.everywhere(f"{leader}:leader/running/tl1 {other}:replica/streaming/tl1 n3:replica/streaming/tl1")
        stage.clock.now += 1
        stage.look()
        assert stage.discovery.failure is None
        assert stage.primary == leader
    stage.node("n1", "primary", timeline=2)
    stage.node("n2", "replica", timeline=2)
    stage.everywhere("n1:leader/running/tl2 n2:replica/streaming/tl2 n3:replica/streaming/tl2")
    stage.look()
    assert stage.primary == "n1"
    stage.everywhere("n1:replica/streaming/tl1 n2:leader/running/tl1 n3:replica/streaming/tl1")
    stage.look()
    assert stage.primary == "n1", "the new timeline counts as the old one did"


def test_time_without_a_leader_does_not_keep_a_timeline_alive() -> None:
    """While a cluster is restored in place its members are listed, and nobody leads."""
    stage = Stage()
    stage.everywhere(MOVED)
    stage.look()
    for _ in range(40):
        stage.everywhere("n1:replica/stopped/tlNone n2:replica/stopped/tlNone n3:replica/stopped/tlNone")
        stage.clock.now += 1
        stage.look()
    stage.everywhere(CALM)
    stage.look()
    assert stage.primary == "n1"


@pytest.mark.parametrize("absurd", [0, -1, 2**32, 10**30, True, "2", 2.0, None])
def test_what_is_no_timeline_of_postgresqls_is_none(absurd: object) -> None:
    stage = Stage()
    stage.everywhere(CALM)
    stage.look()
    body = members(CALM)
    for row in body["members"]:
        row["timeline"] = absurd
    stage.answers.set(dict.fromkeys(("n1", "n2", "n3"), body))
    snapshot = stage.look()
    assert snapshot.timeline == 1
    assert {member.timeline for member in snapshot.topology.members} == {None}
    stage.everywhere(CALM)
    stage.look()
    assert stage.primary == "n1"
    assert stage.discovery.failure is None


@pytest.mark.parametrize("configured", ["lab", None])
def test_the_api_of_another_cluster_is_refused(configured: str | None) -> None:
    stage = Stage(scope=configured)
    stage.answers.set({"n1": "connection refused", "n2": members(CALM), "n3": members(CALM)})
    stage.look()
    other = members(MOVED) | {"scope": "accounting"}
    stage.answers.set(dict.fromkeys(("n1", "n2", "n3"), other))
    stage.look(3)
    assert stage.primary == "n1"
    assert "is an API of cluster 'accounting', not of 'lab'" in str(stage.discovery.failure)


def test_a_cluster_without_members_does_not_replace_what_is_known() -> None:
    stage = Stage()
    stage.everywhere(CALM)
    stage.look()
    stage.everywhere("")
    stage.look()
    assert stage.primary == "n1"


def test_a_new_member_serves_and_a_removed_one_does_not() -> None:
    stage = Stage()
    stage.everywhere("n1:leader/running/tl1 n2:replica/streaming/tl1")
    first = stage.look()
    assert route_of(stage.discovery).replicas == {"n2"}
    stage.everywhere("n1:leader/running/tl1 n3:replica/streaming/tl1")
    second = stage.look()
    assert route_of(stage.discovery).replicas == {"n3"}
    assert second.generation == first.generation + 1


def test_members_that_are_gone_are_forgotten_and_no_client_is_kept_for_each() -> None:
    """As in Kubernetes, where each pod has another address."""
    stage = Stage(urls="http://n1:8008")
    clients: list[Answers] = []

    def client(_: object) -> Answers:
        clients.append(stage.answers)
        return stage.answers

    stage.discovery._apis._make_client = client  # type: ignore[assignment]
    for number in range(20):
        pods = " ".join(f"pod{number}-{index}:replica/running/tl1" for index in range(3))
        stage.everywhere(pods)  # and nobody leads: all are asked, and the pods do not answer
        stage.look(2)
    assert len(clients) == 1
    known = {"http://n1:8008", *(f"http://pod19-{index}:8008" for index in range(3))}
    assert stage.discovery._apis._failing <= known
    assert set(stage.discovery._answers._views) <= known
    assert set(stage.discovery._answers._statuses) <= known


def test_members_outside_the_allowed_hosts_are_never_connected_to() -> None:
    stage = Stage(allowed_hosts="n2,n3")
    stage.everywhere(CALM)
    stage.look()
    assert stage.primary is None
    stage.everywhere(MOVED)
    stage.look()
    assert stage.primary == "n2"


def test_a_reader_that_took_second_choice_looks_again_when_quarantine_ends() -> None:
    stage = Stage()
    stage.everywhere("n1:leader/running/tl1 n2:replica/streaming/tl1")
    stage.look()
    stage.discovery.invalidate("n2")
    config = stage.discovery.config.replace(target="replica_preferred")
    snapshot = stage.look()
    primary = Stamp("n1", Address("n1", 5432), snapshot.generation)
    assert candidates(snapshot.topology, config.target, stage.discovery.rng, resting=frozenset({"n2"}))[0].name == "n1"
    assert stage.look().generation == primary.generation
    stage.clock.now += 7
    snapshot = stage.look()
    assert snapshot.generation == primary.generation + 1
    assert not still_right(primary, config, snapshot)
    assert still_right(Stamp("n2", Address("n2", 5432), primary.generation), config, snapshot)
    assert stage.look().generation == snapshot.generation


def test_subscribers_hear_of_moves_only() -> None:
    stage = Stage()
    heard: list[int] = []
    unsubscribe = stage.discovery.subscribe(lambda snapshot: heard.append(snapshot.generation))
    stage.everywhere(CALM)
    stage.look(5)
    stage.everywhere(MOVED)
    stage.look(5)
    assert heard == [1, 2]
    unsubscribe()
    stage.everywhere(CALM.replace("tl1", "tl3"))
    stage.look()
    assert heard == [1, 2]


def test_a_failing_subscriber_does_not_end_the_looking(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()

    def fail(_: Snapshot) -> None:
        raise ZeroDivisionError

    stage.discovery.subscribe(fail)
    stage.everywhere(CALM)
    stage.look()
    assert stage.primary == "n1"
    assert "a subscriber failed" in caplog.text


def test_an_alarm_does_not_wait_for_a_calm_look_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    stage.everywhere(CALM)
    stage.look()
    asked, goes_on = threading.Event(), threading.Event()
    says = stage.answers.cluster

    def cluster(base_url: str) -> Topology:
        if base_url == "http://n1:8008":
            asked.set()
            goes_on.wait(30)
        return says(base_url)

    monkeypatch.setattr(stage.answers, "cluster", cluster)
    calm = threading.Thread(target=stage.discovery.look)
    calm.start()
    assert asked.wait(10)
    for name in ("n2", "n3"):
        stage.answers.set({name: members(MOVED)})
    stage.node("n2", "primary", timeline=2)
    stage.clock.now += 0.1
    stage.discovery.invalidate("n1", Address("n1", 5432))
    calm.join(10)
    assert not calm.is_alive()
    assert stage.primary == "n2"
    # What comes of the calm look in the end was asked for before, and is not believed.
    goes_on.set()
    wait_for_flights()
    assert stage.primary == "n2"


def test_without_a_leader_requests_under_way_are_bounded_and_everybody_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage()
    names = [f"m{number}" for number in range(36)]
    nobody = " ".join(f"{name}:replica/running/tl1" for name in names)
    stage.everywhere(nobody)
    stage.answers.set({name: members(nobody) for name in names})
    stage.look()
    goes_on, says = threading.Event(), stage.answers.cluster

    def cluster(base_url: str) -> Topology:
        goes_on.wait(30)
        return says(base_url)

    monkeypatch.setattr(stage.answers, "cluster", cluster)
    stage.answers.asked.clear()
    stage.look(hanging=40)
    flights = sum(thread.name == "patroni-db look" for thread in threading.enumerate())
    assert 0 < flights <= 32
    goes_on.set()
    wait_for_flights()
    everybody = {f"http://{name}:8008" for name in names}
    for _ in range(20):
        if not everybody <= set(stage.answers.asked):
            stage.look()
    assert everybody <= set(stage.answers.asked)


def test_the_cadence_is_calm_with_a_leader_and_alarmed_without() -> None:
    stage = Stage(refresh=2)
    stage.everywhere(CALM)
    assert 1.8 <= stage.discovery.look() <= 2.2
    stage.everywhere("n1:replica/stopped/tlNone n2:replica/running/tl1")
    assert stage.discovery.look() == pytest.approx(0.1)
