"""Connections of management commands: told at once where nothing answers, waited for where a cluster is."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import BaseCommand, call_command
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_backend.base import DatabaseWrapper
from django_backend.checks import check_requests
from django_backend.clusters import release
from tests.django.backends import entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# So long nobody waits in a test.
LONG = 3600


@pytest.fixture(autouse=True)
def no_cluster(django_db_blocker: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing here needs the databases of the tests, and so no cluster."""
    release()
    monkeypatch.setattr("django_backend.commands._SILENCE", 0.2)
    with django_db_blocker.unblock():
        yield
    release()


def wrapper(alias: str = "default", **options: Any) -> Any:
    settings = {"patroni_urls": ["http://127.0.0.1:9", "http://127.0.0.1:10"], **options}
    return DatabaseWrapper(entry(USER="app", OPTIONS=settings), alias)


class Command(BaseCommand):
    """Does what it was given."""

    work: Callable[[], Any]

    def handle(self, *_args: Any, **_options: Any) -> None:
        type(self).work()


def commanded(work: Callable[[], Any]) -> str:
    """Return what a management command writes to standard error that does `work`."""
    errors = io.StringIO()
    call_command(type("Command", (Command,), {"work": staticmethod(work)})(stderr=errors), no_color=True)
    return errors.getvalue()


@pytest.mark.parametrize("options", [{}, {"pool": True}, {"patroni_target": "replica"}])
def test_a_command_is_told_at_once_what_was_tried_and_why(options: dict[str, Any]) -> None:
    unreachable = wrapper(patroni_failover_timeout=LONG, **options)
    with pytest.raises(OperationalError) as caught:
        commanded(unreachable.ensure_connection)
    text = str(caught.value)
    assert "http://127.0.0.1:9/cluster: Connection refused" in text
    assert "http://127.0.0.1:10/cluster: Connection refused" in text
    assert "PATRONI_COMMAND_WAIT" in text
    unreachable.close_pool()


@pytest.mark.filterwarnings("ignore:Normally Django will use")
def test_so_is_who_makes_test_databases() -> None:
    with pytest.raises(OperationalError, match="PATRONI_COMMAND_WAIT"):
        wrapper(patroni_failover_timeout=LONG).creation.create_test_db(verbosity=0, autoclobber=True)


def test_who_serves_waits() -> None:
    with pytest.raises(OperationalError, match=r"within 0\.3 s \(patroni_failover_timeout\)"):
        wrapper(patroni_failover_timeout=0.3).ensure_connection()


urlpatterns: list[Any] = []


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_a_request_to_a_server_that_is_a_command_waits(settings: Any, in_a_thread: bool) -> None:
    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["*"]
    errors: list[str] = []

    def view(_request: HttpRequest) -> HttpResponse:
        try:
            wrapper(patroni_failover_timeout=0.3).ensure_connection()
        except OperationalError as exc:
            errors.append(str(exc))
        return HttpResponse()

    def serve() -> None:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80"}
        WSGIHandler()({**environ, "wsgi.input": io.BytesIO()}, lambda *_: None)  # type: ignore[arg-type]

    def serve_in_a_thread() -> None:
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()

    urlpatterns[:] = [path("", view)]
    commanded(serve_in_a_thread if in_a_thread else serve)
    assert len(errors) == 1
    assert "patroni_failover_timeout" in errors[0]


def test_a_setting_lets_commands_wait(settings: Any) -> None:
    settings.PATRONI_COMMAND_WAIT = 0.3
    with pytest.raises(OperationalError, match="PATRONI_COMMAND_WAIT"):
        commanded(wrapper(patroni_failover_timeout=LONG).ensure_connection)
    settings.PATRONI_COMMAND_WAIT = None
    with pytest.raises(OperationalError, match=r"within 0\.3 s \(patroni_failover_timeout\)"):
        commanded(wrapper(patroni_failover_timeout=0.3).ensure_connection)


@pytest.mark.parametrize(
    ("wait", "said"), [(None, []), (0, []), (2.5, []), ("1", ["patroni.E007"]), (-1, ["patroni.E007"])]
)
def test_the_setting_is_checked(settings: Any, wait: object, said: list[str]) -> None:
    settings.PATRONI_COMMAND_WAIT = wait
    assert [message.id for message in check_requests(atomic=False)] == said


@contextlib.contextmanager
def patroni(*members: dict[str, Any]) -> Iterator[str]:
    """Return the URL of an API that names these members."""
    body = json.dumps({"scope": "demo\x1b[2J", "members": members}).encode()

    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


REPLICA = {"name": "n1", "role": "replica", "state": "running", "host": "127.0.0.1", "port": 9, "timeline": 1}
LEADER = {**REPLICA, "name": "n2", "role": "leader"}


@pytest.mark.parametrize(
    ("members", "why"),
    [([REPLICA], "Patroni names none (n1: replica running)"), ([REPLICA, LEADER], "last tried n2 at 127.0.0.1:9")],
)
def test_a_command_says_whom_it_waits_for_where_a_cluster_has_no_primary(members: list[Any], why: str) -> None:
    errors: list[str] = []

    def connect() -> None:
        with pytest.raises(OperationalError, match="within"):
            wrapper(patroni_urls=url, patroni_failover_timeout=0.6).ensure_connection()

    with patroni(*members) as url:
        errors.append(commanded(connect))
    told = errors[0]
    assert told.count("\n") == 1
    whom = "a server of cluster demo\\x1b[2J for 'default' (patroni_target=primary)"
    assert told.startswith(f"Waiting for {whom}, up to ")
    assert why in told


def test_a_pool_says_it_too() -> None:
    def connect() -> None:
        with pytest.raises(OperationalError, match="no primary of cluster demo"):
            pooled.ensure_connection()

    with patroni(REPLICA) as url:
        pooled = wrapper(patroni_urls=url, patroni_failover_timeout=0.6, pool={"min_size": 1, "timeout": 0.6})
        told = commanded(connect)
        pooled.close_pool()
    assert "n1: replica running" in told


PROJECT = """
from django_backend.config import databases
SECRET_KEY = "of no use elsewhere"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_backend"]
OPTIONS = {"patroni_urls": "http://127.0.0.1:9", "patroni_failover_timeout": 3600}
DATABASES = databases(NAME="app", USER="app", OPTIONS=OPTIONS)
ALLOWED_HOSTS = ["*"]
DATABASE_ROUTERS = ["django_backend.router.PrimaryReplicaRouter"]
ROOT_URLCONF = "project"
urlpatterns = []
"""


@pytest.mark.parametrize(
    ("command", "fails"),
    [
        ("migrate", True),
        pytest.param("check --database default --database replica", False, marks=pytest.mark.thorough),
        pytest.param("showmigrations", True, marks=pytest.mark.thorough),
        pytest.param("makemigrations --check", False, marks=pytest.mark.thorough),
        pytest.param("runserver --noreload 127.0.0.1:8765", True, marks=pytest.mark.thorough),
        pytest.param("test", True, marks=pytest.mark.thorough),
    ],
)
@pytest.mark.timeout(60)
def test_djangos_own_commands_end_where_nothing_answers(tmp_path: Path, command: str, fails: bool) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    case = "from django.test import TestCase\nclass T(TestCase):\n    def test(self): ...\n"
    (tmp_path / "tests.py").write_text(case)
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    words = [sys.executable, "-m", "django", *command.split()]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) is fails, done.stderr
    if fails:
        assert "http://127.0.0.1:9/cluster: Connection refused" in done.stderr
