"""``patroni-db cluster`` on the session's cluster, which is given a name for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from patroni_db.cluster import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patroni_db.cluster import LocalCluster

    Command = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@pytest.fixture
def command(cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    registry.publish("lab", cluster.control)

    def run(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "patroni_db", "cluster", *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            env={**os.environ, **environment},
        )
        assert done.returncode == code, done.stderr
        return done

    yield run
    registry.withdraw("lab", cluster.control)


def test_running_clusters_are_listed_and_named_to_who_asks_for_another(command: Command, cluster: LocalCluster) -> None:
    assert "lab" in command("list").stdout
    (one,) = json.loads(command("list", "--json").stdout)["clusters"]
    assert (one["name"], one["nodes"], one["leader"]) == ("lab", 3, cluster.leader)
    told = command("status", code=1).stderr
    assert told == "patroni-db: no cluster named 'default' is running (running: lab)\n"


def test_the_snippet_for_django_is_code_that_names_this_cluster(command: Command, cluster: LocalCluster) -> None:
    snippet = json.loads(command("status", "--name", "lab", "--json").stdout)["django"]
    databases: dict[str, Any] = eval(snippet, {"databases": lambda **settings: settings})  # noqa: S307 - our own
    assert databases["OPTIONS"] == {"patroni_urls": list(cluster.urls)}
    assert databases["PASSWORD"] == cluster.password


def test_psql_takes_its_own_arguments_and_finds_the_primary(command: Command, cluster: LocalCluster) -> None:
    query = "SELECT current_user, pg_is_in_recovery()"
    to_primary = command("psql", "--name", "lab", "-At", "-c", query, PGHOST="192.0.2.1", PGPASSWORD="wrong")
    assert to_primary.stdout == "app|f\n"
    replica = next(node.name for node in cluster.nodes if node.name != cluster.leader)
    to_replica = command("psql", "--name", "lab", "--superuser", "--node", replica, "-At", "-c", query)
    assert to_replica.stdout == "postgres|t\n"
    failed = command("psql", "--name", "lab", "-v", "ON_ERROR_STOP=1", "-c", "SELECT 1/0", code=1)
    assert "division by zero" in failed.stderr


def test_logs_are_chosen_ended_and_followed(command: Command, cluster: LocalCluster) -> None:
    leader = cluster.leader
    assert leader is not None
    lines = command("logs", "--name", "lab", leader, "-n", "2").stdout.splitlines()
    assert {line.split(" | ")[0].rstrip() for line in lines} == {f"{leader}/patroni", f"{leader}/postgres"}
    assert "there is no log 'n9'" in command("logs", "--name", "lab", "n9", code=1).stderr
    program = [sys.executable, "-m", "patroni_db", "cluster", "logs", "--name", "lab", "--follow", "-n", "1"]
    with subprocess.Popen([*program, f"{leader}/postgres"], stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            following.stdout.readline()  # it is there, and has seen the end of the log
            with psycopg.connect(cluster.conninfo(leader)) as connection:
                connection.execute("DO $$ BEGIN RAISE WARNING 'seen \x1b[31m from afar'; END $$")
            assert any("seen \\x1b[31m from afar" in line for line in following.stdout)
        finally:
            following.kill()


@pytest.mark.thorough
def test_a_crash_is_followed_to_its_end(command: Command, cluster: LocalCluster) -> None:
    old = cluster.leader
    told = json.loads(command("fault", "kill-postgres", "--name", "lab", "--json").stdout)
    assert told["node"] == old
    assert told["outcome"] in {f"failed over to {told['leader']}", "restarted in place; it still leads"}
    cluster.wait_until_streaming()
    replica = next(node.name for node in cluster.nodes if node.name != cluster.leader)
    told = command("fault", "kill-postgres", replica, "--name", "lab").stdout
    assert told == f"kill-postgres {replica}: restarted in place; {cluster.leader} leads\n"
