"""Engines under gevent, as ``gunicorn -k gevent`` runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from patroni_db.cluster import LocalCluster

_GREENLETS = """
    import json, sys
    from gevent import monkey

    if sys.argv[2] == "early":
        monkey.patch_all()

    from sqlalchemy import create_engine, text

    engine = create_engine(sys.argv[1])
    if sys.argv[2] == "late":  # gunicorn's worker does it after --preload has loaded the application
        monkey.patch_all()

    import gevent

    ticks = 0

    def tick():
        global ticks
        while True:
            ticks += 1
            gevent.sleep(0.01)

    def ask():
        with engine.connect() as connection:
            return connection.execute(text("SELECT pg_backend_pid() FROM pg_sleep(0.2)")).scalar_one()

    ticking = gevent.spawn(tick)
    jobs = [gevent.spawn(ask) for _ in range(20)]
    gevent.joinall(jobs)
    print(json.dumps([[job.value for job in jobs], ticks]))
"""


@pytest.mark.parametrize("patched", ["early", "late"])
def test_greenlets_share_an_engine(patroni_cluster: LocalCluster, patched: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(_GREENLETS), url_of(patroni_cluster, "patroni"), patched]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    sessions, ticks = json.loads(done.stdout)
    assert all(sessions)
    if patched == "early":  # where psycopg has not been patched, greenlets wait for each other
        assert ticks > 1
