"""The shop's Celery tasks: each once, through a switchover, a crash and messages that are delivered twice."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.faults import crash, eventually, switchover
from tests.integration.test_demo import ROOT, _manage
from tests.integration.test_demo import shop as shop  # noqa: PLC0414 - a fixture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patroni_db.cluster import LocalCluster

celery = pytest.importorskip("celery")
pytest.importorskip("example_project.orders")

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

TASK = "example_project.orders.tasks.place"
MESSAGES = 40


@pytest.fixture
def queue(tmp_path: Path) -> Any:
    """A Celery application that puts messages into a folder."""
    (tmp_path / "data_in").mkdir()
    (tmp_path / "data_out").symlink_to(tmp_path / "data_in")
    app = celery.Celery(broker="filesystem://", set_as_current=False)
    app.conf.broker_transport_options = {
        "data_folder_in": str(tmp_path / "data_in"),
        "data_folder_out": str(tmp_path / "data_in"),
        "control_folder": str(tmp_path / "control"),  # by default one of the current directory
    }
    return app


@contextlib.contextmanager
def worker(environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of the shop on the messages in `folder`."""
    given = {**environment, "CELERY_BROKER_URL": "filesystem://", "PYTHONPATH": str(ROOT)}
    words = ["--app", "example_project", "worker", "--concurrency", "2", "--loglevel", "INFO", "--without-gossip"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", *words], cwd=folder, env=given, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def orders(cluster: LocalCluster) -> Counter[str]:
    with psycopg.connect(cluster.conninfo(cluster.wait_for_leader(), dbname="shop")) as connection:
        rows = connection.execute("SELECT reference FROM orders_order").fetchall()
    return Counter(str(reference) for (reference,) in rows)


@pytest.mark.parametrize("fault", [switchover, crash])
def test_each_task_takes_effect_once(
    healthy_patroni_cluster: LocalCluster,
    shop: dict[str, str],
    tmp_path: Path,
    queue: Any,
    fault: Callable[[LocalCluster], None],
) -> None:
    cluster = healthy_patroni_cluster
    _manage(shop, "migrate", "--no-input", "--verbosity", "0")
    _manage(shop, "seed")
    references = [str(uuid.uuid4()) for _ in range(MESSAGES)]
    with worker(shop, tmp_path) as process:

        def send(some: list[str]) -> None:
            for reference in some:
                # A broker delivers at least once: here always twice.
                for _ in range(2):
                    arguments = ["Ada", [[1, 1]], reference]
                    queue.send_task(TASK, arguments, task_id=reference)

        send(references[:5])
        eventually(lambda: orders(cluster) or process.poll() is not None, "the worker to begin")
        send(references[5:])
        fault(cluster)
        log = tmp_path / "log"
        eventually(
            lambda: log.read_text().count(" succeeded in ") >= 2 * MESSAGES or process.poll() is not None,
            "all messages to be done",
        )
    assert orders(cluster) == Counter(references)
    told = log.read_text()
    assert told.count(" succeeded in ") == 2 * MESSAGES, told[-4000:]
    assert "Traceback" not in told
