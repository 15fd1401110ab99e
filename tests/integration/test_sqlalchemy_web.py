"""The example of a web application on SQLAlchemy alone: no request fails for a failover, and none is done twice."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from patroni_db import markers
from tests.integration.faults import crash, eventually, switchover
from tests.integration.synchronous import replicate_synchronously
from tests.integration.test_sqlalchemy_failover import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

pytest.importorskip("example_project.notes")
pytestmark = pytest.mark.timeout(180)

# A status, headers by their names in small letters, and the body's content.
Response = tuple[int, dict[str, str], Any]
MODULES = ("store", "wsgi", "asgi")


def forget_modules() -> None:
    package = vars(importlib.import_module("example_project.notes"))
    for name in MODULES:
        package.pop(name, None)
        sys.modules.pop(f"example_project.notes.{name}", None)


class Site:
    """The application behind one of its two interfaces, with an event loop of its own where it needs one."""

    def __init__(self, interface: str) -> None:
        forget_modules()  # the engine is made at import, for the cluster of this test
        self._module = importlib.import_module(f"example_project.notes.{interface}")
        self._store = importlib.import_module("example_project.notes.store")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._wsgi = interface == "wsgi"
        if self._wsgi:
            self._store.metadata.create_all(self._module.engine)
        else:
            self._run(self._create_all())

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(90)

    async def _create_all(self) -> None:
        async with self._module.engine.begin() as connection:
            await connection.run_sync(self._store.metadata.create_all)

    def close(self) -> None:
        if self._wsgi:
            self._module.engine.dispose()
        else:
            self._run(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        forget_modules()

    def get(self) -> Response:
        return self._request("GET", b"", None)

    def post(self, content: Any, key: str | None = None) -> Response:
        return self._request("POST", json.dumps(content).encode(), key)

    def _request(self, method: str, body: bytes, key: str | None) -> Response:
        if not self._wsgi:
            response: Response = self._run(self._asgi(method, body, key))
            return response
        environ = {"REQUEST_METHOD": method, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        if key is not None:
            environ["HTTP_IDEMPOTENCY_KEY"] = key
        began: list[Any] = []
        answer = b"".join(self._module.application(environ, lambda *given: began.extend(given)))
        return int(began[0].split()[0]), {name.lower(): value for name, value in began[1]}, json.loads(answer)

    async def _asgi(self, method: str, body: bytes, key: str | None) -> Response:
        parts = [body[:5], body[5:]]
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [] if key is None else [(b"idempotency-key", key.encode())]
        await self._module.application({"type": "http", "method": method, "headers": headers}, receive, send)
        given = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], given, json.loads(sent[1]["body"])

    async def _shut_down(self) -> None:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await self._module.application({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> Iterator[LocalCluster]:
    cluster = healthy_patroni_cluster
    yield cluster
    cluster.heal()
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS notes; {markers.DROP_TABLE}")


@pytest.fixture(name="start")
def sites(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    monkeypatch.setenv("PATRONI_API_URL", ",".join(cluster.urls))
    monkeypatch.setenv("PGUSER", cluster.user)
    monkeypatch.setenv("PGPASSWORD", cluster.password)
    monkeypatch.setenv("PGDATABASE", cluster.dbname)
    started = []

    def start(interface: str, **environment: str) -> Site:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        started.append(Site(interface))
        return started[-1]

    yield start
    for site in started:
        site.close()


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_requests(start: Callable[..., Site], interface: str) -> None:
    site = start(interface)
    assert site.get()[::2] == (200, {"notes": 0})
    assert site.post({"note": "a"})[::2] == (201, {"id": 1})
    assert site.post({"note": "b"}, key="7")[0] == 201
    assert site.post({"note": "b"}, key="7")[::2] == (200, {"stored": "before"})
    assert site.post(["no note"])[0] == 400
    assert site.post({"note": "c"}, key="x" * 200)[0] == 400
    assert site.get()[2] == {"notes": 2}


@pytest.mark.parametrize(
    ("interface", "fault"),
    [
        ("wsgi", crash),
        ("asgi", switchover),
        pytest.param("wsgi", switchover, marks=pytest.mark.thorough),
        pytest.param("asgi", crash, marks=pytest.mark.thorough),
    ],
)
def test_no_request_fails_in_a_failover(
    cluster: LocalCluster, start: Callable[..., Site], interface: str, fault: Callable[[LocalCluster], None]
) -> None:
    replicate_synchronously(cluster)
    site = start(interface)
    stop = threading.Event()

    def send(worker: int) -> list[tuple[str, int]]:
        answers: list[tuple[str, int]] = []
        while not stop.is_set():
            note = f"{worker} {len(answers)}"
            answers.append((note, site.post({"note": note})[0]))
        return answers

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(send, worker) for worker in range(4)]
        try:
            fault(cluster)
            before = rows(cluster, "SELECT count(*) FROM notes")[0][0]
            eventually(lambda: rows(cluster, "SELECT count(*) FROM notes")[0][0] > before + 40, "requests to go on")
        finally:
            stop.set()
        answers = [answer for future in futures for answer in future.result(60)]
    assert {status for _, status in answers} == {201}
    assert sorted(note for (note,) in rows(cluster, "SELECT note FROM notes")) == sorted(note for note, _ in answers)


def test_past_the_deadline_the_client_is_told_to_come_again(cluster: LocalCluster, start: Callable[..., Site]) -> None:
    sites = {interface: start(interface, NOTES_DEADLINE="1") for interface in ("wsgi", "asgi")}
    cluster.stop_etcd()
    for interface, site in sites.items():
        eventually(lambda site=site: site.post({"note": "later"})[0] == 503, "the primary to step down")  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
        status, headers, _ = site.post({"note": "later"}, key=interface)
        assert (status, headers["retry-after"]) == (503, "2")
    cluster.start_etcd()
    for interface, site in sites.items():
        eventually(
            lambda site=site, key=interface: site.post({"note": "later"}, key=key)[0] in {200, 201},  # type: ignore[misc]  # as above
            "a primary",
        )
    keys = rows(cluster, "SELECT key FROM patroni_commit_marker WHERE key IN ('notes:wsgi', 'notes:asgi') ORDER BY key")
    assert keys == [("notes:asgi",), ("notes:wsgi",)]
