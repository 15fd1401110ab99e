"""``patroni-db`` as a person and a script use it, on a real cluster with real faults."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

_PATIENCE = 60.0


class Program:
    """``patroni-db`` in an environment that names the cluster and nothing else.

    :param cluster: whose APIs ``PATRONI_API_URL`` names
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("PATRONI_", "PG", "NO_COLOR"))}
        self.environment |= {"PATRONI_API_URL": ",".join(cluster.urls), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(*arguments),
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
            env=self.environment | environment,
        )

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Return the document it prints with ``--json``."""
        result = self.run(*arguments, "--json")
        assert result.returncode == code, result.stderr
        return json.loads(result.stdout)

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run it beside the test, and end it afterwards."""
        with subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "patroni_db", *arguments]


class Terminal:
    """A program on a terminal of its own, 80 by 24.

    :param program: what to run
    :param arguments: its arguments
    """

    def __init__(self, program: Program, *arguments: str, **environment: str) -> None:
        size = {"COLUMNS": "80", "LINES": "24"}
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            program.command(*arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=program.environment | size | environment,
        )
        os.close(slave)
        self.output = ""

    def read_until(self, found: Callable[[str], object]) -> str:
        """Return everything printed so far, as soon as it is what `found` wants."""
        deadline = time.monotonic() + _PATIENCE
        while not found(self.output):
            assert time.monotonic() < deadline, self.output
            self._read()
        return self.output

    def end(self) -> int:
        """Wait until the program has ended; return its exit code."""
        deadline = time.monotonic() + _PATIENCE
        while self._read():
            assert time.monotonic() < deadline, self.output
        return self.process.wait(_PATIENCE)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            received = os.read(self._master, 65536)
        except OSError:  # Linux says EIO when the last program has left the terminal
            return False
        self.output += received.decode()
        return bool(received)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def program(healthy_patroni_cluster: LocalCluster) -> Program:
    return Program(healthy_patroni_cluster)


def _wait_line(process: subprocess.Popen[str], found: Callable[[str], object]) -> str:
    """Return the first line printed that is what `found` wants."""
    assert process.stdout is not None
    for line in process.stdout:
        if found(line):
            return line
    pytest.fail(f"ended with {process.wait()} before")


# -- status ---------------------------------------------------------------------------------------------------


def test_status_shows_a_healthy_cluster(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    leader = healthy_patroni_cluster.leader
    result = program.run("status")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"Cluster {healthy_patroni_cluster.scope}: primary {leader}, 2 replicas, timeline ")
    assert lines[1] == f"Seen through {healthy_patroni_cluster.urls[0]}"
    assert sum(line.startswith(f"★ {leader} ") for line in lines) == 1
    assert "\x1b" not in result.stdout


