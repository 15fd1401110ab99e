"""What a connection is shows by what it can do, not by its class."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from patroni_db import PatroniConfig
from patroni_db.connections import Stamp, driver_of
from patroni_db.live import LiveConnections
from patroni_db.topology import Address
from tests.agents import OpaqueConnection, TracedConnection

CONFIG = PatroniConfig(urls=("http://127.0.0.1:9",))
STAMP = Stamp("n1", Address("127.0.0.1", 1), 1)


def connecting() -> psycopg.Connection[Any]:
    """Return a connection that is being made, to nowhere: nothing of it needs a server."""
    return psycopg.Connection(psycopg.pq.PGconn.connect_start(b"host=127.0.0.1 port=9"))


PROXIES = [lambda connection: TracedConnection(connection, []), lambda connection: OpaqueConnection(connection, [])]


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(
    "connection",
    [
        SimpleNamespace(pgconn=None),
        SimpleNamespace(get_parameter_status=None, closed=0),
        SimpleNamespace(get_settings=None),
    ],
)
def test_a_proxy_is_what_it_stands_for(proxy: Any, connection: Any) -> None:
    assert driver_of(proxy(proxy(connection))) is driver_of(connection)


def test_another_drivers_connection_is_named() -> None:
    with pytest.raises(TypeError, match=r"types\.SimpleNamespace is not supported"):
        driver_of(SimpleNamespace())


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_connection_is_watched_for_as_long_as_it_lives_not_its_proxy(proxy: Any) -> None:
    live = LiveConnections()
    connection = connecting()
    live.add(proxy(connection), STAMP, CONFIG)
    gc.collect()
    assert live.loads(CONFIG) == {"n1": 1}
    connection.close()
    assert not live.loads(CONFIG)
    assert len(live) == 0


@pytest.mark.filterwarnings("ignore:connection .* was deleted while still open:ResourceWarning")
def test_a_connection_that_is_collected_is_not_watched_any_more() -> None:
    live = LiveConnections()
    live.add(TracedConnection(connecting(), []), STAMP, CONFIG)
    gc.collect()
    assert len(live) == 0
