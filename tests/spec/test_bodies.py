"""``GET /cluster`` of every Patroni version recorded, byte for byte."""

from __future__ import annotations

import pytest

from patroni_db.topology import Address, parse_cluster
from tests.spec.replay import HERE

BODIES = HERE / "bodies"


@pytest.mark.parametrize(
    ("version", "primary", "sync", "scope"),
    [
        ("2.1.7-sync", "n1", "n3", None),
        ("3.3.8-sync", "n1", "n3", "lab"),
        ("4.0.11-sync", "n1", "n2", "lab"),
        ("4.1.5-quorum", "n2", "n1", "lab"),
        ("4.1.5-member-gone", "n3", None, "lab"),
    ],
)
def test_versions(version: str, primary: str, sync: str | None, scope: str | None) -> None:
    topology = parse_cluster((BODIES / f"patroni-{version}.json").read_bytes())
    assert topology.scope == scope
    assert topology.primary is not None
    assert topology.primary.name == primary
    assert topology.primary.lag is None
    replicas = [member for member in topology.members if member is not topology.primary]
    assert all(replica.lag == 0 for replica in replicas)
    assert all(member.address == Address("127.0.0.1", member.port or 0) for member in topology.members)
    assert all((member.api_url or "").startswith("http://127.0.0.1:") for member in topology.members)
    if sync is not None:
        member = topology.member(sync)
        assert member is not None
        assert member.role in {"sync_standby", "quorum_standby"}
    reading = {member.name for member in replicas if member.serves_reads}
    assert reading == {member.name for member in replicas} - {"n3"}  # n3 is tagged noloadbalance


def test_a_standby_cluster_has_no_primary() -> None:
    topology = parse_cluster((BODIES / "patroni-4.1.5-standby-cluster.json").read_bytes())
    assert topology.primary is None
    assert topology.leader is not None
    assert topology.leader.is_standby_leader
    assert {member.name for member in topology.members if member.serves_reads} == {"n1", "n2"}
