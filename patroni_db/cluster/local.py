"""LocalCluster: the owner's side of a cluster on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import secrets
import shutil
import sys
import time
import weakref
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from patroni_db.cluster import registry, rest
from patroni_db.cluster.addresses import Layout
from patroni_db.cluster.binaries import INSTALL_HINT, EtcdBinary, PostgresBinaries, find_etcd, find_postgres
from patroni_db.cluster.certificates import CertificateFiles, client_context, make_certificates
from patroni_db.cluster.control import call
from patroni_db.cluster.health import is_primary, is_replica, is_streaming, own_view
from patroni_db.cluster.lease import STOP_TIMEOUT, Lease, import_path
from patroni_db.cluster.nodes import Node, NodeStatus, ProcessState
from patroni_db.cluster.privileges import without_capability
from patroni_db.cluster.render import (
    API_USER,
    NAMESPACE,
    Credentials,
    dynamic_config,
    environment,
    etcd_command,
    nodes_of,
    patroni_config,
)
from patroni_db.cluster.settings import ClusterSettings
from patroni_db.cluster.switchover import SwitchoverRequest
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from types import TracebackType

__all__ = ["LocalCluster"]

# -I keeps the caller's folder and PYTHON* variables out, as for the supervisor.
_PATRONI = (
    "import sys; sys.path.extend(p for p in {path!r} if p not in sys.path); "
    "sys.argv = ['patroni', {config!r}]; from patroni.__main__ import main; main()"
)

_POLL = 0.05
_SWITCHOVER_TIMEOUT = 60.0
# Seconds for which Patroni is asked again: a standby that is late on a busy machine is no candidate for some loops.
_CANDIDATE_TIMEOUT = 10.0
_TAIL_LINES = 25
_ETCD = "etcd"

_T = TypeVar("_T")


def _tail(path: Path) -> str:
    """Return the end of a log; without the frames of Python's tracebacks, which push out what went wrong."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line and not line.startswith("  ")][-_TAIL_LINES:])


