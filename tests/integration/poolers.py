"""Poolers beside the nodes of a cluster, all on one port: PgBouncer where it is installed, and what it does to us.

PgBouncer tells every client what the server told the first session of the pool, for ever: also the role that the server
had then (1.18, measured). Without its server it still lets clients in, and refuses them with 08P01 a little later.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import socketserver
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cluster import LocalCluster
    from patroni_db.cluster.nodes import Node

__all__ = ["PGBOUNCER", "pgbouncers", "stand_ins"]

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

PATIENCE = 20.0

INI = """\
[databases]
* = host={node.host} port={node.port}
[pgbouncer]
listen_addr = {node.host}
listen_port = {port}
auth_type = plain
auth_file = {folder}/users.txt
pool_mode = {mode}
unix_socket_dir =
server_login_retry = 1
ignore_startup_parameters = extra_float_digits
"""


def free_port(cluster: LocalCluster) -> int:
    """Return a port that nobody listens on at any node's address."""
    while True:
        with contextlib.ExitStack() as stack:
            port = 0
            try:
                for node in cluster.nodes:
                    probe = stack.enter_context(socket.socket())
                    probe.bind((node.host, port))
                    port = probe.getsockname()[1]
            except OSError:
                continue
            return port


@contextlib.contextmanager
def pgbouncers(cluster: LocalCluster, mode: str) -> Iterator[int]:
    """Run a PgBouncer beside each node, in `mode`; return their port."""
    assert PGBOUNCER is not None
    port = free_port(cluster)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="patroni-db-pgbouncer-")))
        users = {cluster.user: cluster.password, cluster.superuser: cluster.superuser_password}
        folder.joinpath("users.txt").write_text("".join(f'"{name}" "{word}"\n' for name, word in users.items()))
        who = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
        if who is not None:
            for path in (folder, folder / "users.txt"):
                os.chown(path, pwd.getpwnam(who).pw_uid, -1)
        for node in cluster.nodes:
            ini = folder / f"{node.name}.ini"
            ini.write_text(INI.format(node=node, port=port, folder=folder, mode=mode))
            ini.chmod(0o644)
            process = subprocess.Popen([PGBOUNCER, "-q", ini], user=who, stdin=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            wait_for_listener(node.host, port)
        yield port


def wait_for_listener(host: str, port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens at {host}:{port}"
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def stand_ins(cluster: LocalCluster) -> Iterator[int]:
    """Run a stand-in for a pooler beside each node; return their port."""
    port = free_port(cluster)
    with contextlib.ExitStack() as stack:
        for node in cluster.nodes:
            server = stack.enter_context(StandIn(node, port))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield port


class StandIn(socketserver.ThreadingTCPServer):
    """Hands sessions on to a node, with the role that its server reported in the first of them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, node: Node, port: int) -> None:
        self.node = node
        self.welcome: bytes | None = None
        super().__init__((node.host, port), _Session)


class _Session(socketserver.BaseRequestHandler):
    server: StandIn

    def handle(self) -> None:
        client: socket.socket = self.request
        try:
            with socket.create_connection((self.server.node.host, self.server.node.port), timeout=1.0) as server:
                server.settimeout(None)
                back = threading.Thread(target=self._relay_answers, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()
        except OSError:
            with contextlib.suppress(OSError):
                self._refuse(client)

    def _refuse(self, client: socket.socket) -> None:
        """Let the client log in, and refuse it afterwards, as PgBouncer does that cannot reach its server."""
        (length,) = struct.unpack("!I", _read(client, 4))
        _read(client, length - 4)
        client.sendall(_message(b"R", struct.pack("!I", 0)))
        if self.server.welcome is not None:
            client.sendall(_message(b"S", self.server.welcome))
        client.sendall(_message(b"K", struct.pack("!II", 1, 1)) + _message(b"Z", b"I"))
        client.recv(1)  # its first statement
        fields = (b"SFATAL", b"C08P01", b"Mserver login has been failing, try again later (server_login_retry)")
        client.sendall(_message(b"E", b"".join(field + b"\0" for field in fields) + b"\0"))

    def _relay_answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            kind = b""
            while kind != b"Z":  # ready for the first statement
                kind = _read(server, 1)
                (length,) = struct.unpack("!I", _read(server, 4))
                body = _read(server, length - 4)
                if kind == b"S" and body.startswith(b"in_hot_standby\0"):
                    self.server.welcome = body = self.server.welcome or body
                client.sendall(_message(kind, body))
        _copy(server, client)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _read(source: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = source.recv(length - len(data))
        if not more:
            raise ConnectionResetError("it hung up")
        data += more
    return data


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Hand bytes on until either end hangs up, then have the other one hang up too."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
