"""What a server says between two statements: it is read and kept, and only the end of a session ends a connection."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg2
import pytest
import trustme

from patroni_db.connections import driver_of, is_lost
from tests.listening import heard_by, psycopg_must_keep_notifications

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARAMETERS = {
    "server_version": "18.1",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "in_hot_standby": "on",
}


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def parameter(name: str, value: str) -> bytes:
    return message(b"S", f"{name}\0{value}\0".encode())


def notification(payload: str) -> bytes:
    return message(b"A", struct.pack("!i", 7) + f"jobs\0{payload}\0".encode())


def notice(severity: str, kind: bytes = b"N") -> bytes:
    return message(kind, f"S{severity}\0V{severity}\0C57P01\0Msome words\0\0".encode())


FAREWELL = notice("FATAL", b"E")


class Server:
    """A PostgreSQL server that lets anybody in and then says what it is told to say."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.session: socket.socket
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._greet)
        self._thread.start()

    def _greet(self) -> None:
        session, _ = self._listener.accept()
        request = session.recv(8192)
        if request[4:8] == b"\x04\xd2\x16\x2f":  # SSLRequest
            session.sendall(b"N" if self._tls is None else b"S")
            session = session if self._tls is None else self._tls.wrap_socket(session, server_side=True)
            session.recv(8192)
        session.sendall(message(b"R", struct.pack("!i", 0)) + message(b"K", struct.pack("!ii", 1, 2)))
        session.sendall(b"".join(parameter(*one) for one in PARAMETERS.items()) + message(b"Z", b"I"))
        self.session = session
        self._ready.set()

    def says(self, *messages: bytes, then_ends: bool = False) -> None:
        assert self._ready.wait(10)
        self.session.sendall(b"".join(messages))
        if then_ends:
            self.session.close()
        time.sleep(0.02)  # for the kernel to deliver

    def close(self) -> None:
        self._thread.join(10)
        self.session.close()
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with contextlib.closing(Server()) as made:
        yield made


def psycopg_to(server: Server, **more: Any) -> Any:
    return psycopg.connect(host="127.0.0.1", port=server.port, user="app", dbname="app", autocommit=True, **more)


def psycopg2_to(server: Server, **more: Any) -> Any:
    connection = psycopg2.connect(host="127.0.0.1", port=server.port, user="app", dbname="app", **more)
    connection.autocommit = True
    return connection


CONNECT: dict[str, Callable[..., Any]] = {"psycopg": psycopg_to, "psycopg2": psycopg2_to}
drivers = pytest.mark.parametrize("driver", CONNECT)


@pytest.fixture
def connection(server: Server, driver: str) -> Iterator[Any]:
    with contextlib.closing(CONNECT[driver](server)) as made:
        yield made


HARMLESS = {
    "nothing": b"",
    "a notification": notification("a"),
    "a changed parameter": parameter("in_hot_standby", "off"),
    "a notice": notice("NOTICE"),
    "a warning": notice("WARNING"),
    "the first bytes of a notification": notification("a")[:7],
}


@drivers
@pytest.mark.parametrize("said", HARMLESS)
def test_a_healthy_session_may_say_what_it_likes(server: Server, connection: Any, said: str) -> None:
    server.says(HARMLESS[said])
    assert not is_lost(connection)
    assert not is_lost(connection)
    assert not connection.closed


@drivers
def test_notifications_are_kept_for_the_application(server: Server, connection: Any) -> None:
    many = [str(number) * 100 for number in range(1000)]  # more than a driver reads at once
    server.says(*map(notification, many))
    assert not is_lost(connection)
    server.says(notification("later"))
    assert not is_lost(connection)
    assert heard_by(connection, 0) == [*many, "later"]


def test_handlers_of_the_application_are_called(server: Server) -> None:
    with contextlib.closing(psycopg_to(server)) as connection:
        notes: list[str] = []
        notices: list[str | None] = []
        connection.add_notify_handler(lambda told: notes.append(told.payload))
        connection.add_notice_handler(lambda told: notices.append(told.severity))
        server.says(notification("a"), notice("NOTICE"), notification("b"))
        assert not is_lost(connection)
        assert (notes, notices) == (["a", "b"], ["NOTICE"])


def test_notices_are_kept_where_the_driver_keeps_them(server: Server) -> None:
    with contextlib.closing(psycopg2_to(server)) as connection:
        server.says(notice("NOTICE"))
        assert not is_lost(connection)
        assert connection.notices == ["NOTICE:  some words\n"]


