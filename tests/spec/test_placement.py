"""Connections that are kept: where they may stay, and which replicas are distrusted."""

from __future__ import annotations

import dataclasses
import socket
from typing import TYPE_CHECKING, Any

import pytest

from patroni_db.config import PatroniConfig
from patroni_db.connections import Objection, Stamp, why_unusable
from patroni_db.faults import Fault
from patroni_db.topology import Address
from tests.spec.replay import SEEDS, Answers, Clock, discovery_of, members, wait_for_flights

if TYPE_CHECKING:
    from patroni_db.selection import TargetName

CALM = "n1:leader/running/tl1 n2:replica/streaming/tl1 n3:replica/streaming/tl1"
ALONE = "n1:leader/running/tl1 n2:replica/streaming/tl1"


class Silent:
    """A driver that has nothing to tell of a connection."""

    def is_closed(self, _: Any) -> bool:
        return False

    def fileno(self, _: Any) -> None:
        return None

    def parameter(self, _: Any, _name: str) -> None:
        return None

    def is_idle(self, _: Any) -> bool:
        return True

    def consume(self, _: Any) -> bool:
        return False

    def session(self, connection: Any) -> Any:
        return connection

    def is_over(self, _: Any) -> bool:
        return False


class Connection:
    """What live connections are counted by."""

    closed = False
    status = 0

    def __init__(self) -> None:
        self._ends = socket.socketpair()
        self.pgconn = self
        self.socket = self._ends[0].fileno()

    def close(self) -> None:
        for end in self._ends:
            end.close()


class Stage:
    def __init__(self, text: str = CALM) -> None:
        self.answers, self.clock = Answers(), Clock()
        self.discovery = discovery_of(self.answers, self.clock)
        self.look(text)

    def look(self, text: str, **rows: dict[str, Any]) -> None:
        answer = members(text)
        for row in answer["members"]:
            row.update(rows.get(row["name"], {}))
        self.answers.set(dict.fromkeys(("n1", "n2", "n3"), answer))
        self.clock.now += 1.0
        self.discovery.look()
        wait_for_flights()

    def stamp(self, member: str | None) -> Stamp:
        snapshot = self.discovery.snapshot
        return Stamp(member, Address(member or "n2", 5432), snapshot.generation if snapshot else 0)

    def distrust(self, member: str | None, fault: Fault = Fault.CORRUPTED, in_hot_standby: str | None = "on") -> bool:
        return self.discovery.distrust(self.stamp(member), fault, in_hot_standby)

    def why(self, stamp: Stamp, target: TargetName = "replica", **settings: Any) -> str | None:
        config = PatroniConfig(urls=SEEDS, target=target, **settings)
        objection = why_unusable(Silent(), object(), stamp, config, self.discovery.snapshot)
        return None if objection is None else objection.why


def test_connections_leave_a_replica_on_which_reads_fail() -> None:
    stage = Stage()
    bad, good = stage.stamp("n2"), stage.stamp("n3")
    assert stage.distrust("n2")
    for target in ("replica", "replica_preferred", "any"):
        assert stage.why(bad, target) == "reads fail on n2"
        assert stage.why(good, target) is None
    stage.clock.now += 2
    stage.look(CALM)
    assert not stage.discovery.resting()
    assert stage.why(bad) is None


def test_where_nobody_else_serves_they_stay() -> None:
    stage = Stage()
    both = stage.stamp("n2"), stage.stamp("n3")
    stage.distrust("n2")
    stage.distrust("n3")
    for stamp in both:
        assert stage.why(stamp) is None
        assert stage.why(stamp, "replica_preferred") == f"reads fail on {stamp.member}"
    alone = Stage(ALONE)
    only = alone.stamp("n2")
    alone.distrust("n2")
    assert alone.why(only) is None
    assert alone.why(only, "any") == "reads fail on n2"


@pytest.mark.parametrize(
    ("member", "fault", "in_hot_standby"),
    [
        ("n1", Fault.CORRUPTED, "off"),
        ("n1", Fault.TRANSIENT, "off"),
        ("n1", Fault.CORRUPTED, None),
        ("n1", Fault.CORRUPTED, "on"),  # promoted a moment ago
        ("n2", Fault.TRANSIENT, "off"),  # promoted, and no view knows it yet
        ("n2", Fault.OTHER, "on"),
        ("n2", Fault.NOT_WRITABLE, "on"),
        (None, Fault.CORRUPTED, "on"),
        ("n9", Fault.CORRUPTED, "on"),
    ],
)
def test_nobody_rests_for_what_is_not_a_replicas_fault(
    member: str | None, fault: Fault, in_hot_standby: str | None
) -> None:
    stage = Stage()
    before = stage.discovery.snapshot
    stage.distrust(member, fault, in_hot_standby)
    assert not stage.discovery.resting()
    assert stage.discovery.snapshot is before


@pytest.mark.parametrize("fault", [Fault.TRANSIENT, Fault.CORRUPTED])
@pytest.mark.parametrize("in_hot_standby", ["on", None])
def test_a_replica_rests_for_what_is(fault: Fault, in_hot_standby: str | None) -> None:
    stage = Stage()
    assert stage.distrust("n2", fault, in_hot_standby)
    assert stage.discovery.resting() == {"n2"}
    # All of a pool's connections meet it at once: it is one failure, and routing moves once.
    known = stage.discovery.snapshot
    assert stage.distrust("n2", fault, in_hot_standby)
    assert stage.discovery.snapshot is known


