"""Who may serve a target, and in which order."""

from __future__ import annotations

import random
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db.selection import Target, candidates, eligible_replica, first_rank, matches
from patroni_db.topology import Address, Member, Role, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping

RNG = random.Random(7)


def member(name: str, role: str = "replica", state: str = "streaming", **rest: Any) -> Member:
    tags: Mapping[str, Any] = MappingProxyType(rest.pop("tags", {}))
    rest.setdefault("timeline", 1)
    return Member(name, role, state, Address(name, 5432), tags=tags, **rest)


def names(topology: Topology, target: str, **kwargs: Any) -> list[str]:
    return [m.name for m in candidates(topology, Target(target), RNG, **kwargs)]


THREE = Topology((member("n1", "leader", "running"), member("n2"), member("n3")))


def test_primary_is_the_leader_and_nobody_else() -> None:
    assert names(THREE, "primary") == ["n1"]
    assert names(Topology(THREE.members[1:]), "primary") == []


@pytest.mark.parametrize("state", ["running", "starting", "crashed", "stopping", ""])
def test_a_leader_is_tried_whatever_its_state(state: str) -> None:
    # An in-place restart is writable before /cluster says "running": the connection decides.
    assert names(Topology((member("n1", "leader", state),)), "primary") == ["n1"]


def test_the_preferred_kind_comes_first_and_the_other_after_it() -> None:
    assert names(THREE, "primary_preferred")[0] == "n1"
    assert names(THREE, "replica_preferred")[-1] == "n1"
    assert set(names(THREE, "replica")) == {"n2", "n3"}
    assert set(names(THREE, "any")) == {"n1", "n2", "n3"}


def test_equals_share_the_load() -> None:
    first = Counter(names(THREE, "replica")[0] for _ in range(400))
    assert min(first.values()) > 120


def test_the_less_loaded_of_two_is_tried_first() -> None:
    assert {names(THREE, "replica", loads={"n2": 3, "n3": 2})[0] for _ in range(50)} == {"n3"}
    assert {names(THREE, "any", loads={"n1": 1, "n2": 9, "n3": 9})[0] for _ in range(200)} == {"n1", "n2", "n3"}


def test_weights_share_connections_in_proportion() -> None:
    topology = Topology((member("n1", tags={"weight": 3}), member("n2"), member("n3", tags={"weight": 0.5})))
    loads: Counter[str] = Counter()
    for _ in range(90):
        loads[names(topology, "replica", loads=loads)[0]] += 1
    assert abs(loads["n1"] - 60) <= 3
    assert abs(loads["n3"] - 10) <= 3


def test_processes_with_one_connection_each_use_replicas_by_weight() -> None:
    topology = Topology((member("n1", tags={"weight": 3}), member("n2")))
    first = Counter(names(topology, "replica")[0] for _ in range(400))
    assert 250 < first["n1"] < 350


def test_weight_0_is_only_for_when_nobody_else_serves() -> None:
    topology = Topology((member("n1", tags={"weight": 0}), member("n2"), member("n3", tags={"weight": "0"})))
    for _ in range(20):
        assert names(topology, "replica", loads={"n2": 50})[0] == "n2"
    assert {names(Topology(topology.members[::2]), "replica")[0] for _ in range(50)} == {"n1", "n3"}
    with_primary = Topology((member("n1", "leader", "running", tags={"weight": 0}), member("n2")))
    assert {names(with_primary, "any")[0] for _ in range(20)} == {"n2"}


@pytest.mark.parametrize("nonsense", [True, "heavy", -1, None, float("inf"), float("nan"), [2], {"a": 1}, 10**400])
def test_a_weight_that_is_none_counts_as_1(nonsense: Any) -> None:
    assert member("n1", tags={"weight": nonsense}).weight == 1


def test_for_any_the_primary_is_the_equal_of_the_best_replicas_only() -> None:
    topology = Topology(
        (member("n1", "leader", "running"), member("n2", tags={"zone": "a"}), member("n3", tags={"zone": "b"}))
    )
    chosen = {tuple(names(topology, "any", tags=[{"zone": "b"}, {"zone": "a"}])) for _ in range(50)}
    assert chosen == {("n1", "n3", "n2"), ("n3", "n1", "n2")}


def test_who_shares_the_load_is_of_the_first_rank_and_does_not_rest() -> None:
    def first(target: str, **kwargs: Any) -> set[str]:
        return {m.name for m in first_rank(THREE, Target(target), **kwargs)}

    assert first("replica") == first("replica_preferred") == {"n2", "n3"}
    assert first("replica", resting={"n2"}) == {"n3"}
    assert first("replica", resting={"n2", "n3"}) == {"n2", "n3"}
    assert first("replica_preferred", resting={"n2", "n3"}) == {"n1"}
    assert first("primary_preferred") == {"n1"}
    assert first("any") == {"n1", "n2", "n3"}
    assert first_rank(Topology(()), Target.REPLICA) == ()


def test_noloadbalance_excludes_reads_but_not_the_primary() -> None:
    tagged = MappingProxyType({"noloadbalance": True})
    topology = Topology((member("n1", "leader", "running", tags=tagged), member("n2", tags=tagged), member("n3")))
    assert names(topology, "replica") == ["n3"]
    assert names(topology, "primary") == ["n1"]


