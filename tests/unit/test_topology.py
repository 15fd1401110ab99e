"""What the parser makes of Patroni's answers, and of anything else."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db.topology import Address, Member, PayloadError, Topology, parse_cluster

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        key: JSON | st.sampled_from(["leader", "replica", "running", "n1", "http://h:1", "::1", 5432, "unknown"])
        for key in ("name", "role", "state", "host", "port", "api_url", "timeline", "lag", "replay_lag", "tags")
    },
)


def body(*rows: object, **top: object) -> str:
    return json.dumps({"members": list(rows), **top})


def row(**changes: object) -> dict[str, object]:
    return {"name": "n1", "role": "leader", "state": "running", "host": "h", "port": 5432, **changes}


def test_reads_a_leader_and_a_replica() -> None:
    topology = parse_cluster(
        body(
            row(timeline=3, api_url="http://h:8008/patroni"),
            row(name="n2", role="replica", state="streaming", host="::1", lag=10, tags={"zone": "a"}),
            scope="main",
            pause=True,
            scheduled_switchover={"at": "2026-11-22T10:00:00+00:00", "from": "n1", "to": "n2"},
        )
    )
    assert topology.scope == "main"
    assert topology.paused
    assert topology.scheduled_switchover is not None
    assert topology.scheduled_switchover.to == "n2"
    leader, replica = topology.members
    assert topology.primary is leader
    assert (leader.address, leader.api_url, leader.timeline) == (Address("h", 5432), "http://h:8008", 3)
    assert (str(replica.address), replica.lag, dict(replica.tags)) == ("[::1]:5432", 10, {"zone": "a"})


def test_standby_leader_is_the_leader_but_never_the_primary() -> None:
    topology = parse_cluster(body(row(role="standby_leader")))
    assert topology.leader is not None
    assert topology.primary is None


@pytest.mark.parametrize(
    "missing",
    [{"host": None}, {"port": None}, {"port": 0}, {"port": 70000}, {"port": True}, {"host": ""}, {"host": "/run/pg"}],
)
def test_a_leader_without_usable_address_is_no_primary(missing: dict[str, object]) -> None:
    topology = parse_cluster(body(row(**missing)))
    assert topology.leader is not None
    assert topology.primary is None


def test_tolerates_what_later_versions_may_send() -> None:
    topology = parse_cluster(
        body(row(role="arbiter", state="dancing", colour="red"), "row", {"role": "leader"}, new=[])
    )
    (member,) = topology.members
    assert (member.role, member.state, member.is_leader, member.serves_reads) == ("arbiter", "dancing", False, False)


@pytest.mark.parametrize(
    ("lags", "expected"),
    [
        ({"lag": 5}, 5),
        ({"lag": "unknown"}, None),
        ({"lag": 0, "replay_lag": 9}, 9),
        ({"lag": 0, "replay_lag": "unknown"}, None),
        ({"lag": -1}, None),
        ({"lag": True}, None),
        ({"lag": 2**63 - 1}, 2**63 - 1),
        ({"lag": 10**400}, None),
        ({}, None),
    ],
)
def test_lag_is_bytes_or_unknown(lags: dict[str, object], expected: int | None) -> None:
    assert parse_cluster(body(row(role="replica", **lags))).members[0].lag == expected


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("http://[::1]:8008/patroni", "http://[::1]:8008"),
        ("https://pg1/patroni", "https://pg1"),
        ("http://u:p@h:8008/patroni", "http://h:8008"),
        ("ftp://h/patroni", None),
        ("http://h:notaport/", None),
        ("http://[", None),
        ("", None),
        (7, None),
    ],
)
def test_api_url_is_reduced_to_its_authority(given_url: object, expected: str | None) -> None:
    assert parse_cluster(body(row(api_url=given_url))).members[0].api_url == expected


def test_routing_ignores_lag_and_notices_leader_timeline_and_address() -> None:
    def routing(**changes: object) -> tuple[object, ...]:
        return parse_cluster(
            body(row(timeline=1), row(name="n2", **{"role": "replica", "timeline": 1, **changes}))
        ).routing()

    before = routing(state="streaming", lag=0)
    assert routing(state="streaming", lag=99) == before
    assert routing(state="running", lag=0) == before
    assert routing(state="starting") != before
    assert routing(state="streaming", host="other") != before
    assert routing(state="streaming", timeline=2) != before
    assert routing(state="streaming", tags={"noloadbalance": True}) != before


@pytest.mark.parametrize(
    "junk", [b"", b"{", b"null", b"[]", b'{"members": {}}', b"\xff\xfe", b"[" * 100_000, b"1" * 9999]
)
def test_says_why_a_body_is_not_patronis(junk: bytes) -> None:
    with pytest.raises(PayloadError, match="the body is"):
        parse_cluster(junk)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_topology_or_a_payload_error(junk: bytes) -> None:
    with contextlib.suppress(PayloadError):
        assert isinstance(parse_cluster(junk), Topology)


@given(st.lists(ROW, max_size=5))
def test_any_rows_give_members_that_can_be_used(rows: list[dict[str, object]]) -> None:
    topology = parse_cluster(body(*rows))
    names = [member.name for member in topology.members]
    assert names == sorted(set(names))
    for member in topology.members:
        assert isinstance(member, Member)
        assert isinstance(member.serves_reads, bool)
        assert member.timeline is None or member.timeline >= 0
    assert hash(topology.routing()) is not None
