"""What the failover benchmark makes of what it recorded."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

# The benchmarks are in a checkout alone.
accounting = pytest.importorskip("benchmarks.accounting")
records = pytest.importorskip("benchmarks.records")
report = pytest.importorskip("benchmarks.report")

FAULT = 10.0


def probes(node: str, *answers: tuple[float, int | None]) -> tuple[Any, ...]:
    """Answers of one node: (ended, timeline), each begun a moment before."""
    return tuple(records.Probe(node, ended - 0.004, ended, timeline) for ended, timeline in answers)


# n1 takes writes until the fault; n2 from 12.0 s on.
FAILOVER = (
    *probes("n1", (9.98, 1), (9.99, 1), (10.01, None), (10.02, None), (10.5, None), (12.5, None)),
    *probes("n2", (9.99, None), (11.98, None), (12.0, 2), (12.01, 2)),
)


def wrote(worker: int, number: int, began: float, ended: float, node: str = "n2") -> Any:
    return records.Write(worker, number, began, ended, node, None)


def failed(worker: int, number: int, began: float, ended: float) -> Any:
    return records.Write(worker, number, began, ended, None, "OperationalError: gone")


def client(*writes: Any, workers: int = 1, attempts: tuple[float, ...] = (), name: str = "app") -> Any:
    return records.ClientRecord(name, workers, 0.1, tuple(writes), tuple(attempts))


def account(
    of: Any, seen: tuple[Any, ...] = FAILOVER, rows: dict[Any, int] | None = None, undone: float | None = None
) -> Any:
    if rows is None:
        rows = {(of.name, w.worker, w.number): 1 for w in of.writes if w.node}
    return accounting.account_of(of, records.Observation("fault", FAULT, undone, 30.0, "n1", seen, (of,), rows))


def test_a_failover_ends_with_the_first_write_on_a_later_timeline() -> None:
    recovery = accounting.recovery_of(FAILOVER, "n1", FAULT)
    assert (recovery.node, recovery.at, recovery.floor) == ("n2", 12.0, 11.98)
    assert recovery.outage == pytest.approx(2.01)


def test_a_restart_in_place_ends_with_the_first_write_after_a_failed_one() -> None:
    seen = probes("n1", (9.99, 3), (10.003, 3), (10.2, None), (10.9, None), (11.0, 3), (11.1, 3))
    recovery = accounting.recovery_of(seen, "n1", FAULT)
    assert (recovery.node, recovery.at, recovery.floor) == ("n1", 11.0, 10.9)


def test_a_former_primary_that_goes_on_is_no_outage_but_a_recovery() -> None:
    seen = (
        *probes("n1", (9.99, 1), (11.99, 1), (12.5, 1)),
        *probes("n2", (9.99, None), (11.98, None), (12.0, 2)),
    )
    recovery = accounting.recovery_of(seen, "n1", FAULT)
    assert (recovery.node, recovery.at) == ("n2", 12.0)
    assert recovery.outage == pytest.approx(0.01)


def test_no_recovery_while_nobody_takes_writes_and_none_where_all_went_on() -> None:
    assert accounting.recovery_of(FAILOVER[:-2], "n1", FAULT) is None
    assert accounting.recovery_of(probes("n1", (9.9, 1), (10.1, 1), (10.2, 1)), "n1", FAULT) is None


def test_behind_is_the_worst_worker_on_the_new_primary() -> None:
    quick, slow = wrote(0, 1, 9.9, 12.02), wrote(1, 1, 9.9, 12.07)
    assert account(client(slow, quick, workers=2)).behind == pytest.approx(0.07)


def test_a_write_on_the_former_primary_is_no_recovery() -> None:
    stray = wrote(0, 1, 12.0, 12.01, node="n1")
    assert account(client(stray, wrote(0, 2, 12.1, 12.3))).behind == pytest.approx(0.3)


def test_a_write_just_before_a_restart_in_place_is_no_recovery() -> None:
    seen = probes("n1", (9.99, 3), (10.2, None), (10.9, None), (11.0, 3))
    last, first = wrote(0, 1, 9.99, 10.005, node="n1"), wrote(0, 2, 10.1, 11.05, node="n1")
    assert account(client(last, first), seen).behind == pytest.approx(0.05)


def test_a_worker_that_never_writes_again_is_told() -> None:
    hanging = records.Write(1, 1, 9.9, None, None, None)
    assert math.isinf(account(client(wrote(0, 1, 9.9, 12.0), hanging, workers=2)).behind)


def test_a_worker_that_writes_only_once_the_fault_is_undone_is_told() -> None:
    assert math.isinf(account(client(wrote(0, 1, 9.9, 20.5)), undone=20.0).behind)


def test_errors_are_told_apart_by_when_their_transactions_began() -> None:
    # The former primary refused the oracle a new session at 10.02.
    errors = [failed(0, i, began, 13.0) for i, began in enumerate((9.9, 10.01, 10.03, 11.9, 12.1))]
    found = account(client(*errors, wrote(0, 9, 12.2, 12.3))).errors
    assert (found.in_flight, found.in_outage, found.afterwards) == (2, 2, 1)


def test_a_frozen_server_breaks_what_began_after_the_fault() -> None:
    # It refuses nothing before it is thawed, at 20.0.
    seen = (*probes("n1", (9.99, 1)), records.Probe("n1", 10.0, 20.1, None), *FAILOVER[-3:])
    found = account(client(failed(0, 1, 9.99, 12.0), failed(0, 2, 10.05, 12.0)), seen).errors
    assert (found.in_flight, found.in_outage, found.afterwards) == (1, 1, 0)


def test_without_an_outage_a_pause_longer_than_the_oracles_is_told() -> None:
    seen = probes("n1", *((9.9 + 0.1 * i, 1) for i in range(202)))
    even = client(*(wrote(0, i, 10 + 0.2 * i, 10.1 + 0.2 * i, node="n1") for i in range(100)))
    assert account(even, seen).behind == pytest.approx(0.0, abs=1e-6)
    gap = dataclasses.replace(even, writes=even.writes[:20] + even.writes[30:])
    assert account(gap, seen).behind == pytest.approx(2.0, abs=1e-6)


def test_acknowledged_writes_that_are_gone_or_there_twice_are_counted() -> None:
    writes = [wrote(0, number, 12.1, 12.2) for number in range(1, 5)]
    rows = {("app", 0, 1): 1, ("app", 0, 2): 2, ("app", 0, 3): 1, ("another", 0, 4): 1, ("app", 0, 9): 1}
    found = account(client(*writes, failed(0, 9, 10.0, 10.1)), rows=rows)
    assert (found.acknowledged, found.lost, found.doubled) == (4, 1, 1)


def test_attempts_are_counted_from_the_fault_until_it_is_undone() -> None:
    assert account(client(attempts=(9.0, 10.0, 12.0, 19.9, 20.1)), undone=20.0).attempts == 3


def test_the_table_shows_medians_and_the_worst() -> None:
    quick, slow = client(wrote(0, 1, 9.9, 12.04)), client(wrote(0, 1, 9.9, 12.08))
    results = [
        report.result_of(records.Observation("fault", FAULT, None, 30.0, "n1", FAILOVER, (of,), {}))
        for of in (quick, slow, quick)
    ]
    line = report.table(results, {"app": "the application"}).splitlines()[-1]
    assert line.startswith("| the application | 0.04 (0.08) | 0 |")


def test_who_never_came_back_is_null_in_json() -> None:
    seen = records.Observation("fault", FAULT, None, 30.0, "n1", FAILOVER, (client(),), {})
    assert report.as_json(report.result_of(seen))["accounts"][0]["behind"] is None
    assert "**never**" in report.table([report.result_of(seen)], {"app": "the application"})
