"""Engines made before a fork: children of ``os.fork`` and of ``gunicorn --preload``."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from pathlib import Path

    from patroni_db.cluster import LocalCluster

# In a process of its own: it forks, and has a pool with connections and a watcher when it does.
_FORK = """
    import json, os, sys, threading
    from sqlalchemy import create_engine, text

    engine = create_engine(sys.argv[1])

    def sessions(number=2):
        connections = [engine.connect() for _ in range(number)]
        try:
            return [c.execute(text("SELECT pg_backend_pid()")).scalar_one() for c in connections]
        finally:
            for connection in connections:
                connection.close()

    before = sessions()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        mine = sessions()
        watched = "patroni-db watcher" in [t.name for t in threading.enumerate()]
        os.write(writing, json.dumps([mine, sessions(), watched]).encode())
        engine.dispose()
        os._exit(0)
    os.waitpid(child, 0)
    print(json.dumps([before, sessions(), json.loads(os.read(reading, 10000))]))
"""

_APP = """
    import os
    from sqlalchemy import create_engine, text

    engine = create_engine(os.environ["DATABASE_URL"])

    def ask():
        with engine.connect() as connection:
            return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()

    before = ask()  # the master has a session in the pool, which no worker may use

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{os.getpid()} {before} {ask()}".encode()]
"""


@pytest.mark.parametrize("driver", ["patroni", "psycopg", "psycopg2"])
def test_a_child_makes_sessions_of_its_own_and_leaves_the_parents_alone(
    patroni_cluster: LocalCluster, driver: str
) -> None:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(_FORK), url_of(patroni_cluster, driver)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    before, after, (first, again, watched) = json.loads(done.stdout)
    assert not set(before) & set(first), "the child used the parent's sessions"
    assert sorted(first) == sorted(again), "the child's own sessions are pooled"
    assert watched, "the child looks at the cluster itself"
    assert sorted(before) == sorted(after), "the child ended the parent's sessions"


def test_gunicorn_preload(patroni_cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(textwrap.dedent(_APP))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", f"--bind={bind}"]
    # gunicorn puts its control socket into XDG_RUNTIME_DIR, by default into the home directory.
    environment = {**os.environ, "DATABASE_URL": url_of(patroni_cluster, "patroni"), "XDG_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen([*command, "served:app"], cwd=tmp_path, env=environment) as gunicorn:
        try:
            answers = _ask_until_two_workers(f"http://{bind}/", gunicorn)
        finally:
            gunicorn.terminate()
            gunicorn.wait(30)
    asked = {(worker, session) for worker, _, session in answers}
    assert len({worker for worker, _ in asked}) == 2
    assert len({session for _, session in asked}) == len(asked) == 2, "each worker keeps to one session of its own"
    assert not {before for _, before, _ in answers} & {session for _, session in asked}


def _ask_until_two_workers(url: str, gunicorn: subprocess.Popen[Any]) -> list[list[str]]:
    """Ask until both workers have answered; which one does is up to the kernel."""
    answers: list[list[str]] = []
    deadline = time.monotonic() + 60
    while len({worker for worker, _, _ in answers}) < 2 or len(answers) < 20:
        assert gunicorn.poll() is None, "gunicorn ended"
        assert time.monotonic() < deadline, f"two workers must answer: {answers}"
        with contextlib.suppress(requests.ConnectionError):
            answers.append(requests.get(url, timeout=30).text.split())
    return answers
