"""A member whose host can be no name of a host is a server that cannot be reached, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg2
import pytest

from patroni_db.acquisition import Attempt, acquire, acquire_async
from patroni_db.client import PatroniClient
from patroni_db.config import PatroniConfig
from patroni_db.discovery import Discovery
from patroni_db.errors import DiscoveryError, NoReplicaError
from patroni_db.etcd_client import EtcdClient, EtcdError
from patroni_db.libpq import attempt_params
from patroni_db.ping import accepts_connections, is_silent
from patroni_db.push import Stop
from patroni_db.selection import Target
from patroni_db.sockets import NoHostError, check_host
from patroni_db.topology import Address
from tests.spec.replay import Answers, wait_for_flights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.connections import Stamp

STRANGE = {
    "empty label": "pg-..internal",
    "only dots": "...",
    "long label": f"{'a' * 64}.internal",
    "long label beyond ASCII": f"{'ä' * 60}.internal",
    "long name": ".".join(["abcdefghi"] * 30),
    "very long name": "a" * 100_000,
    "lone surrogate": "pg\udc80.internal",
    "null": "127.0.0.1\0.internal",
    "forbidden by IDNA": "pg\u2028.internal",
    "left to right mark": "\u200e\u0627a.internal",
}
strange_hosts = pytest.mark.parametrize("host", STRANGE.values(), ids=STRANGE)


class FakeServer:
    """A standby that lets everybody in."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), connection:
            while True:
                (length,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))
                body = connection.recv(length - 4, socket.MSG_WAITALL)
                if body[:4] == struct.pack("!I", 196608):
                    break
                connection.sendall(b"N")  # neither TLS nor GSSAPI
            told = {
                "in_hot_standby": "on",
                "server_version": "17.0",
                "client_encoding": "UTF8",
                "DateStyle": "ISO, MDY",
            }
            status = b"".join(self._message(b"S", f"{k}\0{v}\0".encode()) for k, v in told.items())
            ready = self._message(b"K", struct.pack("!II", 1, 1)) + self._message(b"Z", b"I")
            connection.sendall(self._message(b"R", struct.pack("!I", 0)) + status + ready)
            while connection.recv(4096):
                pass

    @staticmethod
    def _message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!I", len(body) + 4) + body

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    one = FakeServer()
    yield one
    one.close()


def parameters(attempt: Attempt) -> dict[str, Any]:
    return attempt_params({"user": "app", "dbname": "app"}, attempt)


def with_psycopg(discovery: Discovery, config: PatroniConfig) -> Stamp:
    connection, stamp = acquire(discovery, config, lambda attempt: psycopg.connect(**parameters(attempt)))
    connection.close()
    return stamp


def with_psycopg2(discovery: Discovery, config: PatroniConfig) -> Stamp:
    connection, stamp = acquire(discovery, config, lambda attempt: psycopg2.connect(**parameters(attempt)))
    connection.close()
    return stamp


def with_psycopg_async(discovery: Discovery, config: PatroniConfig) -> Stamp:
    async def get() -> Stamp:
        connection, stamp = await acquire_async(
            discovery, config, lambda attempt: psycopg.AsyncConnection.connect(**parameters(attempt))
        )
        await connection.close()
        return stamp

    return asyncio.run(get())


def with_asyncpg(discovery: Discovery, config: PatroniConfig) -> Stamp:
    async def connect(attempt: Attempt) -> Any:
        address = attempt.address
        return await asyncpg.connect(host=address.host, port=address.port, user="app", database="app", ssl=False)

    async def get() -> Stamp:
        connection, stamp = await acquire_async(discovery, config, connect)
        connection.terminate()
        return stamp

    return asyncio.run(get())


drivers = pytest.mark.parametrize("driver", [with_psycopg, with_psycopg2, with_psycopg_async, with_asyncpg])


def nobody_answers(fallback_hosts: list[Address], target: Target) -> Discovery:
    config = PatroniConfig(urls="http://n1:8008", fallback_hosts=fallback_hosts, target=target, failover_timeout=10)
    answers = Answers()
    answers.set({"n1": "connection refused"})
    client: Any = lambda _: answers  # noqa: E731
    return Discovery(config, client=client, asks=lambda _: False, rng=random.Random(1))


@strange_hosts
@drivers
def test_reads_go_to_the_server_that_can_be_reached(server: FakeServer, driver: Any, host: str) -> None:
    good = Address("127.0.0.1", server.port)
    discovery = nobody_answers([Address(host, 5432), good], Target.ANY)  # REPLICA would ask for the isolation level
    try:
        for _ in range(3):
            assert driver(discovery, discovery.config).address == good
    finally:
        discovery.close()
        wait_for_flights()


@drivers
def test_where_there_is_no_other_the_error_names_the_host(driver: Any) -> None:
    discovery = nobody_answers([Address("pg-..internal", 5432)], Target.REPLICA)
    try:
        with pytest.raises(NoReplicaError, match=r"'pg-\.\.internal' is no name of a host"):
            driver(discovery, discovery.config.replace(failover_timeout=0.2))
    finally:
        discovery.close()
        wait_for_flights()


@strange_hosts
def test_no_question_to_it_fails_otherwise(host: str) -> None:
    with pytest.raises(NoHostError):
        check_host(host)
    assert not is_silent(Address(host, 5432))
    assert not accepts_connections(Address(host, 5432), 1.0)
    config = PatroniConfig(urls="http://n1:8008", etcd="http://n1:2379", timeout=1)
    with pytest.raises(DiscoveryError):
        PatroniClient(config).cluster(f"http://{host}:8008")
    with pytest.raises(EtcdError):
        EtcdClient(config, Stop()).leader(f"http://{host}:2379", "/service/lab/leader")


@pytest.mark.parametrize(
    "host",
    ["localhost", "db1.example.com.", "pg_1", "10.0.0.1", "::1", "fe80::1%eth0", "bücher.example", "/run/postgresql"],
)
def test_what_may_be_a_host_is_left_to_the_driver(host: str) -> None:
    check_host(host)
