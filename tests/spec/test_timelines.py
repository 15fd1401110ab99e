"""Real faults, as recorded from outside a real cluster: who is written to and who is read from, all along."""

from __future__ import annotations

import json
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import pytest

from tests.spec.replay import HERE, Answers, Clock, Route, discovery_of, replay, route_of

if TYPE_CHECKING:
    from patroni_db.snapshot import Snapshot

TIMELINES = HERE / "timelines"

# The sequence of primaries that must be seen in each: None is a time without one, in which writers wait.
PRIMARIES = {
    "switchover": ["n1", None, "n2"],
    "postgres-crash-failover": ["n2", None, "n1"],
    "postgres-crash-restart-in-place": ["n2"],
    "node-death": ["n1", None, "n2"],
    "patroni-frozen-split-brain": ["n2", None, "n3"],
    "leader-cut-off-from-etcd": ["n2", None, "n1"],
    "paused-leader-patroni-dead": ["n3", None, "n3"],
    # While etcd is away every API hangs up: the last good view serves on.
    "etcd-outage": ["n3"],
    "etcd-outage-failsafe": ["n3"],
}


def watch(case: str) -> tuple[list[Route], list[Snapshot]]:
    answers, clock = Answers(), Clock()
    discovery = discovery_of(answers, clock)
    routes, snapshots = [], []
    for _ in replay(TIMELINES / f"{case}.log", answers, clock):
        discovery.look()
        if discovery.snapshot is not None:
            routes.append(route_of(discovery))
            snapshots.append(discovery.snapshot)
    return routes, snapshots


def test_every_recording_is_expected() -> None:
    assert {path.stem for path in TIMELINES.glob("*.log")} == set(PRIMARIES)


@pytest.mark.parametrize("case", PRIMARIES)
def test_writes_follow_the_primary(case: str) -> None:
    routes, _ = watch(case)
    assert [name for name, _ in groupby(route.primary for route in routes)] == PRIMARIES[case]


@pytest.mark.parametrize("case", PRIMARIES)
def test_reads_go_on_throughout_and_never_to_the_leader(case: str) -> None:
    routes, _ = watch(case)
    for route in routes:
        assert route.replicas, "no replica to read from"
        assert route.primary not in route.replicas


@pytest.mark.parametrize("case", PRIMARIES)
def test_timelines_never_go_backwards(case: str) -> None:
    _, snapshots = watch(case)
    led = [s.topology.leader.timeline for s in snapshots if s.topology.leader and s.topology.leader.timeline]
    assert led == sorted(led)


@pytest.mark.parametrize("case", PRIMARIES)
def test_within_one_generation_routing_is_the_same(case: str) -> None:
    _, snapshots = watch(case)
    for before, after in pairwise(snapshots):
        assert after.generation >= before.generation
        if after.generation == before.generation:
            assert after.topology.routing() == before.topology.routing()


@pytest.mark.parametrize(("case", "former"), [("switchover", "n1"), ("postgres-crash-failover", "n2")])
def test_a_former_primary_serves_reads_once_it_streams_and_not_before(case: str, former: str) -> None:
    answers, clock = Answers(), Clock()
    discovery = discovery_of(answers, clock)
    streams = {"name": former, "role": "replica", "state": "streaming"}
    serves = told = False
    for _ in replay(TIMELINES / f"{case}.log", answers, clock):
        discovery.look()
        rows = [row for body in answers.clusters.values() for row in json.loads(body)["members"]]
        told = told or any(streams.items() <= row.items() for row in rows)
        serves = former in route_of(discovery).replicas
        assert told or not serves
    assert serves