def test_the_application_may_keep_notices_elsewhere(server: Server) -> None:
    class Log:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def append(self, line: str) -> None:
            self.lines.append(line)

    with contextlib.closing(psycopg2_to(server)) as connection:
        connection.notices = log = Log()
        server.says(notice("NOTICE"))
        assert not is_lost(connection)
        assert log.lines == ["NOTICE:  some words\n"]


@drivers
def test_a_changed_parameter_is_known_at_once(server: Server, connection: Any) -> None:
    driver = driver_of(connection)
    assert driver.parameter(connection, "in_hot_standby") == "on"
    server.says(parameter("in_hot_standby", "off"))
    assert not is_lost(connection)
    assert driver.parameter(connection, "in_hot_standby") == "off"


@drivers
@pytest.mark.parametrize(
    "said", [b"", FAREWELL, notification("a") + FAREWELL, notification("a" * 1000) * 100 + FAREWELL]
)
def test_a_session_that_ended_is_lost(server: Server, connection: Any, said: bytes) -> None:
    server.says(said, then_ends=True)
    assert is_lost(connection)


def test_the_last_word_is_enough(server: Server) -> None:
    with contextlib.closing(psycopg_to(server)) as connection:
        server.says(FAREWELL)  # its process still ends
        assert is_lost(connection)


def test_the_end_is_awaited_where_the_driver_keeps_only_words(server: Server) -> None:
    with contextlib.closing(psycopg2_to(server)) as connection:
        server.says(FAREWELL)
        end = threading.Timer(0.002, server.session.shutdown, [socket.SHUT_RDWR])
        end.start()
        assert is_lost(connection)
        end.join()


@drivers
def test_a_pooler_tells_its_severity_once(server: Server, driver: str) -> None:
    with contextlib.closing(CONNECT[driver](server)) as connection:
        server.says(message(b"E", b"SFATAL\0C08P01\0Mserver conn crashed?\0\0"), then_ends=True)
        assert is_lost(connection)


def test_what_its_user_reads_is_left_to_him(server: Server) -> None:
    with contextlib.closing(psycopg_to(server)) as connection:
        server.says(notification("a"), notification("b"))
        payloads = []
        for told in connection.notifies(timeout=1, stop_after=3):
            payloads.append(told.payload)
            if told.payload == "b":
                server.says(notification("c"))
            assert not is_lost(connection)
        assert payloads == ["a", "b", "c"]


@drivers
def test_no_poll_is_needed(server: Server, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eventlet takes it away; so do some platforms."""
    for name in ("poll", "epoll", "select"):
        monkeypatch.delattr(select, name, raising=False)
    assert not is_lost(connection)
    server.says(FAREWELL, then_ends=True)
    assert is_lost(connection)


@drivers
def test_tickets_of_tls_are_no_farewell(driver: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.num_tickets = 4
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.closing(Server(tls)))
        connection = stack.enter_context(contextlib.closing(CONNECT[driver](server, sslmode="require")))
        assert not is_lost(connection)
        server.says(notification("a"))
        assert not is_lost(connection)
        assert heard_by(connection, 0) == ["a"]
        server.says(FAREWELL, then_ends=True)
        assert is_lost(connection)


@pytest.mark.parametrize("said", HARMLESS)
def test_coroutines_read_alike(server: Server, said: str) -> None:
    async def run() -> None:
        arguments: Any = {"host": "127.0.0.1", "port": server.port, "user": "app", "dbname": "app"}
        async with await psycopg.AsyncConnection.connect(**arguments, autocommit=True) as connection:
            await asyncio.to_thread(server.says, HARMLESS[said])
            assert not is_lost(connection)
            if said == "a notification":
                psycopg_must_keep_notifications()
            notes = [told.payload async for told in connection.notifies(timeout=0)]
            assert notes == (["a"] if said == "a notification" else [])
            await asyncio.to_thread(server.says, then_ends=True)
            assert is_lost(connection)

    asyncio.run(run())


def test_asyncpg_reads_for_itself(server: Server) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(host="127.0.0.1", port=server.port, user="app", database="app", ssl=False)
        logged: list[Any] = []
        connection.add_log_listener(lambda _, told: logged.append(told))
        await asyncio.to_thread(server.says, parameter("in_hot_standby", "off"), notification("a"), notice("NOTICE"))
        await asyncio.sleep(0.02)
        assert not is_lost(connection)
        assert driver_of(connection).parameter(connection, "in_hot_standby") == "off"
        assert len(logged) == 1
        await asyncio.to_thread(server.says, FAREWELL, then_ends=True)
        await asyncio.sleep(0.02)
        assert is_lost(connection)
        connection.terminate()

    asyncio.run(run())
