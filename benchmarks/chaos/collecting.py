"""What is left when the clients have ended: what they wrote down, and what the surviving primary has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.chaos.clients import CLIENTS
from benchmarks.ledger import balance, pieces
from patroni_db.demo.history import Outcome, Read, Row, Write

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from benchmarks.running import RunningClient

__all__ = ["imbalance_of", "operations_of", "rows_of"]

_ORDERS = "SELECT customer, host(server), timeline FROM orders_order"
_ROWS = "SELECT client, worker, number, server, timeline FROM chaos_writes"


def rows_of(connection: psycopg.Connection, names: Mapping[str, str]) -> tuple[Row, ...]:
    """Return every write that is stored.

    :param names: of the nodes, by host
    """
    rows = [
        (_reference(client, worker, number), server, timeline)
        for client, worker, number, server, timeline in connection.execute(_ROWS)
    ]
    rows += connection.execute(_ORDERS).fetchall()
    return tuple(Row(reference, names.get(server, server), timeline) for reference, server, timeline in rows)


def imbalance_of(connection: psycopg.Connection) -> dict[str, int]:
    """Return what is too much or too little, of each book."""
    return {"accounts": balance(connection), "shop": pieces(connection)}


def _reference(client: str, worker: int, number: int) -> str:
    return f"{client}/{worker}/{number}"


def operations_of(client: RunningClient, names: Mapping[str, str]) -> list[Write | Read]:
    """Return what a client did; it has ended.

    :param names: of the nodes, by host
    """
    application = next(application for application in CLIENTS if application.name == client.kind.name)
    found: list[Write | Read] = []
    for worker, entries in enumerate(client.history()["writes"]):
        for number, (began, ended, answer, error) in enumerate(entries, start=1):
            host, timeline = answer.split() if answer else ("", "0")
            node = names.get(host, host) or None
            name = application.name
            if application.writes:
                outcome = Outcome.ACKNOWLEDGED if node else Outcome.RAISED if error else Outcome.UNFINISHED
                reference = _reference(name, worker, number)
                of_it = int(timeline) if node else None
                found.append(Write(name, worker, reference, began, ended, outcome, node, of_it, error))
            elif ended is not None:
                found.append(Read(name, worker, began, ended, node, error))
    return found
