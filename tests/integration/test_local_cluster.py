"""LocalCluster on real servers: it starts, its faults have their effects, and nothing remains of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from patroni_db.cluster import LocalCluster, ProcessState
from patroni_db.cluster.rest import Login, get_json, request
from patroni_db.errors import ClusterError
from tests.integration.faults import crash, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(150)


def ask(cluster: LocalCluster, query: str, name: str | None = None, **parameters: Any) -> Any:
    with psycopg.connect(cluster.conninfo(name, connect_timeout=5, **parameters)) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def others(cluster: LocalCluster, name: str) -> list[str]:
    return [node.name for node in cluster.nodes if node.name != name]


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.lstat().st_mode)
    except FileNotFoundError:  # servers make and remove files all the time
        return 0


def _works_below(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):
        return False


def _is_reachable_by_all(program: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (program, *program.parents))


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


class TestShared:
    """On the session's cluster, healed before each test."""

    def test_every_node_answers_with_its_role(self, cluster: LocalCluster) -> None:
        leader = cluster.leader
        assert leader is not None
        assert ask(cluster, "SELECT pg_is_in_recovery()", leader) is False
        for name in others(cluster, leader):
            assert ask(cluster, "SELECT pg_is_in_recovery()", name) is True
        assert ask(cluster, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 2

    def test_the_application_role_owns_its_database_and_makes_others(self, cluster: LocalCluster) -> None:
        conninfo = cluster.conninfo(dbname=cluster.dbname, user=cluster.user)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("CREATE TABLE made_by_app (id int); DROP TABLE made_by_app")
            connection.execute("CREATE DATABASE test_of_app")
            connection.execute("DROP DATABASE test_of_app")
            row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        assert row == (False,)

    def test_a_wrong_password_is_refused(self, cluster: LocalCluster) -> None:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(cluster, "SELECT 1", password="wrong")

    @pytest.mark.thorough  # as every suite does it
    def test_switchover_to_a_candidate(self, cluster: LocalCluster) -> None:
        old = cluster.leader
        assert old is not None
        candidate = others(cluster, old)[-1]
        assert cluster.switchover(candidate) == candidate
        assert cluster.leader == candidate
        assert ask(cluster, "SELECT pg_is_in_recovery()") is False
        cluster.wait_until_streaming()
        assert ask(cluster, "SELECT pg_is_in_recovery()", old) is True

    def test_a_refused_switchover_tells_why(self, cluster: LocalCluster) -> None:
        leader = cluster.leader
        with pytest.raises(ClusterError, match="refused the switchover"):
            cluster.switchover(leader)
        assert cluster.leader == leader

    def test_a_switchover_waits_for_somebody_who_may_take_over(self, cluster: LocalCluster) -> None:
        old = cluster.leader
        cluster.patch_config({"synchronous_mode": True})  # Patroni chooses a standby with its next loop
        assert cluster.switchover() != old

    @pytest.mark.thorough  # as every suite does it
    def test_killed_postgres_is_followed_by_one_primary_from_which_all_others_stream(
        self, cluster: LocalCluster
    ) -> None:
        crash(cluster)
        cluster.wait_until_streaming()
        recovering = {node.name: ask(cluster, "SELECT pg_is_in_recovery()", node.name) for node in cluster.nodes}
        assert recovering == {node.name: node.name != cluster.leader for node in cluster.nodes}

    @pytest.mark.thorough
    def test_killed_postgres_restarts_in_place_when_configured(self, cluster: LocalCluster) -> None:
        cluster.patch_config({"primary_start_timeout": 300})
        leader = cluster.leader
        assert leader is not None
        # Nodes learn of it with their next look.
        for node in cluster.nodes:
            eventually(
                lambda node=node: (
                    (get_json((node.host, node.api_port), "/config") or {})["primary_start_timeout"] == 300
                ),  # type: ignore[misc]
                "the configuration to be known",
            )
        started = ask(cluster, "SELECT pg_postmaster_start_time()")
        time_of_kill = cluster.kill_postgres()
        assert time_of_kill == leader

        def restarted() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                return bool(ask(cluster, "SELECT pg_postmaster_start_time()", leader) != started)
            return False

        eventually(restarted, "PostgreSQL to be back")
        assert cluster.wait_for_leader() == leader

    @pytest.mark.thorough
    def test_killed_node_is_gone_until_it_is_started(self, cluster: LocalCluster) -> None:
        old = cluster.kill_node()
        gone = next(status for status in cluster.status() if status.name == old)
        assert (gone.patroni, gone.postgres) == (ProcessState.STOPPED, ProcessState.STOPPED)
        node = cluster.node(old)
        for port in (node.port, node.api_port):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((node.host, port), timeout=5)
        assert cluster.leader == old, "the key of a dead leader lives on"
        assert cluster.expire_leader()
        new = cluster.wait_for_leader(other_than=old)
        cluster.wait_until_streaming()
        cluster.start_node(old)
        cluster.wait_until_streaming()
        assert cluster.leader == new
        assert ask(cluster, "SELECT pg_is_in_recovery()", old) is True

    def test_starting_a_running_node_is_refused(self, cluster: LocalCluster) -> None:
        with pytest.raises(ClusterError, match="n1 is running already"):
            cluster.start_node("n1")

    @pytest.mark.thorough
    def test_frozen_node_accepts_and_never_answers(self, cluster: LocalCluster) -> None:
        leader = cluster.leader
        assert leader is not None
        name = others(cluster, leader)[0]
        node = cluster.node(name)
        with psycopg.connect(cluster.conninfo(name), autocommit=True) as connection:
            assert cluster.freeze(name) == name
            frozen = next(status for status in cluster.status() if status.name == name)
            assert (frozen.patroni, frozen.postgres) == (ProcessState.FROZEN, ProcessState.FROZEN)
            connection.pgconn.send_query(b"SELECT 1")
            with socket.create_connection((node.host, node.port), timeout=5) as plain:
                plain.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
                plain.settimeout(1)
                with pytest.raises(TimeoutError):
                    plain.recv(1)
            cluster.wait_until_streaming()
            cluster.thaw(name)
            result = connection.pgconn.get_result()
            assert result is not None
            assert result.get_value(0, 0) == b"1"
            assert connection.pgconn.get_result() is None
        cluster.wait_until_streaming()

    def test_frozen_patroni_leaves_postgres_alone(self, cluster: LocalCluster) -> None:
        leader = cluster.leader
        assert leader is not None
        name = others(cluster, leader)[0]
        node = cluster.node(name)
        cluster.freeze(name, patroni_only=True)
        assert ask(cluster, "SELECT 1", name) == 1
        assert get_json((node.host, node.api_port), "/patroni", timeout=1) is None
        cluster.thaw(name)
        eventually(lambda: get_json((node.host, node.api_port), "/patroni", timeout=1), "the API to answer again")

    @pytest.mark.thorough
    def test_without_etcd_there_is_no_primary(self, cluster: LocalCluster) -> None:
        old = cluster.leader
        assert old is not None
        cluster.stop_etcd()
        assert cluster.etcd_state() is ProcessState.STOPPED

        def demoted() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                return bool(ask(cluster, "SELECT pg_is_in_recovery()", old))
            return False

        eventually(demoted, "the primary to be demoted")
        assert cluster.leader is None
        cluster.start_etcd()
        assert ask(cluster, "SELECT pg_is_in_recovery()", cluster.wait_for_leader()) is False

    @pytest.mark.thorough
    def test_pause_is_seen_by_every_node(self, cluster: LocalCluster) -> None:
        cluster.pause()
        views = [get_json((node.host, node.api_port), "/patroni") or {} for node in cluster.nodes]
        assert [view.get("pause") for view in views] == [True] * 3
        cluster.resume()
        views = [get_json((node.host, node.api_port), "/patroni") or {} for node in cluster.nodes]
        assert [view.get("pause") for view in views] == [None] * 3

    def test_heal_undoes_everything_at_once(self, cluster: LocalCluster) -> None:
        cluster.patch_config({"primary_start_timeout": 77, "pause": True})
        cluster.kill_node("n1")
        cluster.freeze("n2")
        cluster.stop_etcd()
        cluster.heal()
        assert all(status.patroni is status.postgres is ProcessState.RUNNING for status in cluster.status())
        node = cluster.nodes[0]
        config = get_json((node.host, node.api_port), "/config") or {}
        assert config["primary_start_timeout"] == 0
        assert "pause" not in config

    @pytest.mark.parametrize("path", ["/v3/kv/range", "/v3/kv/put", "/v3/auth/enable", "/health", "/members", "/raft"])
    def test_etcd_answers_nobody_without_a_certificate(self, cluster: LocalCluster, path: str) -> None:
        stranger = ssl.create_default_context()
        stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
        layout = cluster._up_layout
        for endpoint in (layout.etcd, layout.etcd_peer):
            for connection in (
                http.client.HTTPConnection(*endpoint, timeout=5),
                http.client.HTTPSConnection(*endpoint, timeout=5, context=stranger),
            ):
                with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                    connection.request("POST", path, b"{}", {"Origin": "https://page.example"})
                    response = connection.getresponse()
                    # Plain HTTP to a TLS port is told so, in words that do not depend on the request.
                    assert response.status == 400
                    assert b"HTTP request to an HTTPS server" in response.read()
                    assert "Access-Control-Allow-Origin" not in response.headers

    @pytest.mark.parametrize(
        "request_line",
        [
            "PATCH /config",
            "PUT /config",
            "POST /config",
            "POST /switchover",
            "DELETE /switchover",
            "POST /failover",
            "POST /restart",
            "DELETE /restart",
            "POST /reload",
            "POST /reinitialize",
            "POST /failsafe",
            "POST /sigterm",
        ],
    )
    def test_nothing_is_changed_through_patroni_without_a_login(self, cluster: LocalCluster, request_line: str) -> None:
        method, path = request_line.split()
        before = get_json((cluster.nodes[0].host, cluster.nodes[0].api_port), "/config")
        for login in (None, Login("patroni", "wrong"), Login("wrong", cluster.api_password)):
            for node in cluster.nodes:
                status, _ = request(method, (node.host, node.api_port), path, {"ttl": 99}, login=login)
                assert status in {401, 501}, f"{request_line} answered {status} to {login}"
        assert get_json((cluster.nodes[0].host, cluster.nodes[0].api_port), "/config") == before

    def test_other_users_find_no_password_no_open_file_and_no_trust(self, cluster: LocalCluster) -> None:
        credentials = cluster._up_credentials
        secrets = [getattr(credentials, name) for name in credentials.__slots__]
        supervisor = next(
            process
            for process in psutil.Process().children()
            if any("patroni_db.cluster.supervisor" in word for word in process.cmdline())
        )
        for process in [supervisor, *supervisor.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                seen = [*process.cmdline(), *process.environ().values()]
                assert not any(secret in text for secret in secrets for text in seen), process
        entries = [cluster.directory, *cluster.directory.rglob("*")]
        open_to_others = [entry for entry in entries if not entry.is_symlink() and _mode(entry) & 0o077]
        assert open_to_others == []
        with pytest.raises(psycopg.OperationalError, match=r"no password supplied|password authentication failed"):
            psycopg.connect(cluster.conninfo(password=""), connect_timeout=5, passfile="/nonexistent")

    @pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux'")
    def test_postgresql_and_etcd_have_no_power_that_they_do_not_need(self, cluster: LocalCluster) -> None:
        servers = [
            process
            for process in psutil.process_iter()
            if _works_below(process, cluster.directory) and _is_reachable_by_all(Path(process.exe()))
        ]
        if not {"etcd", "postgres"} <= {process.name() for process in servers}:
            pytest.skip("the servers are where only this user can read them: they need that power")
        powerful = {
            process.name()
            for process in servers
            if any(
                line.startswith(("CapEff:", "CapPrm:", "CapAmb:")) and int(line.split()[1], 16)
                for line in Path("/proc", str(process.pid), "status").read_text().splitlines()
            )
        }
        assert not powerful or shutil.which("setpriv") is None

    @pytest.mark.thorough
    def test_patronictl_changes_things_with_the_configuration_of_a_node(self, cluster: LocalCluster) -> None:
        program = [sys.executable, "-c", "from patroni.ctl import ctl; ctl()", "-c", str(cluster.nodes[0].config_file)]
        edit = subprocess.run(
            [*program, "edit-config", "--force", "--set", "loop_wait=2"], capture_output=True, text=True, check=True
        )
        assert "Configuration changed" in edit.stdout
        listing = subprocess.run([*program, "list", "--format=json"], capture_output=True, text=True, check=True)
        assert {row["Member"] for row in json.loads(listing.stdout)} == {"n1", "n2", "n3"}
        switchover = [*program, "switchover", "--force", "--primary", str(cluster.leader)]
        assert (
            "Successfully switched over"
            in subprocess.run(switchover, capture_output=True, text=True, check=True).stdout
        )

    def test_unknown_nodes_are_named(self, cluster: LocalCluster) -> None:
        with pytest.raises(ClusterError, match=r"no node 'n9' \(nodes: n1, n2, n3\)"):
            cluster.kill_node("n9")

    def test_a_forked_child_uses_it_and_does_not_stop_it(self, cluster: LocalCluster) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                seen = cluster.leader
                cluster.stop()
                code = 0 if seen is not None and cluster.leader == seen else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert ask(cluster, "SELECT 1") == 1


# What lives and dies in processes of its own.

_OWNER = """
import json, sys, time
from patroni_db.cluster import LocalCluster

def progress(text):
    print(json.dumps({"progress": text}), flush=True)

with LocalCluster(nodes=1, progress=progress) as cluster:
    print(json.dumps({"directory": str(cluster.directory), "urls": cluster.urls, "leader": cluster.leader}), flush=True)
    time.sleep(300)
"""


class Owner:
    """A process that owns a cluster, and what can be seen of it from outside."""

    def __init__(self, process: subprocess.Popen[str], temporary: Path) -> None:
        self.process = process
        self.temporary = temporary
        self.family: set[psutil.Process] = set()

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def read_until(self, text: str) -> dict[str, Any]:
        for line in self.output:
            if text in line:
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise AssertionError(f"the owner ended before it said {text!r}: {self.process.wait()}")

    def look(self) -> None:
        """Remember every process of the cluster that can be found now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.family.update(psutil.Process(self.process.pid).children(recursive=True))

    def assert_nothing_remains(self) -> None:
        eventually(lambda: not any(map(_is_alive, self.family)), f"processes to end: {self.family}")
        eventually(lambda: not list(self.temporary.iterdir()), f"files to go: {list(self.temporary.iterdir())}")
        table = Path("/proc/sysvipc/shm")
        if table.exists():
            header, *rows = (line.split() for line in table.read_text().splitlines())
            creators = {int(row[header.index("cpid")]) for row in rows}
            assert not creators & {process.pid for process in self.family}


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _public_folder() -> Iterator[Path]:
    """Make a folder with a short path where any user can write: what a cluster leaves behind is seen there."""
    folder = Path(tempfile.mkdtemp(prefix="owner-", dir="/tmp"))
    try:
        folder.chmod(0o1777)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _owner(script: str = _OWNER, prefix: tuple[str, ...] = ()) -> Iterator[Owner]:
    with _public_folder() as folder:
        environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(
            [*prefix, sys.executable, "-u", "-c", textwrap.dedent(script)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                yield Owner(process, folder)
            finally:
                if process.poll() is None:
                    process.kill()


@pytest.mark.parametrize(
    "moment",
    [*(pytest.param(moment, marks=pytest.mark.thorough) for moment in ("PostgreSQL", "n1 leads")), "starting n1"],
)
def test_nothing_remains_after_ctrl_c(moment: str) -> None:
    script = _OWNER.replace("nodes=1", "nodes=2")
    with _owner(script) as owner:
        owner.read_until(moment)
        owner.look()
        # As a terminal does it: to the whole foreground process group.
        os.killpg(owner.process.pid, signal.SIGINT)
        owner.output.read()
        assert owner.process.wait(60) == -signal.SIGINT
        owner.assert_nothing_remains()


@pytest.mark.thorough
def test_nothing_remains_after_the_owner_is_killed_while_it_starts() -> None:
    with _owner() as owner:
        owner.read_until("starting n1")
        owner.look()
        owner.process.kill()
        assert owner.process.wait(60) == -signal.SIGKILL
        owner.assert_nothing_remains()


@pytest.mark.thorough
def test_nothing_remains_of_frozen_processes_though_a_forked_child_outlives_the_owner() -> None:
    script = _OWNER.replace(
        "    time.sleep(300)", "    import os\n    cluster.freeze('n1')\n    os.fork()\n    time.sleep(300)"
    )
    with _owner(script) as owner:
        owner.read_until("directory")
        eventually(lambda: len(psutil.Process(owner.process.pid).children()) == 2, "the child to be there")
        owner.look()
        children = psutil.Process(owner.process.pid).children()
        forked = next(child for child in children if child.cmdline()[1:] == ["-u", "-c", textwrap.dedent(script)])
        owner.process.kill()
        try:
            owner.family.discard(forked)
            owner.assert_nothing_remains()
            assert _is_alive(forked)
        finally:
            forked.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; without it all tests run as one")
@pytest.mark.thorough
def test_an_ordinary_user_can_have_a_cluster() -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    environment = Path(sys.prefix)
    if not all(folder.stat().st_mode & stat.S_IXOTH for folder in (environment, *environment.parents)):
        # PostgreSQL's programs, which are there, look for each other as the user, whatever capabilities he has.
        pytest.skip(f"an ordinary user cannot reach {environment}, as in tox's environments")
    # The interpreter may be where only root can read; that is this test's problem, not an ordinary user's.
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    with _owner(prefix=(setpriv, "--reuid=nobody", "--regid=nogroup", "--clear-groups", *reading)) as owner:
        answer = owner.read_until("directory")
        assert Path(answer["directory"]).owner() == "nobody"
        assert answer["leader"] == "n1"
        owner.look()
        owner.process.send_signal(signal.SIGINT)
        owner.process.wait(60)
        owner.assert_nothing_remains()


@pytest.mark.thorough
def test_two_clusters_at_once_have_addresses_of_their_own_and_end_each_with_its_owner() -> None:
    with _owner() as one, _owner() as two:
        first, second = one.read_until("directory"), two.read_until("directory")
        assert not set(first["urls"]) & set(second["urls"])
        for owner, number in ((one, signal.SIGINT), (two, signal.SIGTERM)):
            owner.look()
            owner.process.send_signal(number)
            assert owner.process.wait(60) == -number
            owner.assert_nothing_remains()


@pytest.mark.thorough
def test_a_failed_start_shows_the_end_of_the_right_log() -> None:
    cluster = LocalCluster(nodes=1, parameters={"shared_preload_libraries": "no_such_library"}, start_timeout=30)
    with pytest.raises(ClusterError, match="n1 to become the leader") as caught:
        cluster.start()
    assert "no_such_library" in str(caught.value)
    assert "patroni.log" in str(caught.value)
    assert cluster.nodes == ()
    cluster.stop()


def test_a_named_folder_keeps_the_logs_and_nothing_else() -> None:
    with _public_folder() as folder:
        directory = folder / ("long-" * 20) / "cluster"
        with LocalCluster(nodes=1, directory=directory) as cluster:
            assert ask(cluster, "SHOW data_directory") == str(directory.resolve() / "n1" / "data")
        assert "starting" in (directory / "n1" / "log" / "postgresql.log").read_text()
        assert not (directory / "n1" / "data").exists()
        with pytest.raises(ClusterError, match="is not empty"):
            LocalCluster(nodes=1, directory=directory).start()


@pytest.mark.thorough
def test_it_can_be_started_again_even_after_its_supervisor_was_killed() -> None:
    cluster = LocalCluster(nodes=1)
    with cluster:
        first = cluster.directory
        assert cluster._lease is not None
        supervisor = psutil.Process(cluster._lease.pid)
        servers = supervisor.children(recursive=True)
        supervisor.kill()
    assert not first.exists()
    eventually(lambda: not any(map(_is_alive, servers)), "servers to end")
    cluster.stop()
    with pytest.raises(ClusterError, match="not running"):
        cluster.kill_postgres("n1")
    with cluster:
        assert cluster.directory != first
        assert ask(cluster, "SELECT 1") == 1


# From the command line.


def _command(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "patroni_db", "cluster", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=90,
        check=False,
    )


@pytest.mark.thorough
def test_the_command_line_makes_faults_in_a_detached_cluster() -> None:
    with _public_folder() as folder, _public_folder() as names:
        names.chmod(0o700)
        environment = {
            **os.environ,
            "TMPDIR": str(folder),
            "XDG_RUNTIME_DIR": str(names),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        assert _command("status", environment=environment).returncode == 1
        up = _command("up", "--nodes", "1", "--detach", "--json", environment=environment)
        assert up.returncode == 0, up.stderr
        try:
            with psycopg.connect(json.loads(up.stdout)["libpq"]) as connection:
                assert connection.execute("SELECT current_user").fetchone() == ("app",)
            again = _command("up", "--detach", environment=environment)
            assert again.returncode == 1
            assert "a cluster named 'default' is running already" in again.stderr
            status = json.loads(_command("status", "--json", environment=environment).stdout)
            assert (status["leader"], status["healthy"]) == ("n1", True)
            killed = _command("fault", "kill-node", "n1", "--json", environment=environment)
            told = json.loads(killed.stdout)
            assert (told["fault"], told["node"], told["leader"]) == ("kill-node", "n1", "n1")
            assert "n1 keeps the leader key until 20 s have passed" in told["outcome"]
            assert _command("status", environment=environment).returncode == 4
            assert _command("fault", "kill-node", "n1", environment=environment).returncode == 1
            assert _command("fault", "start-node", environment=environment).returncode == 2
            assert _command("fault", "heal", environment=environment).returncode == 0
            assert _command("status", environment=environment).returncode == 0
        finally:
            down = _command("down", environment=environment)
        assert down.returncode == 0, down.stderr
        eventually(lambda: not list(folder.iterdir()), "files to go")
        eventually(lambda: not list(names.iterdir()), "names to go")
        assert _command("down", environment=environment).returncode == 1
