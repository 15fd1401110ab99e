"""Requests that a fault of the primary interrupts: run again, answered from their first run, or told to come later."""

# ruff: noqa: S608 - tables' names are made here

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.signals import got_request_exception
from django.db import OperationalError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from django_backend.clusters import release
from django_backend.transaction import run_atomic
from django_backend.views import exactly_once, idempotent
from patroni_db import markers
from tests.integration.faults import crash, eventually
from tests.integration.synchronous import replicate_synchronously
from tests.integration.test_django_transaction import (
    admin,
    end,
    everybody_confirms,
    keys,
    nobody_confirms,
    notes,
)
from tests.integration.test_django_transaction import cluster as cluster  # noqa: PLC0414 - a fixture
from tests.integration.test_django_transaction import free as free  # noqa: PLC0414 - a fixture
from tests.integration.test_django_transaction import table as table  # noqa: PLC0414 - a fixture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

MIDDLEWARE = "django_backend.middleware.FailoverMiddleware"


# -- A site ---------------------------------------------------------------------------------------------------------


class World:
    """What the views of the test at hand work with."""

    cluster: LocalCluster
    table: str
    runs: list[Any]
    followed: list[int]
    # What ends the session within a view, in its first run.
    ends: bool


def pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (found,) = cursor.fetchone()
    return int(found)


def insert(note: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {World.table} VALUES (%s)", [note])


def add(request: HttpRequest) -> HttpResponse:
    """Store the note of the body; a "slow" one is so in the first run only, which sleeps in its COMMIT."""
    note = json.loads(request.body)["note"]
    World.runs.append(getattr(request, "seen", None))
    request.seen = True  # type: ignore[attr-defined]  # as middleware leaves things on requests
    if hasattr(request, "session"):
        request.session["runs"] = request.session.get("runs", 0) + 1
    transaction.on_commit(lambda: World.followed.append(len(World.runs)))
    insert(note if len(World.runs) == 1 else note.removeprefix("slow "))
    if World.ends and len(World.runs) == 1:
        end(World.cluster, pid())
    return JsonResponse({"run": len(World.runs), "pid": World.runs and pid() if not World.ends else None}, status=201)


@transaction.non_atomic_requests
def alone(request: HttpRequest) -> HttpResponse:
    return add(request)


@transaction.non_atomic_requests
def read(request: HttpRequest, what: str) -> HttpResponse:
    World.runs.append(request.path)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [0 if len(World.runs) > 1 else 60])
    return HttpResponse(f"run {len(World.runs)} of {request.path}")


def follow_badly(request: HttpRequest) -> HttpResponse:
    World.runs.append(1)

    def follow() -> None:
        end(World.cluster, pid())
        pid()
        raise OperationalError

    transaction.on_commit(follow)
    insert("once")
    return HttpResponse()


@method_decorator(exactly_once(), name="dispatch")
class Once(View):
    def post(self, request: HttpRequest) -> HttpResponse:
        return add(request)


async def from_a_loop(request: HttpRequest) -> HttpResponse:
    World.runs.append(1)

    def work() -> None:
        insert("once" if len(World.runs) > 1 else "slow")

    await sync_to_async(work)()
    return HttpResponse(f"run {len(World.runs)}")


async def rerun_in_a_loop(request: HttpRequest) -> HttpResponse:
    def work() -> int:
        World.runs.append(1)
        insert("once")
        if len(World.runs) == 1:
            end(World.cluster, pid())
        return len(World.runs)

    return HttpResponse(str(await sync_to_async(run_atomic)(work, exactly_once=True)))


urlpatterns = [
    path("add/", add),
    path("put/", idempotent(add)),
    path("once/", Once.as_view()),
    path("alone/", alone),
    path("read/<str:what>/", read),
    path("badly/", follow_badly),
    path("loop/", transaction.non_atomic_requests(from_a_loop)),
    path("rerun/", transaction.non_atomic_requests(rerun_in_a_loop)),
]


