"""APIs that nobody should trust: what they say reaches neither a driver, nor a log, nor a terminal as they like."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from patroni_db.config import PatroniConfig
from patroni_db.discovery import Discovery
from patroni_db.errors import NoPrimaryError
from tests.spec.replay import wait_for_flights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.topology import Topology

Reply = tuple[int, dict[str, str], bytes]


class Api:
    """A REST API that answers what a test likes.

    :param cluster: the object that ``/cluster`` answers with
    """

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.node: Any = {"state": "running", "role": "primary", "timeline": 1, "database_system_identifier": "7"}
        self.reply: Callable[[str], Reply] = self._reply
        self.requests: list[tuple[str, dict[str, str]]] = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.requests.append((self.path, dict(self.headers)))
                status, headers, body = api.reply(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _reply(self, path: str) -> Reply:
        return 200, {}, json.dumps(self.cluster if path == "/cluster" else self.node).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def api() -> Iterator[Callable[[Any], Api]]:
    with contextlib.ExitStack() as stack:

        def start(cluster: Any) -> Api:
            made = Api(cluster)
            stack.callback(made.close)
            return made

        yield start


def member(name: str = "n1", role: str = "leader", **changes: Any) -> dict[str, Any]:
    row = {"name": name, "role": role, "state": "running", "host": "127.0.0.1", "port": 5432, "timeline": 1}
    return {**row, **changes}


def look(discovery: Discovery, times: int = 1) -> Topology:
    for _ in range(times):
        discovery.look()
        wait_for_flights()
    assert discovery.snapshot is not None
    return discovery.snapshot.topology


# -- Addresses ------------------------------------------------------------------------------------------------


def test_a_leader_elsewhere_is_not_reached_and_told_of_once(
    api: Callable[[Any], Api], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        member(host="evil.test,127.0.0.1", api_url="http://evil.test:8008/patroni"),
        member("n2", "replica", state="streaming", host="evil.test\\127.0.0.1"),
        member("n3", "replica", state="streaming"),
    ]
    server = api({"members": rows})
    discovery = Discovery(PatroniConfig(urls=server.url, allowed_hosts="127.0.0.1"))
    topology = look(discovery, times=3)
    assert [m.host for m in topology.members] == [None, None, "127.0.0.1"]
    assert [replica.name for replica in discovery.replicas()] == ["n3"]
    with pytest.raises(NoPrimaryError):
        discovery.primary()
    refusals = [record.getMessage() for record in caplog.records if "not connected to" in record.getMessage()]
    assert refusals == [
        "n1 is not connected to: the address evil.test,127.0.0.1:5432: patroni_allowed_hosts does not name it",
        "n1 is not connected to: the REST API http://evil.test:8008: patroni_allowed_hosts does not name it",
        r"n2 is not connected to: the address 'evil.test\\127.0.0.1', port 5432: neither a host name nor an address",
    ]
    discovery.close()


def test_a_redirect_leads_nowhere(api: Callable[[Any], Api]) -> None:
    trap = api({"members": [member()]})
    server = api(None)
    server.reply = lambda _path: (302, {"Location": f"{trap.url}/cluster"}, b"")
    discovery = Discovery(PatroniConfig(urls=server.url))
    discovery.look()
    wait_for_flights()
    assert "redirects to" in str(discovery.failure)
    assert not trap.requests
    discovery.close()
