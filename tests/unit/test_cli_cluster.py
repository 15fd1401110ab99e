from __future__ import annotations

from pathlib import Path

import pytest

from patroni_db.cli.cluster import outcome
from patroni_db.cli.cluster_psql import session_environment
from patroni_db.cluster.crash import CrashOutcome
from patroni_db.cluster.nodes import Node

NODES = [Node(name, f"127.0.77.{name[1]}", 5432, 8008, Path("/c"), Path("/r")) for name in ("n1", "n2")]


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (CrashOutcome("n1", "n1", "n2", is_back=False, waited=2.0), "failed over to n2"),
        (CrashOutcome("n1", "n1", "n2", is_back=True, waited=2.0), "failed over to n2"),
        (CrashOutcome("n1", "n1", "n1", is_back=True, waited=4.0), "restarted in place; it still leads"),
        (CrashOutcome("n2", "n1", "n1", is_back=True, waited=1.0), "restarted in place; n1 leads"),
        (
            CrashOutcome("n1", "n1", "n1", is_back=False, waited=30.0),
            "killed; neither restarted nor failed over within 30 s; the leader key is held by n1",
        ),
        (
            CrashOutcome("n1", "n1", None, is_back=False, waited=30.0),
            "killed; neither restarted nor failed over within 30 s; nobody leads",
        ),
    ],
)
def test_a_crash_is_told_by_what_came_of_it(seen: CrashOutcome, told: str) -> None:
    assert str(seen) == told


@pytest.mark.parametrize(
    ("kind", "node", "before", "after", "told"),
    [
        ("switchover", "n2", "n1", "n2", "n2 leads, n1 did before"),
        ("kill-node", "n3", "n1", "n1", "done; n1 leads"),
        ("freeze", "n1", "n1", "n1", "done; n1 keeps the leader key until 20 s have passed: no failover before, "),
        ("stop-etcd", None, "n1", None, "done; nobody leads"),
        ("heal", None, None, "n2", "done; n2 leads"),
    ],
)
def test_a_fault_is_told_by_its_effect(kind: str, node: str, before: str, after: str, told: str) -> None:
    assert outcome(kind, node, before, after, 20).startswith(told)


def test_psql_goes_to_the_primary_whatever_the_environment_says() -> None:
    inherited = {"PGHOST": "production", "PGSERVICE": "production", "PGPASSWORD": "x", "PGTZ": "UTC", "TERM": "xterm"}
    seen = session_environment(NODES, "app", "app", Path("/t/pgpass"), inherited)
    assert seen["PGHOST"] == "127.0.77.1,127.0.77.2"
    assert seen["PGTARGETSESSIONATTRS"] == "read-write"
    assert (seen["PGTZ"], seen["TERM"]) == ("UTC", "xterm")
    assert not {"PGSERVICE", "PGPASSWORD"} & set(seen)


def test_psql_takes_one_node_as_it_is() -> None:
    assert "PGTARGETSESSIONATTRS" not in session_environment(NODES[1:], "app", "app", Path("/t/pgpass"), {})
