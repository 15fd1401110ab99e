"""The oracle's process: writes to every node directly, whatever anybody says of it, and tells each answer.

It knows nothing but addresses and psycopg. Its sessions on replicas outlive their promotion, so that it finds out
about the first possible write without having to connect.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import psycopg

__all__ = ["PACE", "main"]

# Seconds between two probes of a node: what the cluster's own outage is known to within.
PACE = 0.01
_CONNECT_TIMEOUT = 2

# Asked first only to keep the replicas' logs free of thousands of errors.
_STANDS_BY = "SELECT pg_is_in_recovery()"
# The first eight digits of a WAL file's name are the timeline that is written on.
_WRITE = """
    UPDATE bench_oracle SET beat = beat + 1
    RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer
"""


def _timeline_written(connection: psycopg.Connection[Any]) -> int | None:
    row: tuple[int] | None = connection.execute(_WRITE).fetchone()
    return None if row is None else row[0]


def _probe(node: str, conninfo: str) -> None:
    connection: psycopg.Connection[Any] | None = None
    while True:
        began = time.monotonic()
        timeline: int | None = None
        answered = False
        try:
            if connection is None:
                connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=_CONNECT_TIMEOUT)
            stands_by = connection.execute(_STANDS_BY).fetchone()
            answered = True
            if stands_by == (False,):
                timeline = _timeline_written(connection)
        except psycopg.Error:
            # It says no in this way too; the next probe begins afresh.
            if connection is not None:
                connection.close()
                connection = None
        line = json.dumps([node, began, time.monotonic(), timeline, answered])
        os.write(1, line.encode() + b"\n")  # at one blow: lines of several threads must not mix
        time.sleep(PACE)


def main() -> None:
    """Probe the nodes whose connection strings are the first line of the standard input, until that ends."""
    conninfos: dict[str, str] = json.loads(sys.stdin.readline())
    for node, conninfo in conninfos.items():
        threading.Thread(target=_probe, args=(node, conninfo), daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # a thread may hang at a frozen server for ever


if __name__ == "__main__":
    main()
