"""``patroni-db cluster``: a real Patroni cluster on this machine, and the faults to try on it.

Errors are the library's own; the command's root turns them into messages and exit codes.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import click
from rich import box
from rich.console import Console
from rich.table import Table

from patroni_db.cli.cluster_logs import logs
from patroni_db.cli.cluster_options import json_option, name_option
from patroni_db.cli.cluster_psql import psql
from patroni_db.cli.seconds import Seconds
from patroni_db.cluster import LocalCluster, ProcessState
from patroni_db.cluster.crash import crash
from patroni_db.cluster.keeper import keep, keep_in_background
from patroni_db.cluster.registry import running_names, withdraw
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["cluster"]

# Of ``status`` alone; the other codes are those of every command.
_UNWELL = 4

_EPILOG = """\b
Exit codes:
  0    done
  1    it failed, or no such cluster runs
  2    wrong usage, or a wrong setting
  4    (status) the cluster runs, but something in it does not
  130  interrupted
"""


def _print_json(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2))


def describe(running: LocalCluster, name: str) -> dict[str, Any]:
    """Return what a program needs in order to use the cluster, its passwords too: they open nothing else.

    :param running: the cluster
    :param name: the name it is known by
    """
    login = f"{running.user}:{quote(running.password)}"
    hosts = ",".join(f"{node.host}:{node.port}" for node in running.nodes)
    django = {
        "NAME": running.dbname,
        "USER": running.user,
        "PASSWORD": running.password,
        "OPTIONS": {"patroni_urls": list(running.urls)},
    }
    return {
        "name": name,
        "scope": running.scope,
        "leader": running.leader,
        "patroni_urls": list(running.urls),
        "api_user": running.api_user,
        "api_password": running.api_password,
        "etcd_url": running.etcd_url,
        "etcd_ca": running.etcd_settings["etcd_ca"],
        "etcd_cert": running.etcd_settings["etcd_cert"],
        "directory": str(running.directory),
        "dbname": running.dbname,
        "user": running.user,
        "password": running.password,
        "superuser": running.superuser,
        "superuser_password": running.superuser_password,
        "libpq": f"postgresql://{login}@{hosts}/{running.dbname}?target_session_attrs=read-write",
        "sqlalchemy": f"postgresql+patroni://{login}@/{running.dbname}?patroni_urls={','.join(running.urls)}",
        "django": f"databases({', '.join(f'{key}={value!r}' for key, value in django.items())})",
        "nodes": [
            {
                "name": node.name,
                "host": node.host,
                "port": node.port,
                "api_url": node.api_url,
                "config_file": str(node.config_file),
                "data_dir": str(node.data_dir),
                "patroni_log": str(node.patroni_log),
                "postgres_log": str(node.postgres_log),
            }
            for node in running.nodes
        ],
    }


def _print_description(description: Mapping[str, Any]) -> None:
    # Plain lines, never wrapped: they are made to be copied.
    for label, value in (
        ("REST API", f"export PATRONI_API_URL={','.join(description['patroni_urls'])}"),
        ("login", " ".join(("export", *_login(description)))),
        # Not psql with a URL: its password would be in the list of processes.
        ("psql", f"patroni-db cluster psql --name {description['name']}"),
        ("Django", f"DATABASES = {description['django']}"),
        ("SQLAlchemy", description["sqlalchemy"]),
        ("superuser", f"{description['superuser']}, password {description['superuser_password']}"),
        ("files", description["directory"]),
    ):
        click.echo(f"{click.style(f'{label:<11}', bold=True)} {value}")


def _login(description: Mapping[str, Any]) -> list[str]:
    variables = {"PGUSER": "user", "PGDATABASE": "dbname", "PGPASSWORD": "password"}
    return [f"{variable}={shlex.quote(description[key])}" for variable, key in variables.items()]


@click.group(epilog=_EPILOG)
def cluster() -> None:
    """Run a real Patroni cluster on this machine: etcd, Patroni, PostgreSQL."""


cluster.add_command(logs)
cluster.add_command(psql)


@cluster.command()
@click.option("--nodes", type=click.IntRange(1, 32), default=3, show_default=True, help="Patroni nodes.")
@click.option("--synchronous", is_flag=True, help="Synchronous replication.")
@click.option("--quorum", is_flag=True, help="Quorum commit (Patroni 4); implies synchronous replication.")
@click.option("--failsafe", is_flag=True, help="Patroni's failsafe mode: the primary lives on while etcd is down.")
@click.option("--detach", is_flag=True, help="Return when it is up, and leave it running in the background.")
@click.option("--directory", type=click.Path(path_type=Path), help="New or empty folder whose logs are kept.")
@click.option("--postgres-bin", type=click.Path(path_type=Path), help="Folder of PostgreSQL's programs.")
@click.option("--etcd-bin", type=click.Path(path_type=Path), help="The etcd program.")
@click.option("--start-timeout", type=Seconds(least=1), default=60.0, show_default=True, metavar="SECONDS")
@name_option
@json_option
def up(  # noqa: PLR0913 - one parameter for each option
    *,
    nodes: int,
    synchronous: bool,
    quorum: bool,
    failsafe: bool,
    detach: bool,
    directory: Path | None,
    postgres_bin: Path | None,
    etcd_bin: Path | None,
    start_timeout: float,
    name: str,
    as_json: bool,
) -> None:
    """Start a cluster, say how to reach it, and keep it until Ctrl-C (or in the background with --detach)."""
    mode: bool | Literal["quorum"] = "quorum" if quorum else synchronous
    options = {
        "nodes": nodes,
        "synchronous": mode,
        "failsafe": failsafe,
        "directory": directory and str(directory.absolute()),
        "postgres_bin": postgres_bin and str(postgres_bin.absolute()),
        "etcd_bin": etcd_bin and str(etcd_bin.absolute()),
        "start_timeout": start_timeout,
    }
    messages = Console(stderr=True)
    status = messages.status("starting")

    def progress(text: str) -> None:
        messages.print(f"[dim]{text}[/dim]", soft_wrap=True)
        status.update(text)

    def ready() -> None:
        status.stop()
        description = describe(LocalCluster.attach(name), name)
        if as_json:
            _print_json(description)
        else:
            _print_description(description)
            if not detach:
                messages.print("[dim]Ctrl-C ends it.[/dim]")

    with status:
        if detach:
            keep_in_background(name, options, progress)
            ready()
        else:
            keep(name, options, progress, ready)


@cluster.command("list")
@json_option
def show_list(*, as_json: bool) -> None:
    """List your clusters that `cluster up` started and that are running."""
    found = []
    for name in running_names():
        # One that is ended just now is none.
        with contextlib.suppress(ClusterError):
            running = LocalCluster.attach(name)
            description = describe(running, name)
            keys = ("name", "scope", "leader", "patroni_urls", "directory")
            found.append({**{key: description[key] for key in keys}, "nodes": len(running.nodes)})
    if as_json:
        _print_json({"clusters": found})
    elif found:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for column in ("name", "nodes", "leader", "REST API", "files"):
            table.add_column(column)
        for one in found:
            cells = (one["name"], str(one["nodes"]), one["leader"] or "none", one["patroni_urls"][0], one["directory"])
            table.add_row(*cells)
        Console().print(table)
    else:
        click.echo("no cluster is running", err=True)


@cluster.command("status")
@name_option
@json_option
@click.pass_context
def show_status(context: click.Context, *, name: str, as_json: bool) -> None:
    """Tell how the cluster's processes are; exit code 4 when one is not running, or there is no leader."""
    running = LocalCluster.attach(name)
    leader, etcd, nodes = running.leader, running.etcd_state(), running.status()
    description = describe(running, name)
    healthy = leader is not None and all(
        state is ProcessState.RUNNING for state in (etcd, *(s for node in nodes for s in (node.patroni, node.postgres)))
    )
    states = {node.name: asdict(node) for node in nodes}
    if as_json:
        merged = [{**node, **states[node["name"]]} for node in description["nodes"]]
        _print_json({**description, "nodes": merged, "etcd": etcd, "healthy": healthy})
    else:
        title = f"cluster {name}, {running.directory}"
        # Narrow enough for 80 columns with all ports.
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for column in ("node", "role", "patroni", "postgres", "address", "REST API"):
            table.add_column(column)
        for node, state in zip(running.nodes, nodes, strict=True):
            role = "leader" if node.name == leader else ""
            address = f"{node.host}:{node.port}"
            table.add_row(node.name, role, _paint(state.patroni), _paint(state.postgres), address, node.api_url)
        table.add_row("etcd", "", _paint(etcd), "", running.etcd_url.removeprefix("https://"), "")
        Console().print(table)
    context.exit(0 if healthy else _UNWELL)


