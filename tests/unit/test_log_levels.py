"""A log tells once of what happens to many connections at once."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from patroni_db import PatroniConfig
from patroni_db.connections import Stamp
from patroni_db.live import LiveConnections
from patroni_db.log_levels import level_of_replacement
from patroni_db.topology import Address
from tests.unit.test_drivers import connecting

if TYPE_CHECKING:
    import pytest

STAMP = Stamp("n1", Address("10.0.0.1", 5432), 1)
OTHER = Stamp("n2", Address("10.0.0.2", 5432), 1)


class Discovery:
    def __init__(self) -> None:
        self.snapshot = SimpleNamespace(generation=1)


def test_the_first_of_a_kind_is_told_until_routing_moves() -> None:
    discovery: Any = Discovery()
    level = level_of_replacement
    assert level(discovery, STAMP, "hung up") == logging.INFO
    assert level(discovery, STAMP, "hung up") == logging.DEBUG
    assert level(discovery, OTHER, "hung up") == logging.INFO
    assert level(discovery, STAMP, "closed") == logging.INFO
    discovery.snapshot.generation += 1
    assert level(discovery, STAMP, "hung up") == logging.INFO
    assert level(Discovery(), STAMP, "hung up") == logging.INFO  # type: ignore[arg-type]


def test_a_server_has_one_name() -> None:
    assert str(STAMP) == "n1 (10.0.0.1:5432)"
    assert str(Stamp(None, Address("10.0.0.1", 5432), 1)) == "10.0.0.1:5432"


def test_connections_that_are_ended_are_counted_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "patroni_db.connections")
    live, config = LiveConnections(), PatroniConfig(urls=("http://127.0.0.1:9",), target="replica")
    connections = [connecting() for _ in range(3)]
    for connection, stamp in zip(connections, [STAMP, STAMP, OTHER], strict=True):
        live.add(connection, stamp, config)
    assert live.end_reads("n1") == 2
    assert live.end_reads("n1") == 0
    assert caplog.messages == ["ended 2 connections to n1 (10.0.0.1:5432): it does not answer"]
    for connection in connections:
        connection.close()
