"""The demo's account of writes, outages and errors: it must be able to fail."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console

from patroni_db.demo.checker import Verdict, check
from patroni_db.demo.clients import ClientSpec, find_project
from patroni_db.demo.history import Fault, FaultKind, History, Outcome, Probe, Read, Row, Sighting, Write
from patroni_db.demo.journal import Journal, JournalReader, described
from patroni_db.demo.ledger import Books
from patroni_db.demo.outages import Gap, Outage, longest_gap, outage_of, worst_gap
from patroni_db.demo.pulse import bars
from patroni_db.demo.reigns import Reign, reigns
from patroni_db.demo.report import Moment, Report, make_report, moment_of
from patroni_db.demo.summary import summary
from patroni_db.errors import ConfigError

# n1 is primary until 10, n2 from 12.
PRIMARIES = (Reign("n1", 1, 0.0, 10.0, led=True), Reign("n2", 2, 12.0, 20.0, led=True))


def acknowledged(reference: str = "a", began: float = 1.0, node: str = "n1", timeline: int = 1) -> Write:
    return Write("client", 0, reference, began, began + 0.1, Outcome.ACKNOWLEDGED, node, timeline)


def raised(reference: str = "a", began: float = 9.9) -> Write:
    return Write("client", 0, reference, began, began + 0.2, Outcome.RAISED, error="OperationalError: gone")


def verdict(writes: list[Write], rows: list[Row], primaries: tuple[Reign, ...] = PRIMARIES) -> Verdict:
    return check(writes, rows, primaries)


class TestCheck:
    def test_passes_what_is_there_once_on_the_primary_of_its_time(self) -> None:
        found = verdict(
            [acknowledged("a"), acknowledged("b", 13.0, "n2", 2)],
            [Row("a", "n1", 1), Row("b", "n2", 2)],
        )
        assert found.clean
        assert (found.acknowledged, found.unknown) == (2, 0)

    def test_finds_a_lost_write(self) -> None:
        found = verdict([acknowledged("a"), acknowledged("b")], [Row("b", "n1", 1)])
        assert [finding.reference for finding in found.lost] == ["a"]
        assert found.lost[0].problem == "acknowledged by n1 on timeline 1, and not there"
        assert not found.clean

    def test_finds_a_doubled_write(self) -> None:
        found = verdict([acknowledged()], [Row("a", "n1", 1), Row("a", "n1", 1)])
        assert [finding.problem for finding in found.duplicated] == ["there 2 times"]
        assert not found.clean

    def test_finds_a_doubled_write_that_had_raised_an_error(self) -> None:
        found = verdict([raised()], [Row("a", "n1", 1), Row("a", "n2", 2)])
        assert [finding.reference for finding in found.duplicated] == ["a"]
        assert not found.clean

    def test_finds_a_write_on_a_node_that_was_never_primary(self) -> None:
        found = verdict([acknowledged(node="n3")], [Row("a", "n3", 1)])
        assert [finding.problem for finding in found.wrong_node] == [
            "stored by n3 on timeline 1, where it was never primary"
        ]
        assert not found.clean

    def test_finds_a_write_on_a_node_that_was_primary_on_another_timeline(self) -> None:
        assert verdict([acknowledged(timeline=2)], [Row("a", "n1", 2)]).wrong_node

    def test_finds_a_write_on_a_deposed_primary(self) -> None:
        found = verdict([acknowledged(began=12.5)], [Row("a", "n1", 1)])
        assert [finding.problem for finding in found.wrong_node] == [
            "stored by n1 on timeline 1, 0.50 s after n2 had taken over"
        ]

    def test_accepts_a_write_that_began_before_the_next_primary_took_over(self) -> None:
        assert verdict([acknowledged(began=11.9)], [Row("a", "n1", 1)]).clean

    def test_finds_a_primary_that_never_held_the_leader_key(self) -> None:
        rogue = (PRIMARIES[0], dataclasses.replace(PRIMARIES[1], led=False))
        found = verdict([acknowledged("a", 13.0, "n2", 2)], [Row("a", "n2", 2)], rogue)
        assert [finding.problem for finding in found.wrong_node] == [
            "stored by n2 on timeline 2, which never held the leader key"
        ]

    def test_finds_a_write_that_was_acknowledged_by_one_node_and_stored_by_another(self) -> None:
        found = verdict([acknowledged()], [Row("a", "n2", 2)])
        assert [finding.problem for finding in found.wrong_node] == [
            "acknowledged by n1 on timeline 1, but stored by n2 on timeline 2"
        ]

    def test_finds_rows_nobody_wrote(self) -> None:
        found = verdict([], [Row("x", "n1", 1)])
        assert [finding.reference for finding in found.unexplained] == ["x"]
        assert not found.clean

    @pytest.mark.parametrize(("rows", "stored"), [([], 0), ([Row("a", "n1", 1)], 1)])
    def test_an_unknown_outcome_may_be_stored_once_or_not_at_all(self, rows: list[Row], stored: int) -> None:
        found = verdict([raised()], rows)
        assert found.clean
        assert (found.acknowledged, found.unknown, found.unknown_stored) == (0, 1, stored)

    def test_an_unknown_outcome_may_not_be_stored_on_a_wrong_node(self) -> None:
        assert verdict([raised(began=13.0)], [Row("a", "n1", 1)]).wrong_node


class TestReigns:
    def test_are_who_took_writes_on_which_timeline(self) -> None:
        probes = [
            Probe("n2", 0.0, 0.1, None),
            Probe("n1", 0.0, 0.1, 1),
            Probe("n1", 1.0, 1.1, 1),
            Probe("n1", 2.0, 2.1, None),
            Probe("n2", 3.0, 3.1, 2),
        ]
        assert reigns(probes, [Sighting("n1", 0.0), Sighting(None, 2.0)]) == (
            Reign("n1", 1, 0.1, 1.1, led=True),
            Reign("n2", 2, 3.1, 3.1, led=False),
        )


class TestOutages:
    def test_the_longest_gap_that_touches_the_fault(self) -> None:
        successes = [0.0, 5.0, 5.1, 7.0, 7.1, 9.0]
        assert longest_gap(successes, since=5.05, until=9.0, ended=9.0) == Gap(5.1, 7.0)
        assert longest_gap(successes, since=4.0, until=9.0, ended=9.0) == Gap(0.0, 5.0)

    def test_a_gap_is_of_the_fault_that_made_it(self) -> None:
        # The second fault, at 4.0, came a moment after the last success before it, and took longer.
        successes = [0.9, 2.5, 3.0, 3.99, 7.0, 7.1]
        assert longest_gap(successes, since=1.0, until=4.0, ended=7.1) == Gap(0.9, 2.5)
        assert longest_gap(successes, since=4.0, until=7.1, ended=7.1) == Gap(3.99, 7.0)

    def test_what_lasts_through_the_next_fault_is_of_both(self) -> None:
        successes = [0.9, 7.0, 7.1]
        for since, until in ((1.0, 4.0), (4.0, 7.1)):
            assert longest_gap(successes, since, until, ended=7.1) == Gap(0.9, 7.0)

    def test_what_never_came_back_is_open(self) -> None:
        assert longest_gap([1.0, 1.1], since=1.0, until=5.0, ended=5.0) == Gap(1.1, 5.0, closed=False)

    def test_nothing_ever_worked(self) -> None:
        assert longest_gap([], since=1.0, until=5.0, ended=5.0) is None

    def test_a_client_is_as_slow_as_its_slowest_lane(self) -> None:
        lanes = [[0.0, 1.0, 2.0, 3.0], [0.0, 3.0]]
        assert worst_gap(lanes, since=0.5, until=3.0, ended=3.0) == Gap(0.0, 3.0)

    def test_the_primary_went_when_its_session_broke(self) -> None:
        fault = Fault(FaultKind.SWITCHOVER, 1.0, "n1", "n2")
        probes = [
            Probe("n1", 0.9, 1.0, 1),
            # The old primary goes on for a while after the switchover was asked for.
            Probe("n1", 1.4, 1.5, 1),
            # Then it holds a write back until it stops.
            Probe("n1", 1.52, 1.9, None),
            Probe("n1", 2.0, 2.1, None),
            Probe("n2", 1.6, 1.7, None),
            Probe("n2", 3.0, 3.1, 2),
        ]
        assert outage_of(fault, probes, until=4.0, ended=4.0) == Outage(Gap(1.5, 3.1), down=1.9)


class TestMoments:
    OUTAGE: ClassVar[Outage] = Outage(Gap(10.0, 12.0), down=10.02)

    @pytest.mark.parametrize(
        ("began", "ended", "moment"),
        [
            (9.9, 10.1, Moment.IN_FLIGHT),
            (10.01, 10.03, Moment.IN_FLIGHT),
            (9.9, 30.0, Moment.IN_FLIGHT),
            # Its session broke a little later than the oracle's.
            (10.5, 10.6, Moment.IN_FLIGHT),
            (10.6, 10.7, Moment.DURING_OUTAGE),
            (11.9, 72.0, Moment.DURING_OUTAGE),
            (9.0, 9.1, Moment.OTHERWISE),
            (12.1, 12.2, Moment.OTHERWISE),
        ],
    )
    def test_of_an_error(self, began: float, ended: float, moment: Moment) -> None:
        assert moment_of(began, ended, [self.OUTAGE]) is moment

    def test_a_thread_loses_one_session(self) -> None:
        assert moment_of(10.05, 10.06, [self.OUTAGE], failed_before=10.04) is Moment.DURING_OUTAGE
        assert moment_of(10.05, 10.06, [self.OUTAGE], failed_before=5.0) is Moment.IN_FLIGHT
        # Begun before the primary went, whatever failed before.
        assert moment_of(10.01, 10.06, [self.OUTAGE], failed_before=10.0) is Moment.IN_FLIGHT

    def test_what_began_when_the_cluster_worked_again_was_not_in_flight(self) -> None:
        short = Outage(Gap(10.0, 10.2), down=10.02)
        assert moment_of(10.3, 10.4, [short]) is Moment.OTHERWISE


class TestJournal:
    NODES: ClassVar[dict[str, str]] = {"127.0.0.1": "n1"}

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        reader = JournalReader(path, "client", self.NODES)
        reader.poll()
        assert not reader.writes()
        with Journal(path) as journal:
            for reference in ("a", "b", "c"):
                journal.write_began(1, reference)
            journal.write_acknowledged("a", "127.0.0.1", 3)
            journal.write_raised("b", ValueError("no\nthis is a hint"))
            journal.read_answered(0, 1.5, "127.0.0.1")
            journal.read_raised(0, 2.5, TimeoutError())
        reader.poll()
        writes = {write.reference: write for write in reader.writes()}
        assert (writes["a"].outcome, writes["a"].node, writes["a"].timeline) == (Outcome.ACKNOWLEDGED, "n1", 3)
        assert (writes["b"].outcome, writes["b"].error) == (Outcome.RAISED, "ValueError: no")
        assert (writes["c"].outcome, writes["c"].ended, writes["c"].lane) == (Outcome.UNFINISHED, None, 1)
        assert [(read.began, read.node, read.error) for read in reader.reads()] == [
            (1.5, "n1", None),
            (2.5, None, "TimeoutError"),
        ]
        assert (reader.operations, reader.errors) == (2, 2)

    def test_a_line_may_come_in_pieces(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        with Journal(path) as journal:
            journal.read_answered(0, 1.5, "127.0.0.9")
        line = path.read_bytes()
        reader = JournalReader(path, "client", self.NODES)
        reader.feed(line[:10])
        assert not reader.reads()
        reader.feed(line[10:] + line)
        assert [read.node for read in reader.reads()] == ["127.0.0.9", "127.0.0.9"]

    def test_an_error_is_one_line(self) -> None:
        assert described(KeyError("x")) == "KeyError: 'x'"
        assert "\n" not in described(json.JSONDecodeError("bad\nbad", "doc", 0))


WRITER = ClientSpec("w", "Writer", writes=True, lanes=1)
READER = ClientSpec("r", "Reader", writes=False, lanes=1)
BOOKS = Books(orders=2, half_written=0, sold=3, stock_before=10, stock_after=7)


def history() -> History:
    return History(
        began=0.0,
        ended=20.0,
        faults=(Fault(FaultKind.FAILOVER, 10.0, "n1", "n2"),),
        probes=(
            *(Probe("n1", t, t + 0.01, 1) for t in range(10)),
            Probe("n1", 10.0, 10.1, None),
            *(Probe("n2", t, t + 0.01, 2) for t in range(12, 20)),
        ),
        sightings=(Sighting("n1", 0.0), Sighting("n2", 11.0)),
        writes=(
            Write("w", 0, "a", 9.0, 9.1, Outcome.ACKNOWLEDGED, "n1", 1),
            Write("w", 0, "b", 10.05, 10.1, Outcome.RAISED, error="gone"),
            Write("w", 0, "c", 10.2, 12.5, Outcome.ACKNOWLEDGED, "n2", 2),
            Write("w", 0, "d", 19.0, 19.9, Outcome.ACKNOWLEDGED, "n2", 2),
        ),
        reads=(Read("r", 0, 9.0, 9.5, "n2"), Read("r", 0, 11.0, 11.5, error="late"), Read("r", 0, 12.0, 13.0, "n3")),
    )


ROWS = (Row("a", "n1", 1), Row("c", "n2", 2), Row("d", "n2", 2))


def report(rows: tuple[Row, ...] = ROWS, books: Books = BOOKS) -> Report:
    kind = {"nodes": 3, "synchronous": True, "patroni": "4", "django": "5", "sqlalchemy": "2"}
    return make_report(history(), rows, books, (WRITER, READER), kind, cells=20)


def text_of(what: Report, width: int = 80) -> str:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115 - ends with the test
    with console.file:
        console.print(summary(what))
        return console.export_text()


class TestReport:
    def test_has_the_figures_of_each_client(self) -> None:
        writer, reader = report().clients
        assert (writer.succeeded, writer.nodes) == (3, {"n1": 1, "n2": 2})
        assert writer.outages == (Gap(12.5, 19.9),)
        assert writer.errors == {Moment.IN_FLIGHT: 1, Moment.DURING_OUTAGE: 0, Moment.OTHERWISE: 0}
        assert reader.errors == {Moment.IN_FLIGHT: 0, Moment.DURING_OUTAGE: 1, Moment.OTHERWISE: 0}
        assert reader.outages == (Gap(13.0, 20.0, closed=False),)

    def test_passes_when_all_is_well(self) -> None:
        assert report().passed
        document = report().to_json()
        assert document["passed"] is True
        assert document["faults"][0]["cluster_outage"] == pytest.approx(3.0)
        assert document["writes"]["acknowledged"] == 3
        assert document["reads"] == {"answered": 2, "nodes": {"n2": 1, "n3": 1}}
        failure = {"lane": 0, "began": 11.0, "ended": 11.5, "moment": "during_outage", "error": "late"}
        assert document["clients"][1]["failures"] == [failure]
        json.dumps(document, allow_nan=False)

    def test_fails_when_a_write_is_lost(self) -> None:
        failed = report(ROWS[1:])
        assert not failed.passed
        assert [finding["reference"] for finding in failed.to_json()["writes"]["lost"]] == ["a"]

    @pytest.mark.parametrize(
        "books", [dataclasses.replace(BOOKS, stock_after=6), dataclasses.replace(BOOKS, half_written=1)]
    )
    def test_fails_when_the_books_do_not_balance(self, books: Books) -> None:
        assert not report(books=books).passed


def two_faults() -> Report:
    """As after a real run, with figures of a usual length."""
    last = history()
    switchover = Fault(FaultKind.SWITCHOVER, 2.0, "n3", "n1")
    spec = ClientSpec("w", "SQLAlchemy async writes", writes=True)
    probes = tuple(probe for probe in last.probes if not 2 < probe.began < 6)
    many = tuple(Write("w", 0, str(number), 19.0, 19.1, Outcome.ACKNOWLEDGED, "n2", 2) for number in range(23_456))
    after = dataclasses.replace(last, faults=(switchover, *last.faults), probes=probes, writes=last.writes + many)
    rows = ROWS + tuple(Row(write.reference, "n2", 2) for write in many)
    books = Books(orders=4321, half_written=0, sold=12_345, stock_before=8_000_000, stock_after=7_987_655)
    kind = {"nodes": 3, "synchronous": True, "patroni": "4.1.5", "django": "5.2.19", "sqlalchemy": "2.0.58"}
    return make_report(after, rows, books, (spec, READER), kind)


class TestSummary:
    def test_fits_into_eighty_columns(self) -> None:
        narrow, wide = text_of(two_faults(), 80), text_of(two_faults(), 200)
        assert [line.rstrip() for line in narrow.splitlines()] == [line.rstrip() for line in wide.splitlines()]

    @pytest.mark.parametrize("width", [80, 140])
    def test_says_that_all_is_well(self, width: int) -> None:
        text = text_of(report(), width)
        assert "3 acknowledged: 0 lost, 0 duplicated, 0 on a wrong node" in text
        assert "✓ Every acknowledged write is there, once, made on the primary of its time." in text
        assert "…" not in text, "something did not fit"

    def test_names_what_is_lost(self) -> None:
        text = text_of(report(ROWS[1:]))
        assert "1 lost" in text
        assert "a (w): acknowledged by n1 on timeline 1, and not there" in text
        assert "✗ Not every write is as it must be." in text
        assert "✓" not in text

    def test_does_not_boast_when_something_failed_that_should_have_waited(self) -> None:
        text = text_of(report())
        assert "it waited" not in text
        assert "1 x late" in text

    def test_bars_show_where_nothing_succeeded(self) -> None:
        assert bars([0, 1, 8, 0], "cyan").plain == "·▁█·"


class TestProject:
    def test_is_where_its_files_are(self, tmp_path: Path) -> None:
        folder = tmp_path / "example_project" / "traffic"
        folder.mkdir(parents=True)
        (folder / "__main__.py").touch()
        assert find_project([tmp_path / "elsewhere", tmp_path]) == tmp_path.resolve()

    def test_is_only_in_a_checkout(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="run it at a checkout's root"):
            find_project([tmp_path])