class Counting:
    """A middleware that needs the database before the view."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if World.ends and not World.followed:
            World.followed.append(0)
            with transaction.atomic():
                end(World.cluster, pid())
                pid()
        return self.get_response(request)


@pytest.fixture
def site(cluster: LocalCluster, table: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[World]]:
    """The project's own aliases on the cluster, the first one with ATOMIC_REQUESTS."""
    World.cluster, World.table, World.runs, World.followed, World.ends = cluster, table, [], [], False
    for alias in ("default", "replica"):
        entry = connections.settings[alias]
        options = {**entry["OPTIONS"], "patroni_urls": list(cluster.urls), "patroni_failover_timeout": 45}
        changes = {"NAME": cluster.dbname, "USER": cluster.user, "PASSWORD": cluster.password, "OPTIONS": options}
        for name, value in changes.items():
            monkeypatch.setitem(entry, name, value)
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    _forget()
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [MIDDLEWARE, "django.contrib.sessions.middleware.SessionMiddleware"]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.PATRONI_EXACTLY_ONCE = True
    settings.ALLOWED_HOSTS = ["*"]
    yield World
    _forget()
    release()


def _forget() -> None:
    for alias in ("default", "replica"):
        connections[alias].close()
        del connections[alias]


def post(address: str, note: str = "once", **more: Any) -> Any:
    client = Client(raise_request_exception=False)
    return client.post(address, {"note": note, **more}, content_type="application/json")


@contextlib.contextmanager
def lost_in_commit(cluster: LocalCluster, table: str, *, confirmed: bool = False) -> Iterator[None]:
    """End the session that is in its COMMIT; `confirmed`: after it has taken effect."""
    event = "SyncRep" if confirmed else "PgSleep"
    asked = "SELECT pid FROM pg_stat_activity WHERE wait_event = %s AND usename = %s"
    with admin(cluster) as connection, contextlib.ExitStack() as stack:

        def find() -> None:
            found: list[tuple[int]] = []

            def look() -> bool:
                found.extend(connection.execute(asked, [event, cluster.user]).fetchall())
                return bool(found)

            eventually(look, f"a session to be in {event}")
            end(cluster, found[0][0])
            if confirmed:
                everybody_confirms(cluster)

        if confirmed:
            stack.enter_context(nobody_confirms(cluster))
        thread = threading.Thread(target=find)
        thread.start()
        try:
            yield
        finally:
            thread.join(100)


# -- Run again ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/add/", "/once/"])
def test_a_post_that_was_lost_before_its_commit_runs_again(
    site: type[World], caplog: pytest.LogCaptureFixture, address: str
) -> None:
    site.ends = True
    told: list[object] = []

    def note(**_kwargs: object) -> None:
        told.append(1)

    got_request_exception.connect(note)
    try:
        with caplog.at_level(logging.WARNING, "django.request"):
            response = post(address)
    finally:
        got_request_exception.disconnect(note)
    assert (response.status_code, response.json()["run"]) == (201, 2)
    assert site.runs == [None, None], "each run has a request of its own"
    assert site.followed == [2]
    assert notes(site.cluster, site.table) == Counter(["once"])
    assert not told
    assert not caplog.records
    assert response.client.session["runs"] == 1


@pytest.mark.parametrize("address", ["/add/", "/once/"])
def test_a_post_whose_commit_was_rolled_back_runs_again(site: type[World], address: str) -> None:
    with lost_in_commit(site.cluster, site.table):
        response = post(address, "slow once")
    assert (response.status_code, response.json()["run"]) == (201, 2)
    assert site.followed == [2]
    assert notes(site.cluster, site.table) == Counter(["once"])


@pytest.mark.parametrize("address", ["/add/", "/once/"])
def test_a_post_whose_commit_took_effect_is_answered_from_that_run(site: type[World], address: str) -> None:
    with lost_in_commit(site.cluster, site.table, confirmed=True):
        response = post(address)
    assert (response.status_code, response.json()["run"]) == (201, 1)
    assert site.followed == [1]
    assert notes(site.cluster, site.table) == Counter(["once"])


