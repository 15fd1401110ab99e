"""HAProxy in front of the cluster, with the settings of Patroni's reference configuration.

Those are: every three seconds each node's REST API is asked whether it leads, three answers count to take a server
out and two to take it in, and sessions of a server that was taken out are ended.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.children import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from patroni_db.cluster import Node

__all__ = ["find_haproxy", "haproxy"]

PORT = 5000

_CONFIGURATION = """\
global
    maxconn 500
defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
listen primary
    bind {host}:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
{servers}
"""


def find_haproxy() -> str | None:
    """Return the program; None when it is not installed."""
    return shutil.which("haproxy", path=None) or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def haproxy(program: str, host: str, nodes: Sequence[Node], folder: Path) -> Iterator[tuple[str, int]]:
    """Run HAProxy, and return where it listens once it leads to a server.

    :param program: the program
    :param host: an address of its own
    :param nodes: the cluster's
    :param folder: for its configuration and its log
    """
    servers = "\n".join(
        f"    server {node.name} {node.host}:{node.port} maxconn 100 check port {node.api_port}" for node in nodes
    )
    configuration = folder / "haproxy.cfg"
    configuration.write_text(_CONFIGURATION.format(host=host, port=PORT, servers=servers), encoding="utf-8")
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", str(configuration)], stdout=log, stderr=log)
    try:
        time.sleep(0.5)
        if process.poll() is not None:
            raise BenchmarkError(f"HAProxy ended:\n{(folder / 'haproxy.log').read_text()}")
        yield host, PORT
    finally:
        process.kill()
        process.wait()
