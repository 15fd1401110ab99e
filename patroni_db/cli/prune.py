"""``patroni-db prune-markers``: forget the commit markers of long ago."""

from __future__ import annotations

import functools
import random
import time
from typing import TYPE_CHECKING, Any, Final

import click
import psycopg

from patroni_db.acquisition import Attempt, acquire
from patroni_db.cli.exits import EPILOG, Failure, SettingFailure
from patroni_db.cli.leaving import in_order
from patroni_db.cli.output import json_option, print_json, told_as_json
from patroni_db.cli.settings import config_options, setting
from patroni_db.discovery import discovery_for
from patroni_db.escaping import plain
from patroni_db.libpq import attempt_params, with_defaults
from patroni_db.markers import PRUNE, TABLE, seconds_of
from patroni_db.time_limit import time_limit
from patroni_db.transaction import Reruns

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig

__all__ = ["BATCH", "LEAST_AGE", "prune_markers"]

# Markers that go in one statement.
BATCH: Final = 5000
# Seconds. A marker is needed for as long as its transaction may still be in doubt, or its work come again.
LEAST_AGE: Final = 3600.0


@click.command("prune-markers", epilog=EPILOG)
@click.option(
    "--older-than", "age", default="7d", show_default=True, metavar="AGE", help="As 12h, 7d, 2w; 1h at least."
)
@click.option("--dbname", metavar="NAME", help="Database; by default libpq's own default (PGDATABASE).")
@click.option("--user", metavar="NAME", help="Database user; by default libpq's own default (PGUSER).")
@setting(
    "--timeout", "patroni_failover_timeout", metavar="SECONDS", help="How long to wait for a primary; 60 by default."
)
@config_options()
@json_option
def prune_markers(*, config: PatroniConfig, age: str, dbname: str | None, user: str | None, as_json: bool) -> None:
    """Delete commit markers on the primary, a few thousand at a time.

    The password is taken from where libpq takes it: PGPASSWORD, ~/.pgpass, PGPASSFILE.
    """
    seconds = _checked(age)
    given = {"dbname": dbname, "user": user}
    params = with_defaults({name: value for name, value in given.items() if value is not None})
    with in_order():
        deleted: int = told_as_json(lambda: _prune(config, params, seconds), as_json=as_json)
    if as_json:
        print_json({"deleted": deleted, "older_than": seconds, "table": TABLE})
    else:
        click.echo(f"deleted {deleted} commit markers older than {age}")


def _checked(age: str) -> float:
    try:
        seconds = seconds_of(age)
    except ValueError as exc:
        raise SettingFailure(f"--older-than: {plain(str(exc))}") from exc
    if seconds < LEAST_AGE:
        message = f"--older-than: {plain(age)} is less than 1h: transactions that young may still need their markers"
        raise SettingFailure(message)
    return seconds


def _prune(config: PatroniConfig, params: dict[str, Any], seconds: float) -> int:
    """Delete until none is left that old; a lost connection is replaced. Deleting the same twice does no harm."""
    discovery = discovery_for(config)
    deleted = 0
    reruns = Reruns(config.failover_timeout, random.SystemRandom())
    connection: psycopg.Connection[Any] | None = None
    try:
        while True:
            try:
                with time_limit(reruns.remaining):
                    if connection is None or connection.closed:
                        made, _ = acquire(discovery, config, functools.partial(_connect, params))
                        connection = made
                    count: int = connection.execute(PRUNE, [seconds, BATCH]).rowcount
            except psycopg.Error as exc:
                lost = connection is not None and bool(connection.closed)
                pause = reruns.pause_after(exc, lost=lost) if connection is not None else None
                if pause is None:
                    raise Failure(plain(str(exc).strip())) from exc
                time.sleep(pause)
                continue
            reruns = Reruns(config.failover_timeout, random.SystemRandom())
            deleted += count
            if count < BATCH:
                return deleted
    finally:
        if connection is not None:
            connection.close()
        discovery.close()


def _connect(params: dict[str, Any], attempt: Attempt) -> psycopg.Connection[Any]:
    return psycopg.connect(**attempt_params(params, attempt), autocommit=True)
