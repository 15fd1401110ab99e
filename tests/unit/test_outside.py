"""Parameters for tools that connect by themselves: which servers they name, and that they stay the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from patroni_db import PatroniConfig
from patroni_db.errors import DiscoveryError
from patroni_db.network import AddressBook
from patroni_db.outside import outside_params
from patroni_db.snapshot import Snapshot
from tests.unit.views import row, view

if TYPE_CHECKING:
    from patroni_db.discovery import Discovery
    from patroni_db.topology import Topology

SOURCE = "http://n1:8008"
LEADER, N1, N3 = row("n2", "leader"), row("n1"), row("n3", port=5433)


class Known:
    """Stands for a discovery: with a view of these rows, or none."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.snapshot = Snapshot(view(*rows).topology, 1, SOURCE, 0.0, 1, AddressBook()) if rows else None

    def topology(self) -> Topology:
        raise DiscoveryError(SOURCE, "Connection refused", transient=True)


def params(*rows: dict[str, Any], **settings: Any) -> dict[str, Any]:
    known: Discovery = Known(*rows)  # type: ignore[assignment]  # all of it that is used
    config = PatroniConfig(urls=(SOURCE,), **settings)
    found = outside_params(known, config)
    assert all(outside_params(known, config) == found for _ in range(20))
    return found


def test_the_primary_comes_first_and_the_others_are_there_for_after_a_failover() -> None:
    assert params(N1, LEADER, N3) == {
        "host": "n2.test,n1.test,n3.test",
        "hostaddr": "",  # none of the environment's
        "port": "5432,5432,5433",
        "target_session_attrs": "read-write",
    }


def test_without_a_leader_the_driver_looks_for_one() -> None:
    found = params(N1, row("n2"), N3)
    assert (found["host"], found["target_session_attrs"]) == ("n1.test,n2.test,n3.test", "read-write")


def test_who_reads_is_given_replicas_that_are_eligible() -> None:
    found = params(N1, LEADER, row("n3", tags={"noloadbalance": True}), target="replica")
    assert (found["host"], found["target_session_attrs"]) == ("n1.test", "standby")


def test_the_primary_is_the_last_one_to_read_from() -> None:
    found = params(N1, LEADER, N3, target="replica_preferred")
    assert set(found["host"].split(",")[:2]) == {"n1.test", "n3.test"}
    assert found["host"].endswith(",n2.test")
    assert found["target_session_attrs"] == "prefer-standby"


def test_where_nobody_is_eligible_all_are_named() -> None:
    assert params(N1, LEADER, target="replica", tags="zone=a")["host"] == "n1.test,n2.test"


def test_any_server_has_no_role_to_prove() -> None:
    assert "target_session_attrs" not in params(N1, LEADER, target="any")


@pytest.mark.parametrize(
    ("settings", "host"),
    [({}, "no-patroni-api-has-answered.invalid"), ({"fallback_hosts": "db1:6000,db2:5432"}, "db1,db2")],
)
def test_without_a_view_nobody_is_sent_to_the_local_host(settings: dict[str, Any], host: str) -> None:
    assert params(**settings)["host"] == host
