"""What a request to the REST API costs in CPU time over TLS: our client beside a plain ``requests.Session``.

Patroni ends each connection with its answer, so every request makes a TLS session. Needs no cluster: a server with a
certificate of its own answers on loopback, in another process, so that its time is not counted.

``python -m benchmarks.rest_client`` prints milliseconds of CPU a request, the median of several turns, one after the
other. The authorities are those of certifi and the server's own: as many as an operating system trusts.
"""

from __future__ import annotations

import http.server
import json
import multiprocessing
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import certifi
import requests
import trustme

if __name__ == "__main__" and not __package__:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from patroni_db.client import PatroniClient
from patroni_db.config import PatroniConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

REQUESTS: Final = 50
TURNS: Final = 7
MEMBER: Final = {"name": "n1", "role": "leader", "state": "running", "host": "127.0.0.1", "port": 5432, "timeline": 1}
ANSWER: Final = json.dumps({"members": [MEMBER], "scope": "demo"}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as Patroni does: HTTP/1.0, one answer a connection."""

    def do_GET(self) -> None:
        """Send the cluster's members."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def serve(certificate: str, told: Connection) -> None:
    """Answer over TLS until the process is ended; tell the port first."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    told.send(server.server_address[1])
    server.serve_forever()


def cpu_of(request: Callable[[], object]) -> float:
    """Return the milliseconds of CPU that one request takes."""
    before = time.process_time()
    for _ in range(REQUESTS):
        request()
    return (time.process_time() - before) / REQUESTS * 1e3


def main() -> None:
    """Measure both in turns, and print them and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        bundle, certificate = Path(folder, "bundle.pem"), Path(folder, "server.pem")
        bundle.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(str(certificate), theirs), daemon=True
        )
        server.start()
        url = f"https://127.0.0.1:{ours.recv()}"
        plain = requests.Session()
        plain.verify, plain.trust_env = str(bundle), False
        client = PatroniClient(PatroniConfig(urls=url, ca=str(bundle)))
        turns = []
        for _ in range(TURNS):
            stock = cpu_of(lambda: plain.get(f"{url}/cluster", timeout=5))
            turns.append((stock, cpu_of(lambda: client.cluster(url))))
        server.terminate()
        server.join()
    stock, own = (statistics.median(column) for column in zip(*turns, strict=True))
    print(f"requests.Session  {stock:6.2f} ms of CPU a request")
    print(f"PatroniClient     {own:6.2f} ms, {statistics.median(b / a for a, b in turns):.2f} of it")


if __name__ == "__main__":
    main()