def test_a_connection_leaves_a_replica_that_falls_behind() -> None:
    stage = Stage()
    near = {"replay_lag": 10, "lag": 0}
    stage.look(CALM, n2=near, n3=near)
    stamp = stage.stamp("n2")
    assert stage.why(stamp, max_lag=100) is None
    stage.look(CALM, n2={"replay_lag": 101, "lag": 0}, n3=near)
    assert stage.stamp("n2") == stamp, "lag does not move the generation"
    assert stage.why(stamp, max_lag=100) == "n2 lags by 101 bytes"
    assert stage.why(stamp) is None
    stage.look(CALM, n2={"replay_lag": "unknown", "lag": 0}, n3=near)
    assert stage.why(stamp, max_lag=100) is not None


def test_a_connection_leaves_a_replica_whose_tags_match_no_more() -> None:
    stage = Stage()
    stage.look(CALM, n2={"tags": {"zone": "a"}})
    stamp = stage.stamp("n2")
    assert stage.why(stamp, tags="zone=a") is None
    stage.look(CALM, n2={"tags": {"zone": "b"}})
    assert stage.why(stamp, tags="zone=a") is not None
    assert stage.why(stamp, tags="zone=a;") is None


def test_a_tenth_of_the_connections_is_shared_with_a_replica_that_comes() -> None:
    stage = Stage(ALONE)
    config = PatroniConfig(urls=SEEDS, target="replica_preferred")
    there = stage.stamp("n2")
    connections = [Connection() for _ in range(20)]
    for connection in connections:
        stage.discovery.live.add(connection, there, config)

    def given_up() -> int:
        return [stage.discovery.gives_up(there, config) for _ in connections].count(True)

    assert given_up() == 0
    stage.clock.now += 2
    stage.look(CALM)
    assert stage.why(there, "replica_preferred") is None, "they may stay"
    assert given_up() == 2
    assert not stage.discovery.gives_up(stage.stamp("n3"), config)
    stage.clock.now += 2
    assert given_up() == 2
    stage.discovery.invalidate("n3")
    stage.clock.now += 2
    assert given_up() == 0, "it rests"
    assert not stage.discovery.gives_up(there, config.replace(target="primary")), "never for a target that writes"
    other = config.replace(tags="zone=a;")
    assert not stage.discovery.gives_up(there, other), "connections of another purpose are others' business"
    for connection in connections:
        connection.close()


def test_readers_on_the_primary_leave_it_when_a_replica_serves_a_few_at_a_time() -> None:
    stage = Stage("n1:leader/running/tl1")
    config = PatroniConfig(urls=SEEDS, target="replica_preferred")
    refuge = stage.stamp("n1")
    connections = [Connection() for _ in range(20)]
    for connection in connections:
        stage.discovery.live.add(connection, refuge, config)

    def left() -> int:
        gone = [connection for connection in connections if stage.discovery.gives_up(refuge, config)]
        for connection in gone:
            connections.remove(connection)
            connection.close()
        return len(gone)

    assert left() == 0
    stage.look(ALONE)
    assert stage.why(refuge, "replica_preferred") is None, "they may stay for now"
    assert stage.why(refuge, "replica") == "n1 is no longer right for target replica"
    steps = []
    while connections:
        stage.clock.now += 2
        steps.append(left())
        assert left() == 0, "once a look"
    assert max(steps) == 2
    assert 0 not in steps
    bad = Stage(ALONE)
    bad.distrust("n2")
    bad.discovery.live.add(connection := Connection(), bad.stamp("n1"), config)
    assert not bad.discovery.gives_up(bad.stamp("n1"), config), "the replica rests"
    connection.close()


def test_a_replica_that_was_started_again_does_not_rest_for_having_been_down() -> None:
    stage = Stage()
    stage.discovery.invalidate("n2", Address("n2", 5432))
    assert stage.discovery.resting() == {"n2"}
    stage.look("n1:leader/running/tl1 n2:replica/stopped/tlNone n3:replica/streaming/tl1")
    assert stage.discovery.resting() == {"n2"}
    stage.look(CALM)
    assert not stage.discovery.resting()
    stage.distrust("n2")
    stage.look("n1:leader/running/tl1 n2:replica/starting/tlNone n3:replica/streaming/tl1")
    stage.look(CALM)
    assert stage.discovery.resting() <= {"n2"}
    stage.distrust("n2")
    assert stage.discovery.resting() == {"n2"}


class Telling(Silent):
    """A driver whose server has reported a role."""

    def __init__(self, in_hot_standby: str) -> None:
        self._reported = in_hot_standby

    def parameter(self, _: Any, name: str) -> str | None:  # type: ignore[override]
        return self._reported if name == "in_hot_standby" else None


@pytest.mark.parametrize(("target", "member", "other_role"), [("primary", "n1", "on"), ("replica", "n2", "off")])
def test_a_server_tells_itself_of_its_role_and_a_pooler_what_it_once_was(
    target: TargetName, member: str, other_role: str
) -> None:
    stage = Stage()
    direct = stage.stamp(member)
    pooled = dataclasses.replace(direct, pooled=True)
    config = PatroniConfig(urls=SEEDS, target=target)
    whys = [
        why_unusable(Telling(other_role), object(), stamp, config, stage.discovery.snapshot)
        for stamp in (direct, pooled)
    ]
    assert whys == [Objection("the server changed its role", is_fault=target == "primary"), None]