def test_status_as_json_names_the_primary(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    document = program.json("status")
    assert document["primary"] == document["leader"] == healthy_patroni_cluster.leader
    assert document["healthy"] is True
    assert {m["name"]: (m["host"], m["port"]) for m in document["members"]} == {
        node.name: (node.host, node.port) for node in healthy_patroni_cluster.nodes
    }
    assert all(m["answers"] and m["problem"] is None for m in document["members"])


def test_status_goes_on_to_the_next_api(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    result = program.run("status", "--url", "http://127.0.0.1:1", "--url", healthy_patroni_cluster.urls[1])
    assert result.returncode == 0
    assert result.stderr == "patroni-db: warning: http://127.0.0.1:1/cluster: Connection refused\n"
    assert f"Seen through {healthy_patroni_cluster.urls[1]}" in result.stdout


def test_status_refuses_another_cluster(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    result = program.run("status", PATRONI_SCOPE="another")
    assert (result.returncode, result.stdout) == (3, "")
    assert f"is an API of cluster '{healthy_patroni_cluster.scope}', not of 'another'" in result.stderr


@pytest.mark.thorough
def test_status_does_not_believe_in_a_dead_leader(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    leader = healthy_patroni_cluster.freeze()  # its key stays for the whole ttl
    try:
        others = [url for url in healthy_patroni_cluster.urls if url != healthy_patroni_cluster.node(leader).api_url]
        arguments = ("--url", ",".join(others), "--request-timeout", "1")
        result = program.run("status", *arguments)
        believing = program.run("status", *arguments, "--no-check")
    finally:
        healthy_patroni_cluster.thaw(leader)
    assert result.returncode == 1
    assert f"primary {leader} (no answer)" in result.stdout
    assert f"{leader}: http://" in result.stdout
    assert believing.returncode == 0
    assert "no answer" not in believing.stdout


@pytest.mark.thorough
def test_status_tells_of_maintenance_mode(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    healthy_patroni_cluster.pause()
    try:
        result = program.run("status")
        document = program.json("status")
    finally:
        healthy_patroni_cluster.resume()
    assert "Paused (maintenance mode)" in result.stdout
    assert document["paused"] is True


def test_status_in_a_locale_without_utf_8(program: Program) -> None:
    result = program.run("status", PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert result.returncode == 0
    assert "* " in result.stdout
    assert result.stdout.isascii()


def test_status_on_a_terminal_has_colour_unless_told_otherwise(program: Program) -> None:
    with Terminal(program, "status") as coloured:
        assert coloured.end() == 0
    assert "\x1b[1;32m" in coloured.output  # bold green
    with Terminal(program, "status", NO_COLOR="1") as plain:
        assert plain.end() == 0
    assert not re.search(r"\x1b\[[\d;]*3[0-7]m", plain.output)
    text = re.sub(r"\x1b\[[\d;]*m", "", coloured.output)
    assert max(map(len, text.splitlines())) <= 80


# -- dsn ------------------------------------------------------------------------------------------------------


def _login(cluster: LocalCluster) -> list[str]:
    return ["--user", cluster.user, "--dbname", cluster.dbname, "--with-password"]


@pytest.mark.parametrize("form", ["uri", "libpq"])
@pytest.mark.parametrize(("target", "standby"), [("primary", "off"), ("replica", "on")])
def test_dsn_leads_to_the_right_server(
    program: Program, healthy_patroni_cluster: LocalCluster, form: str, target: str, standby: str
) -> None:
    result = program.run(
        "dsn",
        "--target",
        target,
        "--format",
        form,
        *_login(healthy_patroni_cluster),
        PGPASSWORD=healthy_patroni_cluster.password,
    )
    assert (result.returncode, result.stderr) == (0, "")
    with psycopg.connect(result.stdout.strip()) as connection:
        assert connection.info.parameter_status("in_hot_standby") == standby


def test_dsn_holds_a_password_only_when_asked(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    result = program.run("dsn", "--user", healthy_patroni_cluster.user, PGPASSWORD="hidden")
    assert "hidden" not in result.stdout + result.stderr


def test_dsn_of_all_survives_a_switchover(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    result = program.run("dsn", "--all", *_login(healthy_patroni_cluster), PGPASSWORD=healthy_patroni_cluster.password)
    new = healthy_patroni_cluster.switchover()
    with psycopg.connect(result.stdout.strip()) as connection:
        assert connection.info.host == healthy_patroni_cluster.node(new).host


def test_dsn_for_a_shell(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    result = program.run("dsn", "--format", "env", "--user", "app", "--dbname", "app")
    leader = healthy_patroni_cluster.leader
    assert leader is not None
    node = healthy_patroni_cluster.node(leader)
    assert shlex.split(result.stdout, comments=False) == [
        "export",
        f"PGHOST={node.host}",
        "export",
        f"PGPORT={node.port}",
        "export",
        "PGDATABASE=app",
        "export",
        "PGUSER=app",
        "export",
        "PGTARGETSESSIONATTRS=read-write",
    ]


def test_dsn_as_json(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    document = program.json("dsn", "--target", "replica")
    assert document["target_session_attrs"] == "standby"
    assert {server["name"] for server in document["servers"]} == {
        node.name for node in healthy_patroni_cluster.nodes if node.name != healthy_patroni_cluster.leader
    }
    assert all(server["host"] in document["dsn"] for server in document["servers"])


def test_dsn_without_an_eligible_server(program: Program) -> None:
    result = program.run("dsn", "--target", "replica", "--tags", "zone=nowhere")
    assert (result.returncode, result.stdout) == (1, "")
    assert "has no server for replica" in result.stderr
    assert program.json("dsn", "--target", "replica", "--tags", "zone=nowhere", code=1)["dsn"] is None


def test_a_password_is_asked_for_on_the_terminal_and_not_shown(
    program: Program, healthy_patroni_cluster: LocalCluster
) -> None:
    with Terminal(program, "dsn", "--user", healthy_patroni_cluster.user, "--with-password") as terminal:
        terminal.read_until(lambda output: "Password: " in output)
        os.write(terminal._master, b"typed pw\n")
        assert terminal.end() == 0
    assert ":typed%20pw@" in terminal.output
    assert "typed pw" not in terminal.output


# -- wait -----------------------------------------------------------------------------------------------------


def test_wait_for_what_is_there(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    result = program.run("wait", "--for", "primary", "--for", "2-replicas")
    assert (result.returncode, result.stderr) == (0, "")
    primary, replicas = result.stdout.splitlines()
    assert primary.startswith(f"primary: {healthy_patroni_cluster.leader} (")
    assert replicas.startswith("2-replicas: ")


def test_wait_in_vain(program: Program) -> None:
    result = program.run("wait", "--for", "9-replicas", "--timeout", "500ms")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.endswith(": 2 of 9 replicas\n")


def test_wait_ends_when_the_new_primary_is_up(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    old = healthy_patroni_cluster.kill_node()
    healthy_patroni_cluster.expire_leader()
    document = program.json("wait", "--for", "primary", "--timeout", "60")
    (name,) = document["conditions"][0]["members"]
    assert document["met"] is True
    assert name != old
    with psycopg.connect(healthy_patroni_cluster.conninfo(name)) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


@pytest.mark.thorough
def test_wait_can_be_interrupted(program: Program) -> None:
    with Terminal(program, "wait", "--for", "9-replicas") as terminal:
        terminal.read_until(lambda output: "2 of 9 replicas" in output)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    assert "Traceback" not in terminal.output
    assert "\x1b[?25h" in terminal.output  # the cursor is back


# -- watch ----------------------------------------------------------------------------------------------------


def test_watch_tells_of_a_switchover(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    old = healthy_patroni_cluster.leader
    with program.running("watch", "--interval", "0.2") as process:
        _wait_line(process, lambda line: line.startswith("★"))
        new = healthy_patroni_cluster.switchover()
        _wait_line(process, re.compile(rf"\d\d:\d\d:\d\d  {new} leads now(, {old} did before)?\n").fullmatch)
        process.send_signal(signal.SIGINT)
        assert process.wait(_PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.thorough
def test_watch_as_json_gives_a_line_for_each_change(program: Program, healthy_patroni_cluster: LocalCluster) -> None:
    with program.running("watch", "--interval", "0.2", "--json") as process:
        first = json.loads(_wait_line(process, lambda _: True))
        assert first["cluster"]["primary"] == healthy_patroni_cluster.leader
        assert (first["changes"], first["error"]) == ([], None)
        healthy_patroni_cluster.pause()
        try:
            line = _wait_line(process, lambda line: "paused (maintenance mode)" in json.loads(line)["changes"])
        finally:
            healthy_patroni_cluster.resume()
    assert json.loads(line)["cluster"]["paused"] is True


@pytest.mark.thorough
def test_watch_keeps_the_last_view_while_no_api_answers(
    program: Program, healthy_patroni_cluster: LocalCluster
) -> None:
    names = [node.name for node in healthy_patroni_cluster.nodes]
    with program.running("watch", "--interval", "0.2", "--request-timeout", "0.5", "--json") as process:
        _wait_line(process, lambda _: True)
        for name in names:
            healthy_patroni_cluster.freeze(name, patroni_only=True)
        try:
            document = json.loads(_wait_line(process, lambda line: json.loads(line)["error"]))
        finally:
            for name in names:
                healthy_patroni_cluster.thaw(name)
        _wait_line(process, lambda line: "the API answers again" in json.loads(line)["changes"])
    assert {m["name"] for m in document["cluster"]["members"]} == set(names)
    assert document["age"] > 0
    assert len(document["failures"]) == len(names)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_watch_on_a_terminal_is_a_picture_that_ctrl_c_ends(program: Program, number: signal.Signals, code: int) -> None:
    with Terminal(program, "watch") as terminal:
        terminal.read_until(lambda output: output.count("Ctrl-C ends.") > 3)
        terminal.process.send_signal(number)
        assert terminal.end() == code
    assert "Traceback" not in terminal.output
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")  # the cursor is back