def test_an_idempotent_view_runs_again_whatever_became_of_its_first_run(site: type[World], settings: Any) -> None:
    settings.PATRONI_EXACTLY_ONCE = False
    with lost_in_commit(site.cluster, site.table):
        response = post("/put/", "slow once")
    assert (response.status_code, response.json()["run"]) == (201, 2)
    assert keys(site.cluster) == {}


def test_reading_runs_again_with_everything_that_was_asked(site: type[World]) -> None:
    with lost_in_commit(site.cluster, site.table):
        response = Client(raise_request_exception=False).get("/read/größer als 日本/")
    assert response.content.decode() == "run 2 of /read/größer als 日本/"


def test_a_fault_in_another_middleware(site: type[World], settings: Any) -> None:
    settings.MIDDLEWARE = [MIDDLEWARE, f"{__name__}.Counting"]
    site.ends = True
    response = post("/add/")
    assert response.status_code == 201
    assert notes(site.cluster, site.table) == Counter(["once"])


def test_reads_are_not_marked(site: type[World]) -> None:
    site.runs.append("so that it does not sleep")
    assert Client().get("/read/x/").status_code == 200
    assert keys(site.cluster) == {}
    assert post("/add/").status_code == 201
    assert list(keys(site.cluster).values()) == [0]


# -- Not run again --------------------------------------------------------------------------------------------------


def test_without_a_marker_a_post_is_not_run_again(site: type[World], settings: Any) -> None:
    """Nothing was committed, which is known: the client may ask again."""
    settings.PATRONI_EXACTLY_ONCE = False
    site.ends = True
    response = post("/add/")
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert len(site.runs) == 1
    assert notes(site.cluster, site.table) == Counter()


def test_a_post_that_may_have_taken_effect_is_an_error(site: type[World], settings: Any) -> None:
    settings.PATRONI_EXACTLY_ONCE = False
    with lost_in_commit(site.cluster, site.table):
        response = post("/add/", "slow")
    assert response.status_code == 500
    assert len(site.runs) == 1


def test_a_post_outside_of_transactions_is_an_error_once_it_has_written(site: type[World]) -> None:
    site.ends = True
    response = post("/alone/")
    # The statement that was found lost runs on another session; nothing is repeated.
    assert response.status_code == 201
    assert notes(site.cluster, site.table) == Counter(["once"])
    with lost_in_commit(site.cluster, site.table):
        site.runs.clear()
        response = post("/alone/", "slow")
    assert response.status_code == 500
    assert len(site.runs) == 1


def test_what_follows_a_commit_and_fails_is_an_error(site: type[World]) -> None:
    assert Client(raise_request_exception=False).post("/badly/").status_code == 500
    assert site.runs == [1]
    assert notes(site.cluster, site.table) == Counter(["once"])


