"""``patroni-db dsn``: a connection string for the primary, or for a replica."""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from patroni_db.cli.connection_string import Form, connection_string
from patroni_db.cli.exits import EPILOG, Failure, SettingFailure, warn
from patroni_db.cli.output import json_option, print_json, told_as_json
from patroni_db.cli.settings import config_options, setting
from patroni_db.cli.view import View, look
from patroni_db.escaping import plain
from patroni_db.libpq import session_attrs
from patroni_db.outside import servers
from patroni_db.selection import Target

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig
    from patroni_db.topology import Address, Member

__all__ = ["dsn"]

_ENV_PASSWORD: Final = "PGPASSWORD"  # noqa: S105 - its name


@click.command(epilog=EPILOG)
@setting(
    "--target",
    "patroni_target",
    metavar="TARGET",
    help=f"What the connection is for: {', '.join(Target)}.  [default: primary]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Form]),
    default=Form.URI.value,
    show_default=True,
    help="How to write it.",
)
@click.option("--dbname", metavar="NAME", help="Database; left out by default, so that libpq's own default holds.")
@click.option("--user", metavar="NAME", help="Database user; left out by default.")
@click.option("--with-password", is_flag=True, help=f"Put the password in: {_ENV_PASSWORD}, or else asked for.")
@click.option("--all", "everybody", is_flag=True, help="Name all members, the best first: still good after a failover.")
@setting("--max-lag", "patroni_max_lag", metavar="SIZE", help="Replicas with more, or unknown, lag do not count: 16MB.")
@setting("--tags", "patroni_tags", metavar="TAGS", help="Replicas with these tags: 'zone=a;zone=b;', in order.")
@config_options()
@json_option
def dsn(
    *,
    config: PatroniConfig,
    form: str,
    dbname: str | None,
    user: str | None,
    with_password: bool,
    everybody: bool,
    as_json: bool,
) -> None:
    """Print a connection string for psql and every other user of libpq.

    It asks the server to prove its role (target_session_attrs). Replicas come in random order.

    \b
    psql "$(patroni-db dsn --dbname app --user app)"
    eval "$(patroni-db dsn --target replica --format env)"
    """  # noqa: D301 - click looks for the character, not for how it is written
    password = _password() if with_password else None
    view: View = told_as_json(lambda: look(config, check=False), as_json=as_json)
    for failure in view.failures:
        warn(str(failure))
    members = servers(view, config, random.SystemRandom(), everybody=everybody)
    if not members:
        if as_json:
            print_json(_document(config.target, [], None))
        raise Failure(_nobody(config.target, view))
    text = connection_string(
        Form(form),
        [address for _, address in members],
        target=config.target,
        dbname=dbname,
        user=user,
        password=password,
    )
    if as_json:
        print_json(_document(config.target, members, text))
    else:
        click.echo(text)


def _nobody(target: Target, view: View) -> str:
    name = plain(view.topology.scope or "(unnamed)")
    leader = view.topology.leader
    if target is not Target.PRIMARY:
        return f"cluster {name} has no server for {target}"
    if leader is not None and leader.is_standby_leader:
        return f"cluster {name} has no primary: {plain(leader.name)} leads a standby cluster"
    return f"cluster {name} has no primary at the moment"


def _document(target: Target, members: list[tuple[Member, Address]], text: str | None) -> dict[str, Any]:
    return {
        "target": str(target),
        "dsn": text,
        "target_session_attrs": session_attrs(target),
        "servers": [{"name": m.name, "host": address.host, "port": address.port} for m, address in members],
    }


def _password() -> str:
    password = os.environ.get(_ENV_PASSWORD)
    if password:
        return password
    if not sys.stdin.isatty():
        message = f"--with-password: {_ENV_PASSWORD} is not set, and there is no terminal to ask at"
        raise SettingFailure(message)
    answer: str = click.prompt("Password", hide_input=True, err=True)
    return answer