def test_replicas_that_stream_come_before_those_that_do_not_yet() -> None:
    topology = Topology((member("n1", state="running"), member("n2"), member("n3", state="starting")))
    assert names(topology, "replica") == ["n2", "n1"]


def test_a_server_that_just_died_is_not_read_from() -> None:
    # Recorded in postgres-crash-failover: the former leader is "replica running" for 40 ms, without a timeline.
    topology = Topology((member("n1"), member("n2", state="running", timeline=None)))
    assert names(topology, "replica") == ["n1"]


def test_a_standby_clusters_leader_reads_last_and_never_writes() -> None:
    topology = Topology((member("n1", "standby_leader", "running"), member("n2")))
    assert names(topology, "replica") == ["n2", "n1"]
    assert names(topology, "primary") == []


def test_too_much_or_unknown_lag_is_not_eligible() -> None:
    topology = Topology((member("n1", lag=10), member("n2", lag=11), member("n3", lag=None)))
    assert names(topology, "replica", max_lag=10) == ["n1"]


def test_tag_sets_are_tried_in_order() -> None:
    topology = Topology(
        (member("n1", tags={"zone": "a"}), member("n2", tags={"zone": "b", "fast": True}), member("n3", tags={}))
    )
    assert names(topology, "replica", tags=[{"zone": "b", "fast": "true"}, {"zone": "a"}]) == ["n2", "n1"]
    assert names(topology, "replica", tags=[{"zone": "c"}]) == []
    assert names(topology, "replica", tags=[{"zone": "c"}, {"zone": "a"}, {}])[0] == "n1"
    assert len(names(topology, "replica", tags=[{"zone": "a"}, {}])) == 3


def test_members_in_quarantine_are_tried_last_not_left_out() -> None:
    assert names(THREE, "replica_preferred", resting=frozenset({"n2", "n3"}))[0] == "n1"
    assert len(names(THREE, "replica", resting=frozenset({"n2", "n3"}))) == 2


MEMBERS = st.builds(
    member,
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from([*Role, "unheard of"]),
    st.sampled_from(["running", "streaming", "in archive recovery", "starting", "crashed", ""]),
    timeline=st.none() | st.integers(1, 9),
    lag=st.none() | st.integers(0, 100),
    tags=st.sampled_from([{}, {"noloadbalance": True}, {"zone": "a"}, {"zone": "b", "weight": 3}, {"weight": 0}]),
)
TOPOLOGIES = st.lists(MEMBERS, max_size=4, unique_by=lambda m: m.name).map(lambda rows: Topology(tuple(rows)))
LOADS = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 20))
TAGS = st.sampled_from([(), ({"zone": "a"},), ({"zone": "b"}, {"zone": "a"}), ({"zone": "a"}, {})])
READING = st.sampled_from([target for target in Target if not target.writes])


@given(st.lists(MEMBERS, max_size=4, unique_by=lambda m: m.name), st.sampled_from(Target), st.integers(0, 100))
def test_an_ineligible_member_is_never_chosen(rows: list[Member], target: Target, max_lag: int) -> None:
    topology = Topology(tuple(rows))
    limit = None if target is Target.PRIMARY else max_lag
    chosen = candidates(topology, target, RNG, max_lag=limit)
    assert len(set(chosen)) == len(chosen)
    for one in chosen:
        if one is topology.primary:
            assert target is not Target.REPLICA
        else:
            assert target is not Target.PRIMARY
            assert one.serves_reads
            assert one.lag is not None
            assert one.lag <= max_lag


@given(TOPOLOGIES, READING, TAGS, LOADS)
def test_whatever_the_load_tag_sets_keep_their_order(
    topology: Topology, target: Target, tags: Any, loads: dict[str, int]
) -> None:
    chosen = candidates(topology, target, RNG, tags=tags, loads=loads)
    replicas = [m for m in chosen if m is not topology.primary]
    assert all(eligible_replica(m, tags=tags) for m in replicas)
    if tags:
        indexes = [next(i for i, wanted in enumerate(tags) if matches(m, wanted)) for m in replicas]
        assert indexes == sorted(indexes)


@given(TOPOLOGIES, READING, LOADS, st.sets(st.sampled_from(["a", "b", "c", "d"])))
def test_who_rests_is_tried_last_and_nobody_is_left_out(
    topology: Topology, target: Target, loads: dict[str, int], resting: set[str]
) -> None:
    everybody = candidates(topology, target, RNG, loads=loads)
    chosen = candidates(topology, target, RNG, loads=loads, resting=resting)
    assert set(chosen) == set(everybody)
    rests = [m.name in resting for m in chosen]
    assert rests == sorted(rests)
    if chosen:
        assert chosen[0] in first_rank(topology, target, resting=resting)


@given(TOPOLOGIES, READING, TAGS, LOADS)
def test_nobody_of_the_first_rank_is_starved(
    topology: Topology, target: Target, tags: Any, loads: dict[str, int]
) -> None:
    # Whatever the loads are at first: each connection that is made counts from then on.
    now = Counter(loads)
    chosen = set()
    for _ in range(200):
        found = candidates(topology, target, RNG, tags=tags, loads=now)
        if not found:
            break
        now[found[0].name] += 1
        chosen.add(found[0])
    assert chosen == set(first_rank(topology, target, tags=tags))
