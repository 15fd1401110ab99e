"""``patroni-db cluster psql``: a session on a local cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from patroni_db.cli.cluster_options import name_option
from patroni_db.cli.exits import Failure
from patroni_db.cluster import LocalCluster
from patroni_db.cluster.binaries import find_postgres
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from patroni_db.cluster import Node

__all__ = ["psql", "session_environment"]

# Variables of libpq that say how to speak, not with whom.
_KEPT: Final = frozenset({"PGAPPNAME", "PGCLIENTENCODING", "PGDATESTYLE", "PGOPTIONS", "PGTZ"})


def session_environment(
    nodes: Sequence[Node], dbname: str, user: str, passfile: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of psql; the password stays in a file that only its owner reads.

    :param nodes: where to connect: one, or all, of which psql takes the primary
    :param environ: the present environment, whose connection this one replaces
    """
    kept = {name: value for name, value in environ.items() if not name.startswith("PG") or name in _KEPT}
    return {
        **kept,
        "PGHOST": ",".join(node.host for node in nodes),
        "PGPORT": ",".join(str(node.port) for node in nodes),
        "PGDATABASE": dbname,
        "PGUSER": user,
        "PGPASSFILE": str(passfile),
        "PGCONNECT_TIMEOUT": "5",
        # Whoever else may listen there gets no password in clear text.
        "PGREQUIREAUTH": "scram-sha-256",
        **({"PGTARGETSESSIONATTRS": "read-write"} if len(nodes) > 1 else {}),
    }


def _program() -> str:
    try:
        return str(find_postgres().directory / "psql")
    except ClusterError:
        found = shutil.which("psql")
        if found is None:
            raise Failure("there is no psql: neither with a PostgreSQL that a cluster would use nor on PATH") from None
        return found


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--node", help="Connect to this node; by default to the primary.")
@click.option("--superuser", is_flag=True, help="As superuser instead of the application's role.")
@name_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PSQL'S ARGUMENT]...")
@click.pass_context
def psql(context: click.Context, *, node: str | None, superuser: bool, name: str, arguments: tuple[str, ...]) -> None:
    """Open psql on a cluster; what follows the options is psql's own: psql --node n2 -c 'SELECT 1'.

    The exit code is psql's.
    """
    running = LocalCluster.attach(name)
    nodes = running.nodes if node is None else (running.node(node),)
    user = running.superuser if superuser else running.user
    with tempfile.TemporaryDirectory(prefix="patroni-db-psql-") as folder:
        passfile = Path(folder, "pgpass")
        passfile.touch(mode=0o600)
        logins = ((running.user, running.password), (running.superuser, running.superuser_password))
        passfile.write_text(
            "".join(f"{one.host}:{one.port}:*:{who}:{password}\n" for one in running.nodes for who, password in logins)
        )
        environment = session_environment(nodes, running.dbname, user, passfile, os.environ)
        # psql decides what Ctrl-C means: it ends a statement, not the session.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            code = subprocess.Popen([_program(), *arguments], env=environment).wait()
        finally:
            signal.signal(signal.SIGINT, before)
    context.exit(code if code >= 0 else 128 - code)