def _paint(state: ProcessState) -> str:
    colour = {ProcessState.RUNNING: "green", ProcessState.FROZEN: "cyan", ProcessState.STOPPED: "red"}[state]
    return f"[{colour}]{state}[/{colour}]"


@cluster.command()
@name_option
@json_option
def down(*, name: str, as_json: bool) -> None:
    """End a cluster and remove its files."""
    running = LocalCluster.attach(name)
    control = running.control
    running.stop()
    # Its keeper does that too, but perhaps a moment after we are done.
    withdraw(name, control)
    if as_json:
        _print_json({"name": name, "running": False})


@cluster.group()
def fault() -> None:
    """Make a fault in a running cluster, or undo one.

    Where NODE may be left out, the leader of the moment is meant.
    """


def _report(name: str, as_json: bool, kind: str, make: Callable[[LocalCluster], str | None]) -> None:  # noqa: FBT001
    running = LocalCluster.attach(name)
    before = running.leader
    node = make(running)
    leader = running.leader
    _print_outcome(kind, node, leader, outcome(kind, node, before, leader, running.settings.ttl), as_json=as_json)


def _print_outcome(kind: str, node: str | None, leader: str | None, text: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"fault": kind, "node": node, "leader": leader, "outcome": text})
    else:
        click.echo(f"{kind}{f' {node}' if node else ''}: {text}")


