"""Push from etcd: a real etcd that is restarted, frozen, compacted, cut off or not etcd at all, and a real cluster."""

from __future__ import annotations

import base64
import contextlib
import gc
import http.client
import json
import logging
import os
import pickle
import signal
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import trustme

from patroni_db import PatroniConfig
from patroni_db.acquisition import Attempt, acquire
from patroni_db.cluster.binaries import find_etcd
from patroni_db.discovery import Discovery
from patroni_db.etcd import EtcdWatch
from patroni_db.etcd_client import EtcdClient
from patroni_db.etcd_messages import NoticeKind
from patroni_db.libpq import attempt_params, with_defaults
from patroni_db.push import LeaderPush, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

SCOPE = "main"
KEY = f"/service/{SCOPE}/leader"
# Longer than any test: nothing is noticed by polling.
CALM = 600


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Etcd:
    """One etcd of our own, or one member of several."""

    def __init__(self, folder: Path, *options: str, context: ssl.SSLContext | None = None) -> None:
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{free_port()}"
        self.context = context
        self.token: str | None = None
        self._log = folder / "etcd.log"
        self._folder = folder
        self.peer = f"http://127.0.0.1:{free_port()}"
        self._command = [
            str(find_etcd(None).path),
            f"--data-dir={folder / 'data'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--name={folder.name}",
            f"--listen-peer-urls={self.peer}",
            f"--initial-advertise-peer-urls={self.peer}",
            f"--initial-cluster={folder.name}={self.peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        self.begin()
        until(self.is_well)
        return self

    def begin(self, *options: str) -> None:
        """Start without waiting; of options that are given twice the last one counts."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([*self._command, *options], stdout=log, stderr=log, cwd=self._folder)

    def is_well(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
            return "header" in self.post("/v3/maintenance/status", {})
        return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        parts = urlsplit(self.url)
        assert parts.hostname
        if self.context:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=5, context=self.context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
        with contextlib.closing(connection):
            headers = {"Authorization": self.token} if self.token else {}
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
            assert response.status == 200, answer
            return answer

    def put(self, owner: str) -> int:
        return int(self.post("/v3/kv/put", {"key": encoded(KEY), "value": encoded(owner)})["header"]["revision"])

    def delete(self) -> None:
        self.post("/v3/kv/deleterange", {"key": encoded(KEY)})

    def compact(self, revision: int) -> None:
        self.post("/v3/kv/compaction", {"revision": str(revision), "physical": True})

    def enable_authentication(self, user: str, password: str) -> None:
        for name, secret in (("root", "root-secret"), (user, password)):
            self.post("/v3/auth/user/add", {"name": name, "password": secret})
            self.post("/v3/auth/role/add", {"name": name})
            self.post("/v3/auth/user/grant", {"user": name, "role": name})
        permission = {"permType": "READ", "key": encoded("/service/"), "range_end": encoded("/service0")}
        self.post("/v3/auth/role/grant", {"name": user, "perm": permission})
        self.post("/v3/auth/enable", {})
        self.token = self.post("/v3/auth/authenticate", {"name": "root", "password": "root-secret"})["token"]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    server = Etcd(tmp_path)
    try:
        yield server.start()
    finally:
        server.kill()


class Relay:
    """A path to a server that can be cut, or swallow everything."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._sockets.add(ours)
            if self._is_cut:
                self._end(ours)
                continue
            theirs = socket.create_connection(self._target)
            self._sockets.add(theirs)
            for one, other in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                drain.sendall(data)
        self._end(source)
        self._end(drain)

    @staticmethod
    def _end(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self._is_cut = True
        for one in list(self._sockets):
            self._end(one)

    def mend(self) -> None:
        self._is_cut = False

    def swallow(self) -> None:
        self._flows.clear()

    def close(self) -> None:
        self._end(self._listener)
        self._listener.close()
        self._flows.set()
        for one in self._sockets:
            self._end(one)
            one.close()


@pytest.fixture
def relays(etcd: Etcd) -> Iterator[tuple[Relay, Relay]]:
    pair = (Relay(etcd.url), Relay(etcd.url))
    yield pair
    for relay in pair:
        relay.close()


class Server:
    """Not etcd: every connection gets the same bytes, or what `answers` has for its path, and is then left open."""

    def __init__(self, *parts: bytes, pause: float = 0.0, hangs: bool = False, **answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._parts, self._pause, self._hangs, self._answers = parts, pause, hangs, answers
        self._sockets: list[socket.socket] = []
        self.accepted = 0
        self.is_open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._sockets.append(one)
            threading.Thread(target=self._answer, args=(one,), daemon=True).start()

    def _answer(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request = one.recv(65536)
            path = request.split(b" ")[1:2]
            name = path[0].rpartition(b"/")[2].decode() if path else ""
            for part in (self._answers[name],) if name in self._answers else self._parts:
                one.sendall(part)
                time.sleep(self._pause)
            while self._hangs and one.recv(65536):
                pass
            one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Listener:
    """A thread that hears what a watch tells."""

    def __init__(self, *urls: str, silence: float = 600.0, **settings: Any) -> None:
        self.heard: list[str | None] = []
        self.stop = Stop()
        config = PatroniConfig(urls="http://127.0.0.1:9", etcd=urls, **{"timeout": 0.5, **settings})
        watch = EtcdWatch(config, SCOPE, silence=silence)
        self._thread = threading.Thread(target=watch.run, args=(self.heard.append, self.stop), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread.is_alive(), "the watch ended before it was told to"
        self.stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive(), "the watch did not end when it was told to"

    def hears(self, owner: str | None) -> None:
        until(lambda: self.heard[-1:] == [owner])


def test_every_change_is_told_and_nothing_else(etcd: Etcd) -> None:
    with Listener(etcd.url) as listener:
        listener.hears(None)
        for owner in ("n1", "n2"):
            etcd.put(owner)
            listener.hears(owner)
        etcd.post("/v3/kv/put", {"key": encoded(f"{KEY}2"), "value": encoded("x")})
        etcd.delete()
        listener.hears(None)
    assert listener.heard == [None, "n1", "n2", None]


def test_a_change_between_the_read_and_the_watch_is_not_missed(etcd: Etcd) -> None:
    etcd.put("n1")
    client = EtcdClient(PatroniConfig(urls="http://127.0.0.1:9", etcd=etcd.url), Stop())
    leader = client.leader(etcd.url, KEY)
    etcd.put("n2")
    with contextlib.closing(client.watch(etcd.url, KEY, leader.revision + 1, 5.0)) as notices:
        assert next(notices).kind is NoticeKind.OPENED
        assert next(notices).owner == "n2"


def test_a_watch_from_a_compacted_revision_ends_and_the_next_one_starts_with_a_read(etcd: Etcd) -> None:
    etcd.put("n1")
    client = EtcdClient(PatroniConfig(urls="http://127.0.0.1:9", etcd=etcd.url), Stop())
    leader = client.leader(etcd.url, KEY)
    etcd.put("n2")
    etcd.compact(etcd.put("n3"))
    with contextlib.closing(client.watch(etcd.url, KEY, leader.revision + 1, 5.0)) as notices:
        ended = next(notice for notice in notices if notice.kind is NoticeKind.ENDED)
    assert "compacted" in ended.reason


def test_what_changed_and_was_compacted_while_the_connection_was_cut_is_learned(
    etcd: Etcd, relays: tuple[Relay, Relay]
) -> None:
    etcd.put("n1")
    with Listener(relays[0].url) as listener:
        listener.hears("n1")
        relays[0].cut()
        etcd.put("n2")
        etcd.compact(etcd.put("n3"))
        before = relays[0].accepted
        until(lambda: relays[0].accepted > before)  # it is trying
        relays[0].mend()
        listener.hears("n3")
        etcd.put("n1")
        listener.hears("n1")
    assert "n2" not in listener.heard


@pytest.mark.thorough
def test_a_restart_is_survived_and_told_once(etcd: Etcd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "patroni_db.push")
    etcd.put("n1")
    with Listener(etcd.url) as listener:
        listener.hears("n1")
        until(lambda: "watching" in caplog.text)
        etcd.kill()
        until(lambda: "cannot be watched" in caplog.text)
        time.sleep(1)  # some more tries
        etcd.start()
        etcd.put("n2")
        listener.hears("n2")  # by reading
        etcd.put("n3")
        listener.hears("n3")
        until(lambda: caplog.text.count(f"watching {KEY} at") == 2)
    assert caplog.text.count("cannot be watched") == 1


def test_a_frozen_etcd_is_left_and_the_change_learned_when_it_lives_again(etcd: Etcd) -> None:
    etcd.put("n1")
    with Listener(etcd.url, silence=0.5) as listener:
        listener.hears("n1")
        etcd.signal(signal.SIGSTOP)
        time.sleep(1.5)  # silence, then a read that is not answered
        etcd.signal(signal.SIGCONT)
        etcd.put("n2")
        listener.hears("n2")


def test_an_endpoint_that_swallows_everything_is_left_for_another(etcd: Etcd, relays: tuple[Relay, Relay]) -> None:
    etcd.put("n1")
    with Listener(*(relay.url for relay in relays), silence=0.5) as listener:
        listener.hears("n1")
        used = max(relays, key=lambda relay: relay.accepted)
        used.swallow()
        etcd.put("n2")
        listener.hears("n2")


@pytest.mark.thorough
def test_a_member_that_lost_the_others_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It would keep silent for as long as it is alone."""
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    members = [Etcd(folder) for folder in folders]
    everybody = ",".join(f"{folder.name}={member.peer}" for folder, member in zip(folders, members, strict=True))
    try:
        for member in members:
            member.begin(f"--initial-cluster={everybody}")
        alone, *others = members
        until(alone.is_well)
        alone.put("n1")
        with Listener(alone.url, timeout=5) as listener:
            listener.hears("n1")
            for member in others:
                member.kill()
            until(lambda: "etcdserver: no leader" in caplog.text)
    finally:
        for member in members:
            member.kill()


HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
READ = HEADER + b'{"header":{"revision":"5"},"kvs":[{"value":"bjE="}]}'
OPENED = b'{"result":{"header":{"revision":"5"},"created":true}}\n'
NOT_ETCD: dict[str, Callable[[], Server]] = {
    "nothing": lambda: Server(hangs=True),
    "hangs up": Server,
    "bytes": lambda: Server(os.urandom(4096)),
    "a banner": lambda: Server(b"SSH-2.0-OpenSSH_9.6\r\n", hangs=True),
    "a page": lambda: Server(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"),
    "an error page": lambda: Server(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>"),
    "a redirect": lambda: Server(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"),
    "other JSON": lambda: Server(HEADER + b"[1, 2]"),
    "a broken chunk": lambda: Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "a body cut short": lambda: Server(b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n{"),
    "an endless line": lambda: Server(HEADER, *[b"x" * 65536] * 64),
    "drops": lambda: Server(*(bytes([byte]) for byte in READ), pause=0.2),
    "a read and then no watch": lambda: Server(range=READ, hangs=True),
    "a read and then garbage": lambda: Server(range=READ, watch=HEADER + os.urandom(99) + b"\n"),
    "a watch that ends": lambda: Server(range=READ, watch=HEADER + OPENED),
    "a watch with an endless line": lambda: Server(range=READ, watch=HEADER + OPENED + b"x" * (2 << 20)),
}


@pytest.mark.parametrize("what", NOT_ETCD)
def test_what_is_not_etcd_is_left_for_what_is(what: str, etcd: Etcd) -> None:
    etcd.put("n7")
    server = NOT_ETCD[what]()
    with contextlib.closing(server), Listener(server.url, etcd.url) as listener:
        listener.hears("n7")
        etcd.put("n8")
        until(lambda: "n8" in listener.heard)


@pytest.mark.thorough
def test_what_is_not_etcd_is_asked_ever_more_rarely_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
    with contextlib.closing(server), Listener(server.url):
        until(lambda: server.accepted >= 4)
        counted, began = server.accepted, time.monotonic()
        time.sleep(2)
        # The pauses double: after four tries they are of 0.4 s at least.
        assert server.accepted - counted <= 1 + (time.monotonic() - began) / 0.4
    assert [record.message for record in caplog.records if record.name == "patroni_db.push"] == [
        f"etcd cannot be watched, Patroni's APIs are polled as ever: {server.url}: not etcd's answer: not JSON"
    ]


@pytest.mark.thorough
def test_endpoints_that_take_turns_in_failing_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "patroni_db.push")
    fickle, page = NOT_ETCD["a watch that ends"](), NOT_ETCD["a page"]()
    with contextlib.closing(fickle), contextlib.closing(page), Listener(fickle.url, page.url) as listener:
        until(lambda: fickle.accepted >= 6)  # two for each try
    assert caplog.text.count("cannot be watched") == 1
    assert caplog.text.count("watching") <= 1
    assert set(listener.heard) == {"n1"}


@pytest.mark.parametrize("what", ["nothing", "drops", "a read and then no watch"])
def test_a_stop_interrupts_a_read(what: str) -> None:
    server = NOT_ETCD[what]()
    with contextlib.closing(server):
        listener = Listener(server.url, timeout=60)
        with listener:  # leaving it must not last a minute
            until(lambda: server.accepted > 0)


def test_a_user_is_authenticated(etcd: Etcd, caplog: pytest.LogCaptureFixture) -> None:
    etcd.put("n1")
    etcd.enable_authentication("reader", "hunter2-secret")
    with Listener(etcd.url, etcd_user="reader", etcd_password="hunter2-secret", timeout=5) as listener:
        listener.hears("n1")
        etcd.put("n2")
        listener.hears("n2")
    assert not caplog.records
    with Listener(etcd.url, etcd_user="reader", etcd_password="hunter3-secret", timeout=5) as listener:
        until(lambda: "authentication failed" in caplog.text)
    with Listener(etcd.url, timeout=5) as listener:
        until(lambda: "user name is empty" in caplog.text)
    assert not listener.heard
    assert "secret" not in caplog.text


def test_tls_with_certificates_on_both_sides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, other = trustme.CA(), trustme.CA()
    files = {}
    for name, certificate in {
        "server": authority.issue_cert("127.0.0.1"),
        "client": authority.issue_cert("app"),
        "stranger": other.issue_cert("app"),
    }.items():
        files[name] = tmp_path / f"{name}.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(str(files[name]))
    for name, one in (("ca", authority), ("other", other)):
        files[name] = tmp_path / f"{name}.pem"
        one.cert_pem.write_to_path(str(files[name]))
    context = ssl.create_default_context(cafile=str(files["ca"]))
    context.load_cert_chain(files["client"])
    server = Etcd(
        tmp_path,
        f"--cert-file={files['server']}",
        f"--key-file={files['server']}",
        f"--trusted-ca-file={files['ca']}",
        "--client-cert-auth",
        context=context,
    )
    try:
        server.start()
        server.put("n1")
        with Listener(server.url, etcd_ca=files["ca"], etcd_cert=files["client"], timeout=5) as listener:
            listener.hears("n1")
            server.put("n2")
            listener.hears("n2")
        apis: dict[str, Any] = {"urls": "https://127.0.0.1:9", "ca": files["ca"], "cert": files["client"]}
        config = PatroniConfig(**apis, etcd=server.url)  # those of the APIs, where etcd has none of its own
        assert EtcdClient(config, Stop()).leader(server.url, KEY).owner == "n2"
        with Listener(server.url, etcd_ca=files["other"], timeout=5):
            until(lambda: "certificate verify failed" in caplog.text)
        with Listener(server.url, etcd_ca=files["ca"], etcd_cert=files["stranger"], timeout=5) as listener:
            until(lambda: caplog.text.count("cannot be watched") == 2)
        assert not listener.heard
    finally:
        server.kill()


# -- On a cluster --------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "patroni-db push"]


def watching(cluster: LocalCluster, caplog: pytest.LogCaptureFixture, **settings: Any) -> Discovery:
    """Return a discovery that will hardly ever look by itself, and whose watch stands."""
    caplog.set_level(logging.INFO, "patroni_db.push")
    config = PatroniConfig(**{"urls": cluster.urls, **cluster.etcd_settings, "refresh": CALM, **settings})
    discovery = Discovery(config)
    assert discovery.primary().name == cluster.leader
    until(lambda: f"watching /service/{cluster.scope}/leader" in caplog.text)
    return discovery


def leader_of(discovery: Discovery) -> str | None:
    snapshot = discovery.snapshot
    return snapshot.topology.leader.name if snapshot is not None and snapshot.topology.leader is not None else None


def test_a_switchover_is_noticed_without_polling(cluster: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(watching(cluster, caplog)) as discovery:
        leader = cluster.switchover()
        until(lambda: leader_of(discovery) == leader)


@pytest.mark.thorough
def test_a_killed_node_is_noticed_without_polling(cluster: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(watching(cluster, caplog)) as discovery:
        killed = cluster.kill_node()
        assert leader_of(discovery) == killed
        cluster.expire_leader()
        leader = cluster.wait_for_leader(other_than=killed)
        until(lambda: leader_of(discovery) == leader)


def test_a_statement_that_hangs_at_a_frozen_primary_is_ended(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    user = {"dbname": cluster.dbname, "user": cluster.user, "password": cluster.password}

    def connect(attempt: Attempt) -> psycopg.Connection[Any]:
        return psycopg.connect(**attempt_params(with_defaults(user), attempt))

    with contextlib.closing(watching(cluster, caplog)) as discovery, ThreadPoolExecutor(1) as pool:
        connection, stamp = acquire(discovery, discovery.config, connect)
        connection.execute("SELECT 1")
        hanging = pool.submit(connection.execute, "SELECT pg_sleep(150)")
        assert cluster.freeze() == stamp.member
        cluster.expire_leader()
        with pytest.raises(psycopg.OperationalError):
            hanging.result(60)
        assert connection.closed
        assert leader_of(discovery) != stamp.member


@pytest.mark.thorough
def test_heartbeats_of_the_leader_make_no_looks(cluster: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(watching(cluster, caplog)) as discovery:
        until(lambda: discovery.failure is None)
        looks = discovery._looks
        time.sleep(3 * cluster.settings.loop_wait)
        assert discovery._looks <= looks + 1


@pytest.mark.thorough
def test_an_outage_of_etcd_fails_nothing_and_the_watch_returns(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(watching(cluster, caplog)) as discovery:
        cluster.stop_etcd()
        until(lambda: "cannot be watched" in caplog.text)
        assert discovery.topology().members
        assert discovery.failure is None
        cluster.start_etcd()
        cluster.wait_for_leader()
        cluster.wait_until_streaming()
        until(lambda: caplog.text.count("watching /service") == 2)
        until(lambda: leader_of(discovery) == cluster.leader)
        leader = cluster.switchover()
        until(lambda: leader_of(discovery) == leader)


@pytest.mark.thorough
def test_without_etcd_polling_does_it(cluster: LocalCluster) -> None:
    server = Server(hangs=True)
    config = PatroniConfig(urls=cluster.urls, etcd=server.url, refresh=0.5)
    with contextlib.closing(server), contextlib.closing(Discovery(config)) as discovery:
        assert discovery.primary().name == cluster.leader
        until(lambda: server.accepted > 0)
        leader = cluster.switchover()
        until(lambda: leader_of(discovery) == leader)


@pytest.mark.thorough
def test_a_namespace_that_is_not_patronis_is_told(cluster: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    settings: dict[str, Any] = {"urls": cluster.urls, **cluster.etcd_settings}
    config = PatroniConfig(**settings, namespace="/elsewhere")
    with contextlib.closing(Discovery(config)) as discovery:
        discovery.primary()
        until(lambda: "the leader key names nobody" in caplog.text)
        assert discovery.primary().name == cluster.leader


def test_the_thread_ends_with_its_discovery_and_starts_again_with_it(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(threads())
    discovery = watching(cluster, caplog)
    assert len(threads()) == before + 1
    discovery.close()
    until(lambda: len(threads()) == before)
    discovery.wait_for_look()
    until(lambda: len(threads()) == before + 1)
    del discovery
    gc.collect()
    until(lambda: len(threads()) == before)


def test_a_forked_child_has_its_own_watch_and_nothing_of_its_parents(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    discovery = watching(cluster, caplog)
    port = urlsplit(cluster.etcd_url).port

    def connections() -> list[int]:
        """Return the descriptors of connections to etcd."""
        found = psutil.Process().net_connections("tcp")
        return [one.fd for one in found if getattr(one.raddr, "port", None) == port and one.status == "ESTABLISHED"]

    until(lambda: len(connections()) == 1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # the child must reach its end without ever returning into pytest
        with contextlib.suppress(BaseException):
            inherited = connections()
            discovery.wait_for_look()
            until(lambda: len(connections()) == 1)
            own = len(threads())
            discovery.close()
            until(lambda: not threads() and not connections())
            os.write(writing, pickle.dumps((inherited, own)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert pickle.loads(answer) == ([], 1)
    with contextlib.closing(discovery):  # the parent's watch was not disturbed
        assert caplog.text.count("watching /service") == 1
        leader = cluster.switchover()
        until(lambda: leader_of(discovery) == leader)


def test_anything_that_knows_the_leader_can_be_plugged_in(cluster: LocalCluster) -> None:
    leaders: list[str] = []
    told = threading.Event()

    class Bus:
        def run(self, changed: Callable[[str | None], None], stop: Stop) -> None:
            while not stop.wait(0.05):
                if told.is_set():
                    changed(leaders[-1])

    discovery = Discovery(PatroniConfig(urls=cluster.urls, refresh=CALM))
    assert discovery.primary().name == cluster.leader
    push = LeaderPush(discovery, Bus())
    push.start()
    leaders.append(cluster.switchover())
    assert leader_of(discovery) != leaders[-1]
    told.set()
    until(lambda: leader_of(discovery) == leaders[-1])
    push.stop()
    until(lambda: not threads())
    discovery.close()
