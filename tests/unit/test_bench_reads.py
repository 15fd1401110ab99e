"""What the read benchmark makes of what it counted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# The benchmarks are in a checkout alone.
figures = pytest.importorskip("benchmarks.read_figures")

PRIMARY, FIRST, SECOND = "127.0.0.1:5432", "127.0.0.2:5432", "127.0.0.3:5432"


def read(ended: float, took: float = 0.001, node: str = FIRST, *, follows: bool = False) -> Any:
    return figures.Done(False, ended - took, ended, node, follows)


def wrote(ended: float, took: float = 0.005) -> Any:
    return figures.Done(True, ended - took, ended, PRIMARY, False)


def load(transactions: tuple[int, int, int] = (1, 1, 1), cpu: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Any:
    nodes = (PRIMARY, FIRST, SECOND)
    spent = dict(zip(nodes, cpu, strict=True))
    return figures.Load(PRIMARY, dict(zip(nodes, transactions, strict=True)), spent, 2.0)


def figures_of(*done: Any, servers: Any = None) -> Any:
    return figures.figures_of(done, servers or load(), 10.0, 20.0)


@pytest.mark.parametrize(("percent", "found"), [(1, 1), (50, 50), (50.5, 51), (95, 95), (99.9, 100), (100, 100)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, found: int) -> None:
    assert figures.percentile(list(range(100, 0, -1)), percent) == found


def test_a_percentile_of_few_and_of_none() -> None:
    assert figures.percentile([3.0], 5) == 3.0
    assert figures.percentile([1.0, 2.0], 50) == 1.0
    assert math.isnan(figures.percentile([], 50))


def test_only_what_ended_in_the_time_that_was_measured_counts() -> None:
    found = figures_of(read(9.99), read(10.0, took=0.5), read(19.99), wrote(15.0), read(20.0))
    assert (found.rate, found.read_rate) == (0.3, 0.2)


def test_a_turn_without_reads_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="nothing was read"):
        figures_of(wrote(15.0), read(21.0))


def test_reads_and_writes_have_times_of_their_own() -> None:
    reads = [read(10 + number / 100, took=0.001 * number) for number in range(1, 101)]
    found = figures_of(*reads, wrote(15.0, took=0.25))
    assert (found.read_p50, found.read_p95) == pytest.approx((0.05, 0.095))
    assert (found.write_p50, found.write_p95) == pytest.approx((0.25, 0.25))


def test_the_primarys_shares_are_of_what_the_servers_did() -> None:
    servers = load((100, 300, 600), (1.0, 1.0, 2.0))
    found = figures_of(*(read(10 + number / 1000) for number in range(2000)), servers=servers)
    assert found.primary_transactions == pytest.approx(0.1)
    assert found.primary_cpu == pytest.approx(0.25)
    assert (found.primary_cost, found.servers_cost, found.clients_cost) == pytest.approx((0.5, 2.0, 1.0))


def test_reads_are_spread_over_who_had_any_the_primary_apart() -> None:
    three, one = [read(11.0, node=SECOND) for _ in range(3)], read(12.0, node=FIRST)
    found = figures_of(*three, one, read(13.0, node=PRIMARY), wrote(14.0))
    assert found.spread == (0.75, 0.25)
    assert found.reads_on_primary == pytest.approx(0.2)
    assert figures_of(read(11.0, node=PRIMARY)).spread == ()


def test_reads_after_a_users_own_write_are_told_apart() -> None:
    slow = read(12.0, took=0.1, node=PRIMARY, follows=True)
    found = figures_of(read(11.0), read(11.5, follows=True), slow, read(13.0))
    assert found.follows_on_primary == 0.5
    assert found.follows_p95 == pytest.approx(0.1)


def test_what_the_servers_did_beside_the_clients_transactions_are_questions() -> None:
    # Also of what was done before and after: the servers counted that too.
    done = [read(5.0), *(read(10 + number) for number in range(9))]
    assert figures_of(*done, servers=load((2, 6, 4))).questions == pytest.approx(200)
    assert figures_of(*done, servers=load((2, 3, 4))).questions == 0


def test_medians_are_of_each_figure_for_itself() -> None:
    turns = [
        figures_of(read(11.0, node=SECOND), *(read(12.0) for _ in range(count)), servers=load(cpu=cpu))
        for count, cpu in ((1, (2.0, 1.0, 1.0)), (4, (6.0, 1.0, 1.0)), (9, (0.0, 1.0, 1.0)))
    ]
    found = figures.median_of(turns)
    assert found.rate == pytest.approx(0.5)
    assert found.primary_cpu == pytest.approx(0.5)
    assert found.spread == pytest.approx((0.8, 0.2))


def test_a_replica_that_was_not_read_in_one_turn_is_counted_as_such() -> None:
    turns = [figures_of(read(11.0)), figures_of(read(11.0)), figures_of(read(11.0), read(12.0, node=SECOND))]
    assert figures.median_of(turns).spread == (1.0, 0.0)


def test_the_table_leaves_empty_what_there_was_nothing_of() -> None:
    found = figures_of(read(11.0, took=0.002))
    plain, causal = (figures.table([("the application", [found])], causal=causal) for causal in (False, True))
    head, line, row = plain.splitlines()
    assert head.count("|") == line.count("|") == row.count("|")
    assert row.startswith("| the application | 0 | 0 | 2.00 | 2.00 |  |  | 33 % | 33 % |")
    assert row.endswith("| 100 % |")
    assert causal.splitlines()[0].startswith(head)
    assert len({text.count("|") for text in causal.splitlines()}) == 1


def test_the_table_shows_how_far_turns_were_apart() -> None:
    turns = [
        figures_of(*(read(11.0) for _ in range(count)), servers=load(cpu=cpu))
        for count, cpu in ((10, (1.0, 1.0, 2.0)), (30, (2.0, 1.0, 1.0)), (20, (3.0, 1.0, 0.0)))
    ]
    row = figures.table([("the application", turns)], causal=False).splitlines()[-1]
    assert row.startswith("| the application | 2 (1 to 3) | 2 |")
    assert "| 50 % (25 % to 75 %) |" in row


def test_the_picture_is_drawn_also_of_a_part(tmp_path: Path) -> None:
    plots = pytest.importorskip("benchmarks.read_plots")
    turns = [figures_of(read(11.0), wrote(12.0)), figures_of(read(11.0))]
    path = tmp_path / "reads.png"
    plots.plot(["Django", "SQLAlchemy"], {"the primary": [turns, ()], "one replica": [turns, turns]}, path)
    assert path.read_bytes().startswith(b"\x89PNG")