def outcome(kind: str, node: str | None, before: str | None, after: str | None, ttl: int) -> str:
    """Return in words what a fault did, for who reads only the last line of a drill.

    :param kind: the fault, as its command is called
    :param node: where it was made
    :param before: who held the leader key before
    :param after: who holds it afterwards
    :param ttl: seconds for which a leader that is gone keeps the key
    """
    leads = f"{after} leads" if after else "nobody leads"
    if kind == "switchover" and before != after:
        return f"{leads}, {before or 'nobody'} did before"
    if kind in {"kill-node", "freeze"} and node == after:
        return (
            f"done; {node} keeps the leader key until {ttl} s have passed: no failover before, "
            "unless `fault expire-leader` deletes the key"
        )
    return f"done; {leads}"


def _on_node(
    kind: str, help_text: str, make: Callable[[LocalCluster, str | None], str | None], *, needed: bool
) -> None:
    @fault.command(kind, help=help_text)
    @click.argument("node", required=needed)
    @name_option
    @json_option
    def command(*, node: str | None, name: str, as_json: bool) -> None:
        _report(name, as_json, kind, lambda running: make(running, node))


def _on_cluster(kind: str, help_text: str, make: Callable[[LocalCluster], object]) -> None:
    def done(running: LocalCluster) -> None:
        make(running)

    @fault.command(kind, help=help_text)
    @name_option
    @json_option
    def command(*, name: str, as_json: bool) -> None:
        _report(name, as_json, kind, done)


def _start_node(running: LocalCluster, node: str | None) -> str | None:
    if node is not None:
        running.start_node(node)
    return node


def _thaw(running: LocalCluster, node: str | None) -> str | None:
    if node is not None:
        running.thaw(node)
    return node


_on_node("switchover", "Move the leader, to NODE or the best replica.", LocalCluster.switchover, needed=False)
_on_node("kill-node", "Kill every process of NODE, like a power cut.", LocalCluster.kill_node, needed=False)
_on_node("start-node", "Start NODE again.", _start_node, needed=True)
_on_node("thaw", "Let a frozen NODE go on.", _thaw, needed=True)
_on_cluster("stop-etcd", "Kill etcd.", LocalCluster.stop_etcd)
_on_cluster("start-etcd", "Start etcd again, with its data.", LocalCluster.start_etcd)
_on_cluster("pause", "Patroni's maintenance mode: no failover.", LocalCluster.pause)
_on_cluster("resume", "End the maintenance mode.", LocalCluster.resume)
_on_cluster("expire-leader", "Delete the leader key, as if its time had run out.", LocalCluster.expire_leader)
_on_cluster("heal", "Undo every fault, and wait until all replicas stream.", LocalCluster.heal)


@fault.command("kill-postgres")
@click.argument("node", required=False)
@click.option(
    "--wait",
    type=Seconds(least=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a failover or a restart in place.",
)
@name_option
@json_option
def kill_postgres(*, node: str | None, wait: float, name: str, as_json: bool) -> None:
    """Kill the postmaster of NODE, and tell whether it was restarted in place or another node leads."""
    seen = crash(LocalCluster.attach(name), node, wait)
    _print_outcome("kill-postgres", seen.node, seen.leader, str(seen), as_json=as_json)


@fault.command()
@click.argument("node", required=False)
@click.option("--patroni-only", is_flag=True, help="Leave PostgreSQL running.")
@name_option
@json_option
def freeze(*, node: str | None, patroni_only: bool, name: str, as_json: bool) -> None:
    """Stop (SIGSTOP) the processes of NODE: a half-dead host."""
    _report(name, as_json, "freeze", lambda running: running.freeze(node, patroni_only=patroni_only))