def test_a_body_that_is_too_large_to_keep(site: type[World], settings: Any) -> None:
    """Multipart bodies may be larger than the setting; they are not kept."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    site.ends = True
    response = post("/add/", "longer than ten bytes")
    assert response.status_code in {400, 413}
    assert site.runs == []


def test_no_primary_until_the_deadline(site: type[World], settings: Any) -> None:
    settings.PATRONI_REQUEST_DEADLINE = 1
    site.cluster.pause()  # nobody takes over
    try:
        site.cluster.kill_postgres()
        began = time.monotonic()
        response = post("/add/")
        assert time.monotonic() - began < 30
    finally:
        site.cluster.resume()
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert site.runs == []


def test_a_wrong_password_is_an_error_at_once(site: type[World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "PASSWORD", "wrong")
    _forget()
    began = time.monotonic()
    assert Client(raise_request_exception=False).get("/read/x/").status_code == 500
    assert time.monotonic() - began < 30


# -- Event loops ----------------------------------------------------------------------------------------------------


def asynchronous(work: Callable[[AsyncClient], Any]) -> Any:
    async def run() -> Any:
        try:
            return await work(AsyncClient(raise_request_exception=False))
        finally:
            await sync_to_async(_forget)()

    return async_to_sync(run)()


def test_a_view_in_a_thread_of_an_event_loop(site: type[World]) -> None:
    site.ends = True

    async def ask(client: AsyncClient) -> Any:
        return await client.post("/add/", {"note": "once"}, content_type="application/json")

    response = asynchronous(ask)
    assert (response.status_code, response.json()["run"]) == (201, 2)
    assert site.followed == [2]
    assert notes(site.cluster, site.table) == Counter(["once"])


def test_an_async_view(site: type[World]) -> None:
    async def ask(client: AsyncClient) -> Any:
        return await client.get("/loop/")

    with lost_in_commit(site.cluster, site.table):
        response = asynchronous(ask)
    assert response.content == b"run 2"


def test_an_async_view_that_runs_its_transaction_again(site: type[World]) -> None:
    async def ask(client: AsyncClient) -> Any:
        return await client.post("/rerun/")

    assert asynchronous(ask).content == b"2"
    assert notes(site.cluster, site.table) == Counter(["once"])


# -- A server -------------------------------------------------------------------------------------------------------

APPLICATION = """
import json, os
from django.conf import settings
from django_backend.config import databases

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES=databases(**json.loads(os.environ["PROJECT_DATABASES"])),
    INSTALLED_APPS=["django_backend"],
    MIDDLEWARE=["django_backend.middleware.FailoverMiddleware"],
    PATRONI_EXACTLY_ONCE=True,
    ROOT_URLCONF="application",
    SECRET_KEY="of no use elsewhere",
)

from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpResponse
from django.urls import path

def add(request):
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {os.environ['PROJECT_TABLE']} VALUES (%s)", [request.POST["note"]])
    return HttpResponse(status=201)

urlpatterns = [path("", add)]
application = get_wsgi_application()
"""


def test_no_post_fails_through_a_crash(cluster: LocalCluster, table: str, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    replicate_synchronously(cluster)
    (tmp_path / "application.py").write_text(APPLICATION)
    databases = {
        "NAME": cluster.dbname,
        "USER": cluster.user,
        "PASSWORD": cluster.password,
        "ATOMIC_REQUESTS": True,
        "CONN_MAX_AGE": None,
        "OPTIONS": {"patroni_urls": list(cluster.urls), "patroni_failover_timeout": 60},
    }
    log = tmp_path / "log"
    command = ["gunicorn", "--workers", "2", "--threads", "4", "--bind", "127.0.0.1:0", "--timeout", "120"]
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, "application"],
            cwd=tmp_path,
            env={**os.environ, "PROJECT_DATABASES": json.dumps(databases), "PROJECT_TABLE": table},
            stdout=output,
            stderr=output,
        )
    answered: list[str] = []
    failed: list[str] = []
    stop = threading.Event()
    try:

        def address() -> str | None:
            _, listening, rest = log.read_text().partition("Listening at: ")
            assert server.poll() is None, log.read_text()
            return rest.split(" ", 1)[0] if listening else None

        eventually(address, "gunicorn to listen")
        url = address() or ""

        def ask() -> None:
            while not stop.is_set():
                note = uuid.uuid4().hex
                try:
                    with urllib.request.urlopen(url, f"note={note}".encode(), timeout=100):  # noqa: S310 - gunicorn's
                        answered.append(note)
                except (OSError, urllib.error.URLError) as exc:
                    failed.append(f"{note} {exc}")

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            known = len(answered)
            eventually(lambda known=known: len(answered) > known + 20, "requests to be answered")  # type: ignore[misc]
            crash(cluster)
            known = len(answered)
            eventually(lambda known=known: len(answered) > known + 20, "requests to be answered again")  # type: ignore[misc]
            cluster.heal()
            replicate_synchronously(cluster)
        stop.set()
        for thread in threads:
            thread.join(100)
    finally:
        stop.set()
        server.terminate()
        server.wait(30)
    assert failed == []
    assert notes(cluster, table) == Counter(answered)
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname)) as connection:
        assert connection.execute(f"SELECT count(*) FROM {markers.TABLE}").fetchone() == (len(answered),)
