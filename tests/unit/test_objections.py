"""What speaks against a server that a connection leads to, and with what force."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from patroni_db.config import PatroniConfig
from patroni_db.connections import Stamp, objection_to
from patroni_db.live import must_end
from patroni_db.network import AddressBook
from patroni_db.snapshot import Snapshot
from patroni_db.topology import Address, parse_cluster
from tests.unit.views import row

FAULT, PREFERENCE, NOTHING = True, False, None

LEADER = row("n1", "leader")
CALM = [LEADER, row("n2"), row("n3")]
FAILED_OVER = [row("n1"), row("n2", "leader"), row("n3")]
NO_LEADER = [row("n1"), row("n2"), row("n3")]

# Where a connection leads: to the primary n1, to the replica n2.
TO_PRIMARY = Stamp("n1", Address("n1.test", 5432), 1, primary=True)
TO_REPLICA = Stamp("n2", Address("n2.test", 5432), 1)
TO_FALLBACK = Stamp(None, Address("db.test", 5432), 0)


def seen(rows: list[dict[str, Any]], generation: int = 2, **more: Any) -> Snapshot:
    topology = parse_cluster(json.dumps({"members": rows, "scope": "lab"}))
    return Snapshot(topology, generation, "http://n1:8008", 0.0, 1, AddressBook(), **more)


def force(stamp: Stamp, snapshot: Snapshot | None, target: Any, holds: bool | None = True, **settings: Any) -> Any:
    config = PatroniConfig(urls=("http://n1:8008",), target=target, **settings)
    objection = objection_to(stamp, config, snapshot, holds=holds)
    return NOTHING if objection is None else objection.is_fault


READERS = ("replica", "replica_preferred", "any", "primary_preferred")


@pytest.mark.parametrize("target", READERS[:3])
@pytest.mark.parametrize(
    ("rows", "more", "settings", "expected"),
    [
        (CALM, {}, {}, NOTHING),
        (NO_LEADER, {}, {}, NOTHING),
        ([LEADER, row("n2", tags={"noloadbalance": True}), row("n3")], {}, {}, PREFERENCE),
        ([LEADER, row("n2", lag=101), row("n3")], {}, {"max_lag": 100}, PREFERENCE),
        ([LEADER, row("n2", lag="unknown"), row("n3")], {}, {"max_lag": 100}, PREFERENCE),
        ([LEADER, row("n2", tags={"zone": "b"}), row("n3")], {}, {"tags": "zone=a"}, PREFERENCE),
        ([LEADER, row("n2", state="starting", timeline=None), row("n3")], {}, {}, PREFERENCE),
        ([LEADER, row("n2", host="elsewhere.test"), row("n3")], {}, {}, PREFERENCE),
        (CALM, {"failing": frozenset({"n2"})}, {}, PREFERENCE),
        (CALM, {"silent": frozenset({"n2"})}, {}, PREFERENCE),
        ([LEADER, row("n3")], {}, {}, FAULT),
    ],
)
def test_a_reader_on_a_replica(
    target: str, rows: list[dict[str, Any]], more: dict[str, Any], settings: dict[str, Any], expected: bool | None
) -> None:
    assert force(TO_REPLICA, seen(rows, **more), target, **settings) is expected


def test_lag_is_looked_at_under_the_same_view() -> None:
    lagging = [LEADER, row("n2", lag=101), row("n3")]
    assert force(TO_REPLICA, seen(lagging, generation=1), "replica", max_lag=100) is PREFERENCE
    assert force(TO_REPLICA, seen(lagging, generation=1), "replica") is NOTHING


@pytest.mark.parametrize(
    ("target", "expected"), [("replica", PREFERENCE), ("replica_preferred", NOTHING), ("any", NOTHING)]
)
def test_a_reader_on_a_replica_that_was_promoted_may_finish(target: str, expected: bool | None) -> None:
    assert force(TO_REPLICA, seen(FAILED_OVER), target, holds=target != "replica") is expected
    assert force(TO_REPLICA, None, "replica", holds=False) is PREFERENCE


@pytest.mark.parametrize("target", READERS)
def test_a_reader_leaves_a_former_primary_at_once(target: str) -> None:
    assert force(TO_PRIMARY, seen(FAILED_OVER), target) is FAULT
    assert force(TO_PRIMARY, seen(NO_LEADER), target) is not FAULT, "nobody else is known"


def test_a_reader_for_whom_a_replica_is_second_choice_finishes_there() -> None:
    assert force(TO_REPLICA, seen(CALM), "primary_preferred") is PREFERENCE


@pytest.mark.parametrize(
    ("rows", "more", "expected"),
    [
        (CALM, {}, NOTHING),
        (NO_LEADER, {}, NOTHING),
        (CALM, {"failing": frozenset({"n1"})}, NOTHING),
        ([row("n1", "leader", tags={"noloadbalance": True}), row("n2")], {}, NOTHING),
        (CALM, {"silent": frozenset({"n1"})}, PREFERENCE),
        (FAILED_OVER, {}, FAULT),
        ([row("n2"), row("n3")], {}, FAULT),
    ],
)
def test_a_writer(rows: list[dict[str, Any]], more: dict[str, Any], expected: bool | None) -> None:
    assert force(TO_PRIMARY, seen(rows, **more), "primary") is expected


def test_a_writer_on_a_server_that_stands_by_leaves_it_at_once() -> None:
    for snapshot in (seen(CALM), seen(CALM, generation=1), None):
        assert force(TO_PRIMARY, snapshot, "primary", holds=False) is FAULT


def test_nothing_is_known_against_a_server_while_nothing_is_known() -> None:
    for target in ("primary", *READERS):
        assert force(TO_FALLBACK, None, target) is NOTHING
        assert force(TO_FALLBACK, None, target, holds=None) is NOTHING


@pytest.mark.parametrize("target", READERS)
def test_a_reader_on_a_fallback_host_finishes_there(target: str) -> None:
    assert force(TO_FALLBACK, seen(CALM, generation=1), target) is PREFERENCE


@pytest.mark.parametrize(
    ("stamp", "target", "rows", "generation", "expected"),
    [
        (TO_PRIMARY, "primary", CALM, 2, False),
        (TO_PRIMARY, "primary", NO_LEADER, 2, False),
        (TO_PRIMARY, "primary", FAILED_OVER, 2, True),
        (TO_REPLICA, "replica", [LEADER, row("n2", lag=10**9, tags={"noloadbalance": True})], 2, False),
        (TO_REPLICA, "replica", FAILED_OVER, 2, False),
        (TO_REPLICA, "replica", [LEADER, row("n3")], 2, True),
        (TO_PRIMARY, "any", FAILED_OVER, 2, False),
        # The first view may name it otherwise; later ones are not asked to.
        (TO_FALLBACK, "primary", CALM, 1, False),
        (TO_FALLBACK, "primary", FAILED_OVER, 2, True),
        (dataclasses.replace(TO_FALLBACK, address=Address("n1.test", 5432)), "primary", CALM, 1, False),
        (TO_FALLBACK, "replica", CALM, 2, False),
    ],
)
def test_what_is_ended_in_the_middle(
    stamp: Stamp, target: Any, rows: list[dict[str, Any]], generation: int, expected: bool
) -> None:
    config = PatroniConfig(urls=("http://n1:8008",), target=target)
    assert must_end(stamp, config, seen(rows, generation)) is expected
