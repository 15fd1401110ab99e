"""``patroni-db wait``: come back when the cluster is as it should be."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from patroni_db.cli.conditions import Condition, Verdict
from patroni_db.cli.exits import EPILOG, DiscoveryFailure, Failure
from patroni_db.cli.leaving import in_order
from patroni_db.cli.observer import Observer
from patroni_db.cli.output import console_for, json_option, print_json
from patroni_db.cli.settings import config_options, setting
from patroni_db.cli.status import check_option
from patroni_db.cli.text import age
from patroni_db.escaping import plain
from patroni_db.selection import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cli.view import View
    from patroni_db.config import PatroniConfig
    from patroni_db.errors import DiscoveryError

    _ParamType = click.ParamType[Condition]
else:
    _ParamType = click.ParamType  # only newer versions of click can be subscripted at run time

__all__ = ["wait"]

# A condition can come true without a word in Patroni's list: a member's own API answers again.
_PAUSE: Final = 0.3


class _ConditionType(_ParamType):
    name = "condition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Condition:
        if isinstance(value, Condition):
            return value
        try:
            return Condition.parse(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


@click.command(epilog=EPILOG)
@click.option(
    "--for",
    "conditions",
    type=_ConditionType(),
    multiple=True,
    default=("primary",),
    metavar="CONDITION",
    help="primary, replica, 2-replicas, ...; repeatable, then all must hold.  [default: primary]",
)
@setting(
    "--timeout",
    "patroni_failover_timeout",
    metavar="SECONDS",
    help="How long to wait at most; 60 by default; 0 looks once.",
)
@setting("--max-lag", "patroni_max_lag", metavar="SIZE", help="Replicas with more, or unknown, lag do not count: 16MB.")
@config_options(patroni_target=Target.ANY)
@check_option
@json_option
def wait(*, config: PatroniConfig, conditions: tuple[Condition, ...], check: bool, as_json: bool) -> None:
    """Wait until there is a primary, or as many replicas as asked for.

    Exits with 1 when the time is up first. APIs that do not answer are asked again; when none can ever
    answer (a wrong certificate, a server that is not Patroni) the wait ends at once, with 3.
    """
    began = time.monotonic()
    with in_order(), _spinner() as tell:
        view, verdicts, failure = _until(config, conditions, began + config.failover_timeout, tell, check=check)
    met = bool(verdicts) and all(verdict.met for verdict in verdicts)
    if as_json:
        print_json(_document(conditions, verdicts, view, failure, time.monotonic() - began))
    elif met:
        for condition, verdict in zip(conditions, verdicts, strict=True):
            click.echo(f"{condition}: {_told(view, verdict)}")
    if failure is not None and not failure.transient and view is None:
        raise DiscoveryFailure(failure)
    if not met:
        raise Failure(f"not there after {age(time.monotonic() - began)}: {_problem(verdicts, failure)}")


def _until(
    config: PatroniConfig,
    conditions: tuple[Condition, ...],
    deadline: float,
    tell: Callable[[str], None],
    *,
    check: bool,
) -> tuple[View | None, tuple[Verdict, ...], DiscoveryError | None]:
    """Look until all conditions hold, the deadline has passed, or looking is in vain; return what was seen last."""
    with Observer(config, check=check) as observer:
        while True:
            view = observer.look(deadline - time.monotonic())
            failure = observer.failure
            verdicts = tuple(condition.judge(view, max_lag=config.max_lag) for condition in conditions) if view else ()
            # A view from before an outage of the API proves nothing about now.
            met = failure is None and bool(verdicts) and all(verdict.met for verdict in verdicts)
            hopeless = view is None and failure is not None and not failure.transient
            remaining = deadline - time.monotonic()
            if met or hopeless or remaining <= 0:
                return view, verdicts if met or failure is None else _doubted(verdicts), failure
            tell(_problem(verdicts, failure))
            time.sleep(min(_PAUSE, remaining))


def _doubted(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    return tuple(Verdict(met=False, members=(), text=f"last seen: {verdict.text}") for verdict in verdicts)


def _problem(verdicts: tuple[Verdict, ...], failure: DiscoveryError | None) -> str:
    texts = [verdict.text for verdict in verdicts if not verdict.met]
    failures = (failure.failures or (failure,)) if failure else ()
    return plain("; ".join([*texts, *map(str, failures)])) or "no answer yet"


def _told(view: View | None, verdict: Verdict) -> str:
    addresses = ((m, view.address_of(m) if view else None) for m in verdict.members)
    return plain(", ".join(f"{m.name} ({address})" if address else m.name for m, address in addresses))


def _document(
    conditions: tuple[Condition, ...],
    verdicts: tuple[Verdict, ...],
    view: View | None,
    failure: DiscoveryError | None,
    waited: float,
) -> dict[str, Any]:
    return {
        "met": bool(verdicts) and all(verdict.met for verdict in verdicts),
        "waited": round(waited, 3),
        "scope": view.topology.scope if view else None,
        "conditions": [
            {
                "condition": str(condition),
                "met": bool(verdicts) and verdicts[index].met,
                "members": [m.name for m in verdicts[index].members] if verdicts else [],
                "text": verdicts[index].text if verdicts else "not seen yet",
            }
            for index, condition in enumerate(conditions)
        ],
        "error": str(failure) if failure else None,
    }


@contextlib.contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    """Show on stderr, if that is a terminal, what is still missing."""
    console = console_for(sys.stderr)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("waiting") as status:
        yield lambda text: status.update(f"waiting: {text}")