class LocalCluster:
    """A real Patroni cluster: one etcd, some nodes with PostgreSQL, on loopback addresses of its own.

    As a context manager it is up inside the ``with`` block. Nothing remains of it after :meth:`stop`, nor when
    this process ends in any other way, ``kill -9`` included.

    Methods may be called from any thread. A forked child may use the cluster but cannot stop it.

    :param nodes: number of Patroni nodes
    :param synchronous: ``True`` for synchronous replication, ``"quorum"`` for quorum commit
    :param failsafe: Patroni's ``failsafe_mode``
    :param ttl: seconds until a dead leader's key expires (20 is the least Patroni takes)
    :param loop_wait: seconds between two looks of Patroni's loop
    :param retry_timeout: seconds Patroni retries etcd and PostgreSQL (3 is the least it takes)
    :param primary_start_timeout: seconds a crashed primary may take to restart in place; 0: failover at once
    :param postgres_bin: the folder of PostgreSQL's programs; by default they are looked for
    :param etcd_bin: the etcd program or its folder; by default it is looked for
    :param directory: an empty or new folder for all files, in which logs and configuration remain after
        :meth:`stop`; by default a temporary one, of which nothing remains
    :param parameters: PostgreSQL parameters, over the cluster's own
    :param tags: Patroni tags by node name
    :param progress: called with a line of text at each step of the start
    :param start_timeout: seconds :meth:`start` may take
    :raises ConfigError: when a setting is wrong
    """

    def __init__(  # noqa: PLR0913 - one for each wish
        self,
        nodes: int = 3,
        synchronous: bool | Literal["quorum"] = False,  # noqa: FBT001, FBT002 - reads well: LocalCluster(3, True)
        *,
        failsafe: bool = False,
        ttl: int = 20,
        loop_wait: int = 1,
        retry_timeout: int = 3,
        primary_start_timeout: int = 0,
        postgres_bin: str | os.PathLike[str] | None = None,
        etcd_bin: str | os.PathLike[str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        parameters: Mapping[str, object] | None = None,
        tags: Mapping[str, Mapping[str, object]] | None = None,
        progress: Callable[[str], None] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self.settings = ClusterSettings(
            nodes=nodes,
            synchronous=synchronous,
            failsafe=failsafe,
            ttl=ttl,
            loop_wait=loop_wait,
            retry_timeout=retry_timeout,
            primary_start_timeout=primary_start_timeout,
            parameters=parameters or {},
            tags=tags or {},
        )
        self._postgres_bin = postgres_bin
        self._etcd_bin = etcd_bin
        self._directory = None if directory is None else str(Path(directory).absolute())
        self._progress = progress or (lambda _: None)
        self._start_timeout = start_timeout
        self._finalizer: weakref.finalize[[], LocalCluster] | None = None
        self._lease: Lease | None = None
        self._control: Path | None = None
        self._root: Path | None = None
        self._nodes: tuple[Node, ...] = ()
        self._layout: Layout | None = None
        self._credentials: Credentials | None = None
        self._etcd_access: rest.Etcd | None = None
        self.scope = ""

    # Life.

    def __enter__(self) -> Self:
        if self._control is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self.stop()

    def __repr__(self) -> str:
        state = f"up at {', '.join(self.urls)}" if self._control else "down"
        return f"<LocalCluster of {self.settings.nodes} nodes, {state}>"

    def start(self) -> None:
        """Start everything, and return when every replica streams from the leader.

        :raises ClusterError: when that did not happen; the message holds the end of the log that tells why.
            Nothing is left running then
        """
        if self._control is not None:
            raise ClusterError("the cluster is running already")
        try:
            self._start(time.monotonic() + self._start_timeout)
        except BaseException:
            # Ctrl-C included. Should stopping be interrupted too, the supervisor still ends everything.
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and remove every file of the cluster. Does nothing when it is down, or in a forked child.

        :raises ClusterError: when processes do not end
        """
        lease, control = self._lease, self._control
        if lease is not None:
            if os.getpid() != lease.owner:
                return
            self._forget()
            if self._finalizer is not None:
                self._finalizer.detach()
            lease.end()
        elif control is not None:
            self._forget()
            call(control, "shutdown", timeout=STOP_TIMEOUT, until_closed=True)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the cluster has ended, for example because another program stopped it.

        :param timeout: seconds to wait at most; without it, for ever
        :returns: whether it has ended
        """
        if self._lease is not None:
            return self._lease.wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._control is not None and self._control.exists():
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    @classmethod
    def attach(cls, name: str = registry.DEFAULT_NAME) -> LocalCluster:
        """Return the running cluster that ``patroni-db cluster up --name`` started, to inspect it and to make faults.

        Leaving a ``with`` block of it stops nothing; :meth:`stop` does.

        :param name: the cluster's name
        :raises ClusterError: when no such cluster runs
        """
        return cls._attach_to(registry.control_of(name))

    @classmethod
    def _attach_to(cls, control: Path) -> LocalCluster:
        description = json.loads(call(control, "read", path="cluster.json")["text"])
        cluster = cls()
        cluster.settings = ClusterSettings.from_json(description["settings"])
        cluster._adopt(description["hello"], Credentials(**description["credentials"]))
        return cluster

    def _forget(self) -> None:
        self._lease = None
        self._control = None
        self._root = None
        self._nodes = ()
        self._layout = None
        self._credentials = None
        self._etcd_access = None
        self.scope = ""

    def _adopt(self, hello: Mapping[str, Any], credentials: Credentials) -> None:
        """Take over what the supervisor said about itself."""
        endpoints = {name: tuple(hello[name]) for name in ("lock", "etcd", "etcd_peer")}
        self._layout = Layout(
            **endpoints,
            postgres=tuple((host, port) for host, port in hello["postgres"]),
            api=tuple((host, port) for host, port in hello["api"]),
        )
        self._root = Path(hello["root"])
        self._control = Path(hello["run"]) / "control"
        self._nodes = nodes_of(self._layout, self._root, Path(hello["run"]))
        self._credentials = credentials
        self.scope = hello["scope"]

    # Starting.

    def _start(self, deadline: float) -> None:
        for package in ("psutil", "patroni", "trustme"):
            if importlib.util.find_spec(package) is None:
                raise ClusterError(f"{package} is not installed; {INSTALL_HINT}")
        etcd = find_etcd(self._etcd_bin)
        postgres = find_postgres(self._postgres_bin)
        self._progress(f"PostgreSQL {postgres.version} from {postgres.directory}")
        credentials = Credentials(*(secrets.token_urlsafe(16) for _ in range(5)))
        lease = self._lease = Lease()
        # Also when the last reference goes or the interpreter ends.
        self._finalizer = weakref.finalize(self, lease.end)
        hello = lease.greet(self.settings.nodes, self._directory, _programs(etcd, postgres))
        hello["scope"] = "local-" + hello["etcd"][0].split(".")[2] + "-" + secrets.token_hex(2)
        self._adopt(hello, credentials)
        self._write_description(hello, credentials)
        for name, text in make_certificates(self._up_layout.etcd[0]).items():
            path: Path = getattr(self._certificates, name)
            self._call("write", path=str(path.relative_to(self._up_root)), text=text)
        self._start_servers(etcd, postgres, credentials, frozenset(hello["unreadable"]), deadline)

    def _write_description(self, hello: Mapping[str, Any], credentials: Credentials) -> None:
        """Leave what :meth:`attach` needs with the supervisor."""
        description = {
            "settings": self.settings.to_json(),
            "hello": dict(hello),
            "credentials": {name: getattr(credentials, name) for name in Credentials.__slots__},
        }
        self._call("write", path="cluster.json", text=json.dumps(description))

    def _start_servers(
        self,
        etcd: EtcdBinary,
        postgres: PostgresBinaries,
        credentials: Credentials,
        unreadable: AbstractSet[str],
        deadline: float,
    ) -> None:
        """Start everything.

        :param unreadable: files that only processes with the capability of :mod:`.privileges` can read
        """
        layout, root = self._up_layout, self._up_root
        self._progress(f"starting etcd {'.'.join(map(str, etcd.version))}")
        etcd_environment = environment(root / _ETCD, [etcd.path.parent], os.environ)
        if etcd.version < (3, 5) and platform.machine() in ("aarch64", "arm64"):
            # Old versions ask for this where they are not tested.
            etcd_environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"
        self._call(
            "start",
            name=_ETCD,
            argv=etcd_command(etcd, layout, root / _ETCD, self._certificates),
            env=etcd_environment,
            log="etcd.log",
            # Where nothing was kept there is nothing to forgo: a user's own capabilities are his.
            privileged=not unreadable or not unreadable.isdisjoint({str(etcd.path), self._directory}),
        )
        postgres_program = self._unprivileged(postgres, unreadable)
        self._await("etcd to be healthy", lambda: self._etcd.is_healthy, deadline, (_ETCD,))
        for node in self.nodes:
            config = patroni_config(
                node,
                self.settings,
                layout,
                self.scope,
                postgres,
                credentials,
                self._certificates,
                postgres_program=postgres_program,
            )
            self._call("write", path=f"{node.name}/patroni.json", text=json.dumps(config, indent=1))
        first, *others = self.nodes
        self._progress(f"starting {first.name}: a new database")
        privileged = not unreadable or unreadable != {str(etcd.path)}
        self._start_patroni(first, postgres, privileged)
        self._await(f"{first.name} to begin", self._is_initializing, deadline, (_ETCD, first.name))
        # Who holds the initialize key makes the database. The others can start now: they wait for it.
        for node in others:
            self._start_patroni(node, postgres, privileged)
        what = f"{first.name} to become the leader"
        self._await(what, lambda: is_primary(first), deadline, (_ETCD, first.name))
        if others:
            self._progress(f"{first.name} leads; {', '.join(node.name for node in others)} copy it")
        self._create_application(first, credentials)
        names = tuple(node.name for node in self.nodes)
        self._await("every replica to stream", self._is_streaming, deadline, (_ETCD, *names))
        self._progress(f"up: {', '.join(self.urls)}")

    def _unprivileged(self, postgres: PostgresBinaries, unreadable: AbstractSet[str]) -> str | None:
        """Return what starts PostgreSQL without the capability that Patroni has to keep; None where that need not be.

        Nor where it cannot be: no setpriv, or the folder of temporary files does not let programs be executed.
        """
        setpriv = shutil.which("setpriv")
        needed = {*_postgres_programs(postgres), self._directory}
        if not unreadable or not unreadable.isdisjoint(needed) or setpriv is None:
            return None
        script = without_capability(str(postgres.directory / "postgres"), setpriv)
        written = self._call("write", path="postgres", text=script, mode=0o700)
        return str(self._up_root / "postgres") if written["executable"] else None

    def _start_patroni(self, node: Node, postgres: PostgresBinaries, privileged: bool) -> None:  # noqa: FBT001
        self._call(
            "start",
            name=node.name,
            argv=[sys.executable, "-I", "-c", _PATRONI.format(path=import_path(), config=str(node.config_file))],
            env=environment(node.directory, [postgres.directory], os.environ),
            log=f"{node.name}/patroni.log",
            privileged=privileged,
        )

    def _create_application(self, node: Node, credentials: Credentials) -> None:
        try:
            with psycopg.connect(self.conninfo(node.name), autocommit=True, connect_timeout=10) as connection:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                        sql.Identifier(self.user), sql.Literal(credentials.app)
                    )
                )
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(self.dbname), sql.Identifier(self.user)
                    )
                )
        except psycopg.Error as error:
            raise ClusterError(
                f"the application's role and database could not be made: {error}\n{self._logs((node.name,))}"
            ) from error

    def _await(self, what: str, done: Callable[[], bool], deadline: float, servers: tuple[str, ...]) -> None:
        """Wait during the start; a server that ends meanwhile is the end of waiting."""
        started = time.monotonic()
        while not done():
            alive = self._call("alive")
            for name in servers:
                if alive[name]["state"] == ProcessState.STOPPED:
                    status = alive[name]["exit_status"]
                    raise ClusterError(
                        f"{name} ended (exit status {status}) while waiting for {what}\n{self._logs((name,))}"
                    )
            if time.monotonic() > deadline:
                waited = time.monotonic() - started
                raise ClusterError(
                    f"waited {waited:.0f} s in vain for {what} (start_timeout is {self._start_timeout:g} s)\n"
                    f"{self._logs(self._suspects(servers))}"
                )
            time.sleep(_POLL)

    def _suspects(self, servers: tuple[str, ...]) -> tuple[str, ...]:
        """Return those whose logs explain a start that hangs."""
        nodes = [name for name in servers if name != _ETCD]
        unwell = [name for name in nodes if not (is_replica(self.node(name)) or is_primary(self.node(name)))]
        return tuple(unwell or nodes) or servers

    def _logs(self, servers: tuple[str, ...]) -> str:
        parts = []
        for name in servers:
            paths = (
                [self._up_root / "etcd.log"]
                if name == _ETCD
                else [self.node(name).patroni_log, self.node(name).postgres_log]
            )
            parts += [f"--- end of {path}\n{text}" for path in paths if (text := _tail(path))]
        return "\n".join(parts) or "(the logs are empty)"

    # What it is.

    @property
    def _up_layout(self) -> Layout:
        if self._layout is None:
            raise ClusterError("the cluster is not running")
        return self._layout

    @property
    def _up_root(self) -> Path:
        if self._root is None:
            raise ClusterError("the cluster is not running")
        return self._root

    @property
    def _up_credentials(self) -> Credentials:
        if self._credentials is None:
            raise ClusterError("the cluster is not running")
        return self._credentials

    @property
    def _certificates(self) -> CertificateFiles:
        return CertificateFiles(self._up_root)

    @property
    def _etcd(self) -> rest.Etcd:
        if self._etcd_access is None:
            try:
                context = client_context(self._certificates)
            except OSError as error:
                raise ClusterError(f"the cluster's certificates cannot be read: {error}") from error
            self._etcd_access = rest.Etcd(self._up_layout.etcd, context)
        return self._etcd_access

    @property
    def _login(self) -> rest.Login:
        return rest.Login(self.api_user, self.api_password)

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return call(self.control, operation, **arguments)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, running or not; empty when the cluster is down."""
        return self._nodes

    def node(self, name: str) -> Node:
        """Return the node called `name`.

        :raises ClusterError: when there is none
        """
        for node in self._nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self._nodes) or "none, the cluster is not running"
        raise ClusterError(f"there is no node {name!r} (nodes: {known})")

    @property
    def urls(self) -> tuple[str, ...]:
        """The REST API of every node, as ``patroni_urls`` takes them."""
        return tuple(node.api_url for node in self._nodes)

    @property
    def etcd_url(self) -> str:
        """The client URL of etcd, which answers only those that hold the cluster's certificate."""
        return "https://{}:{}".format(*self._up_layout.etcd)

    @property
    def etcd_settings(self) -> dict[str, str]:
        """What a client of etcd needs, as keywords of :class:`~patroni_db.PatroniConfig`.

        URL, certificate authority, and a file with key and certificate. In ``OPTIONS`` and URLs the names begin with
        ``patroni_``.
        """
        files = self._certificates
        return {"etcd": self.etcd_url, "etcd_ca": str(files.authority), "etcd_cert": str(files.client)}

    @property
    def api_user(self) -> str:
        """Who may change things through Patroni's REST API; reading needs no login."""
        return API_USER

    @property
    def api_password(self) -> str:
        """The password of :attr:`api_user`."""
        return self._up_credentials.api

    @property
    def control(self) -> Path:
        """The supervisor's control socket."""
        if self._control is None:
            raise ClusterError("the cluster is not running")
        return self._control

    @property
    def directory(self) -> Path:
        """The folder of all files."""
        return self._up_root

    @property
    def dbname(self) -> str:
        """The application's database, owned by :attr:`user`."""
        return "app"

    @property
    def user(self) -> str:
        """The application's role: no superuser, may create databases."""
        return "app"

    @property
    def password(self) -> str:
        """The password of :attr:`user`."""
        return self._up_credentials.app

    @property
    def superuser(self) -> str:
        """The name of the superuser."""
        return "postgres"

    @property
    def superuser_password(self) -> str:
        """The password of :attr:`superuser`."""
        return self._up_credentials.superuser

    def conninfo(self, name: str | None = None, dbname: str = "postgres", **extra: Any) -> str:
        """Return a libpq connection string for one node.

        :param name: the node; by default the leader of this moment
        :param dbname: the database
        :param extra: more libpq parameters. `user` is the superuser by default; the password of both roles is known
        :raises ClusterError: when there is no such node, or no leader
        """
        node = self.node(name) if name is not None else self.node(self._require_leader())
        parameters: dict[str, Any] = {"user": self.superuser, **extra}
        known = {self.superuser: self.superuser_password, self.user: self.password}
        if "password" not in parameters and parameters["user"] in known:
            parameters["password"] = known[parameters["user"]]
        return make_conninfo(host=node.host, port=node.port, dbname=dbname, **parameters)

    @property
    def leader(self) -> str | None:
        """The name of the node that holds the leader key, None when none does.

        While etcd is down there is no key: then a node whose PostgreSQL is a running primary (failsafe mode).
        """
        try:
            return self._etcd.read_key(self._leader_key) or None
        except OSError:
            return next((node.name for node in self._nodes if is_primary(node)), None)

    @property
    def _leader_key(self) -> str:
        return f"{NAMESPACE}{self.scope}/leader"

    def is_primary(self, name: str) -> bool:
        """Tell whether a node says of itself that its PostgreSQL is a running primary."""
        return is_primary(self.node(name))

    def _require_leader(self) -> str:
        leader = self.leader
        if leader is None:
            raise ClusterError("there is no leader now")
        return leader

    def status(self) -> tuple[NodeStatus, ...]:
        """Return how the processes of every node are."""
        states = self._call("status")
        return tuple(
            NodeStatus(node.name, ProcessState(states[node.name]["main"]), ProcessState(states[node.name]["postgres"]))
            for node in self._nodes
        )

    def etcd_state(self) -> ProcessState:
        """Return how etcd is."""
        return ProcessState(self._call("status")[_ETCD]["main"])

    # What Patroni says.

    def _is_initializing(self) -> bool:
        try:
            return self._etcd.read_key(f"{NAMESPACE}{self.scope}/initialize") is not None
        except OSError:
            return False

    def _running(self) -> tuple[Node, ...]:
        alive = self._call("alive")
        return tuple(node for node in self._nodes if alive[node.name]["state"] == ProcessState.RUNNING)

    def _is_streaming(self) -> bool:
        leader, running = self.leader, self._running()
        nodes = {node.name: node for node in running}
        if leader not in nodes:
            return False
        replicas = [node for node in running if node.name != leader]
        return is_streaming(nodes[leader], replicas, synchronous=bool(self.settings.synchronous))

    def wait_for_leader(self, other_than: str | None = None, timeout: float = 60.0) -> str:
        """Wait until a node holds the leader key and its PostgreSQL is a running primary.

        :param other_than: a node that does not count
        :param timeout: seconds
        :returns: the leader's name
        :raises ClusterError: when there was none in time
        """
        other = f" other than {other_than}" if other_than else ""
        return self._until(f"a leader{other}", lambda: self._primary_other_than(other_than), timeout)

    def _primary_other_than(self, name: str | None) -> str | None:
        leader = self.leader
        if leader is None or leader == name or not is_primary(self.node(leader)):
            return None
        return leader

    def wait_until_streaming(self, timeout: float = 60.0) -> None:
        """Wait until every running replica streams from the leader, on its timeline.

        Nodes that were killed or frozen do not count.

        :param timeout: seconds
        :raises ClusterError: when that did not happen in time
        """
        self._until("every running replica to stream", lambda: self._is_streaming() or None, timeout)

    def _until(self, what: str, found: Callable[[], _T | None], timeout: float) -> _T:
        deadline = time.monotonic() + timeout
        while True:
            value = found()
            if value is not None:
                return value
            if time.monotonic() > deadline:
                names = tuple(node.name for node in self._nodes)
                raise ClusterError(f"waited {timeout:g} s in vain for {what}\n{self._logs(self._suspects(names))}")
            time.sleep(_POLL)

    # Faults.

    @overload
    def switchover(self, candidate: str | None = None, wait: Literal[True] = True) -> str: ...  # noqa: FBT002

    @overload
    def switchover(self, candidate: str | None = None, wait: bool = True) -> str | None: ...  # noqa: FBT001, FBT002

    def switchover(self, candidate: str | None = None, wait: bool = True) -> str | None:  # noqa: FBT001, FBT002
        """Have Patroni move the leader, in an orderly way.

        :param candidate: the next leader; by default the best replica
        :param wait: whether to wait until the new leader is a running primary
        :returns: the new leader's name; None without waiting
        :raises ClusterError: when Patroni refuses, or no other leader comes. With `wait`, where Patroni sees nobody
            who could take over it is asked again for some seconds
        """
        old = self._require_leader()
        if candidate is not None:
            self.node(candidate)
        body = {"leader": old, **({"candidate": candidate} if candidate else {})}
        node = self.node(old)
        asked = SwitchoverRequest((node.host, node.api_port), body, self._login)
        if not wait:
            if (refusal := asked.refusal(within=1.0)) is not None:
                raise refusal.error()
            return None
        patience = time.monotonic() + _CANDIDATE_TIMEOUT

        def moved() -> str | None:
            nonlocal asked
            if (refusal := asked.refusal()) is not None:
                if not refusal.is_temporary or time.monotonic() > patience:
                    raise refusal.error()
                asked = SwitchoverRequest((node.host, node.api_port), body, self._login)
            return self._primary_other_than(old)

        return self._until(f"a leader other than {old}", moved, _SWITCHOVER_TIMEOUT)

    def _target(self, name: str | None) -> str:
        return self._require_leader() if name is None else self.node(name).name

    def kill_postgres(self, name: str | None = None) -> str:
        """Kill (SIGKILL) the postmaster of a node, as a crash of PostgreSQL.

        :param name: the node; by default the leader
        :returns: the node's name
        """
        target = self._target(name)
        self._call("kill_postgres", name=target)
        return target

    def kill_node(self, name: str | None = None) -> str:
        """Kill every process of a node at one blow, as a power cut. :meth:`start_node` brings it back.

        Others see it as leader for the whole ttl; :meth:`expire_leader` cuts that short.

        :param name: the node; by default the leader
        :returns: the node's name
        """
        target = self._target(name)
        self._call("kill", name=target)
        return target

    def start_node(self, name: str) -> None:
        """Start a node that was killed. Does not wait for it: see :meth:`wait_until_streaming`."""
        self._call("start", name=self.node(name).name)

    def freeze(self, name: str | None = None, patroni_only: bool = False) -> str:  # noqa: FBT001, FBT002
        """Stop (SIGSTOP) every process of a node: a half-dead host whose kernel still answers.

        :param name: the node; by default the leader
        :param patroni_only: only Patroni, and so the REST API; PostgreSQL goes on
        :returns: the node's name
        """
        target = self._target(name)
        self._call("freeze", name=target, main_only=patroni_only)
        return target

    def thaw(self, name: str) -> None:
        """Let a frozen node go on."""
        self._call("thaw", name=self.node(name).name)

    def stop_etcd(self) -> None:
        """Kill etcd."""
        self._call("kill", name=_ETCD)

    def start_etcd(self, timeout: float = 20.0) -> None:
        """Start etcd again with the data it had, and wait until it is healthy.

        :param timeout: seconds
        """
        self._call("start", name=_ETCD)
        deadline = time.monotonic() + timeout
        self._await("etcd to be healthy", lambda: self._etcd.is_healthy, deadline, (_ETCD,))

    def expire_leader(self) -> bool:
        """Delete the leader key in etcd, as if the ttl had passed; tell whether there was one."""
        try:
            return self._etcd.delete_key(self._leader_key)
        except OSError as error:
            raise ClusterError(f"etcd does not answer: {error}") from error

    def patch_config(self, changes: Mapping[str, Any]) -> None:
        """Change the cluster-wide configuration (``PATCH /config``); ``None`` removes a key.

        :param changes: for example ``{"primary_start_timeout": 300}``
        :raises ClusterError: when no node accepts it
        """
        self._configure("PATCH", changes)

    def _configure(self, method: str, body: Mapping[str, Any]) -> None:
        problems = []
        for node in self._running():
            try:
                endpoint = (node.host, node.api_port)
                status, text = rest.request(method, endpoint, "/config", body, timeout=10.0, login=self._login)
            except OSError as error:
                problems.append(f"{node.name}: {error}")
                continue
            if status == HTTPStatus.OK:
                return
            problems.append(f"{node.name}: {status} {text.strip()}")
        raise ClusterError(f"the configuration was not changed: {'; '.join(problems) or 'no node is running'}")

    def pause(self, timeout: float = 20.0) -> None:
        """Put Patroni into maintenance mode: no failover, no restart; wait until every running node knows.

        :param timeout: seconds
        """
        self.patch_config({"pause": True})
        self._until("every node to be paused", lambda: self._all_paused(wanted=True) or None, timeout)

    def resume(self, timeout: float = 20.0) -> None:
        """End the maintenance mode; wait until every running node knows.

        :param timeout: seconds
        """
        self.patch_config({"pause": None})
        self._until("every node to be resumed", lambda: self._all_paused(wanted=False) or None, timeout)

    def _all_paused(self, *, wanted: bool) -> bool:
        views = [own_view(node) for node in self._running()]
        return all(view and bool(view.get("pause")) is wanted for view in views)

    def heal(self, timeout: float = 60.0) -> None:
        """Undo every fault: thaw, start what is down, put the configuration back, wait until all is well.

        The leader may be another one than at the start. Databases and roles stay as they are.

        :param timeout: seconds
        """
        deadline = time.monotonic() + timeout
        states = self._call("status")
        for name, state in states.items():
            if state["frozen"]:
                self._call("thaw", name=name)
        if states[_ETCD]["main"] == ProcessState.STOPPED:
            self.start_etcd()
        for node in self._nodes:
            if states[node.name]["main"] == ProcessState.STOPPED:
                self.start_node(node.name)
        self._until("Patroni's configuration to be as at the start", self._restore_config, timeout)
        self.wait_until_streaming(max(1.0, deadline - time.monotonic()))

    def _restore_config(self) -> bool | None:
        wanted = dynamic_config(self.settings)
        for node in self._running():
            current = rest.get_json((node.host, node.api_port), "/config")
            if current == wanted:
                return True
            if current is not None:
                with contextlib.suppress(ClusterError):
                    self._configure("PUT", wanted)
                return None
        return None


def _programs(etcd: EtcdBinary, postgres: PostgresBinaries) -> Iterator[str]:
    yield str(etcd.path)
    yield from _postgres_programs(postgres)


def _postgres_programs(postgres: PostgresBinaries) -> Iterator[str]:
    for name in ("postgres", "initdb"):
        program = postgres.directory / name
        yield from (str(program), str(program.resolve()))
