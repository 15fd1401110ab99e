"""The demo as a visitor runs it, and the example project by itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patroni_db.cluster import LocalCluster

# The checkout, or a copy of it: where the example project is.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
DEMO = [sys.executable, "-c", "import sys; from patroni_db.cli import main; sys.exit(main())", "demo"]
PATIENCE = 60.0


def _environment() -> dict[str, str]:
    # Not the settings of the tests, which pytest-django exports; nor the checkout's packages, where the tests run on
    # what was installed: "-c" would put its folder first.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    return {**kept, "PYTHONSAFEPATH": "1", "COLUMNS": "100"}


class TestDemo:
    @pytest.mark.thorough
    def test_loses_nothing_through_both_faults(self, tmp_path: Path) -> None:
        figures = tmp_path / "figures.json"
        command = [*DEMO, "--seconds", "1.5", "--json", str(figures)]
        ended = subprocess.run(
            command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=150, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "Every acknowledged write is there, once" in ended.stdout
        document = json.loads(figures.read_text())
        assert document["passed"] is True
        writes = document["writes"]
        assert (writes["lost"], writes["duplicated"], writes["wrong_node"], writes["unexplained"]) == ([], [], [], [])
        assert writes["acknowledged"] > 0
        assert [fault["kind"] for fault in document["faults"]] == ["switchover", "failover"]
        nodes = [document["faults"][0]["old_primary"], *(fault["new_primary"] for fault in document["faults"])]
        assert [reign["node"] for reign in document["primaries"]] == nodes
        assert [reign["timeline"] for reign in document["primaries"]] == [1, 2, 3]
        for client in document["clients"]:
            assert client["succeeded"] > 0
            assert None not in client["outages"], f"{client['name']} never came back"
            if client["kind"] == "write":
                assert set(client["nodes"]) == set(nodes), "every primary got writes"
        failures = [failure for client in document["clients"] for failure in client["failures"]]
        late = [failure for failure in failures if failure["moment"] != "in_flight"]
        assert not late, json.dumps({"faults": document["faults"], "late": late}, indent=1)
        assert document["books"]["balanced"] is True

    @pytest.mark.parametrize(
        ("number", "moment", "status"),
        [
            (signal.SIGTERM, "starting n1", 128 + signal.SIGTERM),
            pytest.param(signal.SIGINT, "all are at work", 130, marks=pytest.mark.thorough),
        ],
    )
    def test_leaves_nothing_when_interrupted(
        self, tmp_path: Path, number: signal.Signals, moment: str, status: int
    ) -> None:
        log = tmp_path / "log"
        with log.open("wb") as output:
            command = [*DEMO, "--seconds", "600", "--nodes", "2", "--no-synchronous"]
            process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=output, stderr=output)
        try:
            _until(lambda: moment in log.read_text() or process.poll() is not None)
            started = psutil.Process(process.pid).children(recursive=True)
            assert started, log.read_text()
            process.send_signal(number)
            ended = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
        assert ended == status, log.read_text()
        assert "Traceback" not in log.read_text()
        _until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in started))


def _until(done: object) -> None:
    deadline = time.monotonic() + PATIENCE
    assert callable(done)
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def shop(healthy_patroni_cluster: LocalCluster) -> Iterator[dict[str, str]]:
    """The environment of a shop in a database of its own."""
    cluster = healthy_patroni_cluster
    login = cluster.conninfo(dbname="postgres", user=cluster.user)
    with psycopg.connect(login, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
    yield {
        **_environment(),
        "PATRONI_API_URL": ",".join(cluster.urls),
        "PGDATABASE": "shop",
        "PGUSER": cluster.user,
        "PGPASSWORD": cluster.password,
    }
    with psycopg.connect(cluster.conninfo(dbname="postgres", user=cluster.user), autocommit=True) as connection:
        connection.execute("DROP DATABASE shop WITH (FORCE)")


def _run(environment: dict[str, str], *command: str) -> str:
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def _manage(environment: dict[str, str], *arguments: str) -> str:
    return _run(environment, "example_project/manage.py", *arguments)


class TestExampleProject:
    def test_passes_its_own_tests(self, shop: dict[str, str]) -> None:
        assert "OK" in _manage(shop, "test", "example_project", "--no-input")

    def test_its_migrations_and_settings_are_complete(self, shop: dict[str, str]) -> None:
        _manage(shop, "makemigrations", "--check", "--dry-run")
        assert "no issues" in _manage(shop, "check")

    def test_serves_pages_and_reports_with_gunicorn(self, shop: dict[str, str], tmp_path: Path) -> None:
        pytest.importorskip("gunicorn")
        _manage(shop, "migrate", "--no-input", "--verbosity", "0")
        _manage(shop, "seed")
        log = tmp_path / "log"
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        run = "import sys; sys.path.append('.'); from gunicorn.app.wsgiapp import run; sys.argv[0] = 'gunicorn'; run()"
        arguments = ["--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}", "example_project.wsgi"]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, "-c", run, *arguments], cwd=ROOT, env=shop, stdout=output, stderr=output
            )
        try:
            address = f"http://127.0.0.1:{port}"
            _until(lambda: _answers(address) or server.poll() is not None)
            body = json.dumps({"customer": "Ada", "lines": [{"product": 1, "quantity": 2}]}).encode()
            for _ in range(4):
                with urllib.request.urlopen(f"{address}/api/orders/", body, timeout=30) as answer:  # noqa: S310
                    assert json.load(answer)["customer"] == "Ada"
            said = _run(
                shop,
                "-c",
                "import sys; sys.path.append('.'); from example_project.reports.__main__ import main; main()",
            )
            assert "4 orders" in said
            with urllib.request.urlopen(f"{address}/reports/", timeout=30) as answer:  # noqa: S310
                assert answer.status == 200
        finally:
            server.terminate()
            server.wait(PATIENCE)
        assert "Traceback" not in log.read_text()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
