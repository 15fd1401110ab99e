"""The chaos test's schedule, and its account of a history: it must be able to find each kind of violation."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from patroni_db.demo.history import Outcome, Read, Row, Sighting, Write

if TYPE_CHECKING:
    from pathlib import Path

# The benchmarks are in a checkout alone.
records = pytest.importorskip("benchmarks.records")
files = pytest.importorskip("benchmarks.chaos.files")
incidents = pytest.importorskip("benchmarks.chaos.incidents")
schedules = pytest.importorskip("benchmarks.chaos.schedule")
verdict = pytest.importorskip("benchmarks.chaos.verdict")

PACE = 0.05
WRITER = verdict.Client("writer", writes=True, lanes=1, pace=PACE, sessions=4)
READER = verdict.Client("reader", writes=False, lanes=1, pace=PACE, sessions=4)


def every(step: float, since: float, until: float) -> list[float]:
    return [since + step * index for index in range(round((until - since) / step))]


def probes(node: str, since: float, until: float, timeline: int | None, *, answered: bool = True) -> list[Any]:
    return [records.Probe(node, at - 0.004, at, timeline, answered) for at in every(0.01, since, until)]


# n1 takes writes until 10, n2 from 12 on; n3 stands by all the time.
PROBES = (
    *probes("n1", 0.0, 10.0, 1),
    *probes("n1", 10.0, 12.5, None, answered=False),
    *probes("n1", 12.5, 20.0, None),
    *probes("n2", 0.0, 12.0, None),
    *probes("n2", 12.0, 20.0, 2),
    *probes("n3", 0.0, 20.0, None),
)


def write(at: float, node: str = "n1", timeline: int = 1, ended: float | None = None) -> Write:
    end = at + 0.01 if ended is None else ended
    return Write("writer", 0, f"writer/0/{at:.2f}", at, end, Outcome.ACKNOWLEDGED, node, timeline)


def failed_write(at: float, ended: float) -> Write:
    return Write("writer", 0, f"writer/0/{at:.2f}", at, ended, Outcome.RAISED, error="OperationalError: gone")


def read(at: float, node: str = "n3", ended: float | None = None) -> Read:
    return Read("reader", 0, at, at + 0.01 if ended is None else ended, node)


WRITES = (
    *(write(at) for at in every(0.1, 0.0, 9.9)),
    failed_write(9.95, 10.01),
    write(10.02, "n2", 2, ended=12.04),
    *(write(at, "n2", 2) for at in every(0.1, 12.1, 20.0)),
)
READS = tuple(read(at) for at in every(0.1, 0.0, 20.0))


def history(operations: tuple[Write | Read, ...] = WRITES, **changes: Any) -> Any:
    rows = tuple(
        Row(o.reference, o.node, o.timeline or 0) for o in operations if isinstance(o, Write) and o.node is not None
    )
    whole = verdict.History(
        began=0.0,
        ended=20.0,
        incidents=(incidents.Incident("node-killed", "n1", 10.0, 15.0),),
        calm=((0.0, 9.0), (16.0, 20.0)),
        probes=PROBES,
        sightings=(Sighting("n1", 0.0), Sighting(None, 10.5), Sighting("n2", 11.9)),
        operations=operations,
        rows=rows,
    )
    return dataclasses.replace(whole, **changes)


def judged(of: Any, *clients: Any, **rules: Any) -> Any:
    return verdict.judge(of, clients or (WRITER,), verdict.Rules(**rules))


def rules_broken(of: Any, *clients: Any, **rules: Any) -> list[str]:
    return [finding.rule for finding in judged(of, *clients, **rules).violations]


class TestSchedule:
    def test_the_same_seed_draws_the_same_faults(self) -> None:
        first, again = (list(itertools.islice(schedules.schedule(123), 200)) for _ in range(2))
        assert first == again

    def test_another_seed_draws_others(self) -> None:
        assert list(itertools.islice(schedules.schedule(1), 5)) != list(itertools.islice(schedules.schedule(2), 5))

    def test_a_seed_means_the_same_in_every_version(self) -> None:
        """A seed of a report is of use to whoever looks into it later."""
        first = next(schedules.schedule(123))
        assert first == schedules.Round(1.16, (schedules.Planned("switchover", None, 0.0, 3.22),))

    def test_every_kind_comes_and_some_come_together(self) -> None:
        rounds = list(itertools.islice(schedules.schedule(7), 300))
        assert {fault.kind for round_ in rounds for fault in round_.faults} == {kind.name for kind in schedules.KINDS}
        together = [round_.faults for round_ in rounds if len(round_.faults) == 2]
        assert 30 < len(together) < 150
        assert all(first.kind != second.kind for first, second in together)

    def test_faults_keep_to_what_their_kind_allows(self) -> None:
        kinds = {kind.name: kind for kind in schedules.KINDS}
        for round_ in itertools.islice(schedules.schedule(7), 300):
            for fault in round_.faults:
                kind = kinds[fault.kind]
                assert kind.hold[0] <= fault.hold <= kind.hold[1]
                assert fault.replica in ({None, 0, 1} if kind.on_replicas else {None})
                assert fault.replica is not None or fault.kind != "api-dead"

    def test_only_the_wanted_kinds_are_drawn(self) -> None:
        [kind] = [kind for kind in schedules.KINDS if kind.name == "switchover"]
        for round_ in itertools.islice(schedules.schedule(7, [kind]), 50):
            assert [fault.kind for fault in round_.faults] == ["switchover"]


class TestOutages:
    def test_a_failover_is_an_outage_until_the_next_primary_takes_writes(self) -> None:
        [outage] = verdict.write_outages(PROBES, 0.0, 20.0)
        assert (outage.gap.start, outage.gap.end) == pytest.approx((9.99, 12.0))
        assert outage.down == pytest.approx(10.01)  # the second refusal: the first one may be of the session before

    def test_a_deposed_primary_that_goes_on_does_not_count(self) -> None:
        seen = (*probes("n1", 0.0, 15.0, 1), *probes("n2", 12.0, 14.0, 2), *probes("n2", 17.0, 20.0, 2))
        outages = verdict.write_outages(seen, 0.0, 20.0)
        assert [(o.gap.start, o.gap.end) for o in outages] == [
            pytest.approx((11.99, 12.0), abs=0.02),
            pytest.approx((13.99, 17.0)),
        ]

    def test_a_cluster_that_never_takes_writes_is_one_outage(self) -> None:
        [outage] = verdict.write_outages(probes("n1", 0.0, 20.0, None), 0.0, 20.0)
        assert not outage.gap.closed

    def test_an_outage_at_either_end_is_one_too(self) -> None:
        outages = verdict.write_outages(probes("n1", 3.0, 15.0, 1), 0.0, 20.0)
        assert [(o.gap.start, o.gap.end) for o in outages] == [pytest.approx((0.0, 3.0)), pytest.approx((14.99, 20.0))]

    def test_a_node_that_ends_its_sessions_is_told_however_short_it_was_away(self) -> None:
        seen = (*probes("n3", 0.0, 5.0, None), *probes("n3", 5.0, 5.05, None, answered=False))
        [outage] = verdict.read_outages((*seen, *probes("n3", 5.05, 9.0, None)))
        assert (outage.gap.start, outage.gap.end) == pytest.approx((4.99, 5.05))


class TestWrites:
    def test_a_clean_history_passes(self) -> None:
        found = judged(history())
        assert found.violations == ()
        assert found.writes.acknowledged == len(WRITES) - 1
        [account] = found.accounts
        assert account.behind < 0.2

    def test_a_lost_write_is_found(self) -> None:
        whole = history()
        lost = dataclasses.replace(whole, rows=whole.rows[:50] + whole.rows[51:])
        assert rules_broken(lost) == ["lost"]

    def test_a_lost_write_is_no_violation_with_asynchronous_replication(self) -> None:
        whole = history()
        found = judged(dataclasses.replace(whole, rows=whole.rows[1:]), synchronous=False)
        assert found.violations == ()
        assert len(found.writes.lost) == 1

    def test_a_doubled_write_is_found(self) -> None:
        whole = history()
        assert rules_broken(dataclasses.replace(whole, rows=(*whole.rows, whole.rows[3]))) == ["doubled"]

    def test_a_row_that_nobody_wrote_is_found(self) -> None:
        whole = history()
        assert rules_broken(dataclasses.replace(whole, rows=(*whole.rows, Row("x", "n1", 1)))) == ["unexplained"]

    def test_a_write_on_a_deposed_primary_is_found(self) -> None:
        late = write(12.33, "n1", 1)
        assert rules_broken(history((*WRITES, late))) == ["wrong node"]

    def test_a_write_on_a_deposed_primary_may_take_some_time_where_that_is_allowed(self) -> None:
        late = write(12.33, "n1", 1)
        assert rules_broken(history((*WRITES, late)), deposed=1.0) == []
        assert rules_broken(history((*WRITES, late)), deposed=0.2) == ["wrong node"]

    def test_a_write_on_a_node_that_never_led_is_found(self) -> None:
        assert rules_broken(history((*WRITES, write(5.05, "n3", 1)))) == ["wrong node"]


class TestBehind:
    def test_a_client_that_is_late_after_a_failover_is_found(self) -> None:
        late = tuple(w for w in WRITES if not 10.0 < w.began < 14.0)
        [finding] = judged(history(late)).violations
        assert (finding.rule, finding.client) == ("behind", "writer")
        assert finding.at == pytest.approx(9.81)
        assert judged(history(late)).accounts[0].behind == pytest.approx(2.0, abs=0.05)

    def test_how_late_one_may_be_can_be_told(self) -> None:
        late = tuple(w for w in WRITES if not 10.0 < w.began < 14.0)
        assert rules_broken(history(late), behind=3.0) == []

    def test_a_client_that_never_comes_back_is_found(self) -> None:
        hanging = Write("writer", 0, "writer/0/x", 10.02, None, Outcome.UNFINISHED)
        [finding] = judged(history((*WRITES[:100], hanging))).violations
        assert finding.rule == "behind"
        assert "never had success again" in finding.text

    def test_a_client_that_pauses_while_nothing_is_broken_is_found(self) -> None:
        assert rules_broken(history(tuple(w for w in WRITES if not 3.0 < w.began < 6.0))) == ["behind"]

    def test_one_lane_that_goes_on_does_not_hide_another(self) -> None:
        other = tuple(dataclasses.replace(w, lane=1, reference=f"other {w.reference}") for w in WRITES[:50])
        two = dataclasses.replace(WRITER, lanes=2)
        assert rules_broken(history((*WRITES, *other)), two) == ["behind"]

    def test_two_outages_in_a_row_are_not_the_clients(self) -> None:
        """It had half a second between them: less than it may take."""
        seen = (*probes("n1", 0.0, 5.0, 1), *probes("n1", 8.0, 8.5, 1), *probes("n1", 12.0, 20.0, 1))
        writes = tuple(write(at) for at in (*every(0.1, 0.0, 5.0), *every(0.1, 12.1, 20.0)))
        assert rules_broken(history(writes, probes=seen)) == []

    def test_who_waits_while_nobody_holds_the_leader_key_is_not_behind(self) -> None:
        """The former primary, whose Patroni is frozen, goes on; but nobody is to open a session there."""
        seen = (*probes("n1", 0.0, 12.0, 1), *probes("n2", 12.0, 20.0, 2))
        holders = (Sighting("n1", 0.0), Sighting(None, 9.0), Sighting("n2", 11.9))
        writes = tuple(write(at) for at in every(0.1, 0.0, 9.0)) + WRITES[-75:]
        assert rules_broken(history(writes, probes=seen, sightings=holders)) == []
        held = (Sighting("n1", 0.0), Sighting("n2", 11.9))
        assert rules_broken(history(writes, probes=seen, sightings=held)) == ["behind"]

    def test_readers_are_behind_when_any_node_answers(self) -> None:
        assert rules_broken(history(READS), READER) == []
        late = tuple(r for r in READS if not 10.0 < r.began < 13.0)
        assert rules_broken(history(late), READER, behind_reads=1.0) == ["behind"]
        assert rules_broken(history(late), READER, behind_reads=5.0) == []

    def test_readers_wait_when_no_node_answers(self) -> None:
        seen = tuple(p for p in PROBES if not 10.0 < p.ended < 13.0)
        assert rules_broken(history(tuple(r for r in READS if not 10.0 < r.began < 13.0), probes=seen), READER) == []


class TestErrors:
    def test_an_error_is_told_by_when_it_began(self) -> None:
        errors = (failed_write(9.97, 10.02), failed_write(11.0, 11.5), failed_write(13.0, 13.1))
        found = judged(history((*WRITES, *errors)))
        assert found.violations == ()
        assert list(found.accounts[0].errors.values()) == [2, 1, 1]
        assert [f.operation.began for f in found.failures] == [9.95, 9.97, 11.0, 13.0]

    def test_an_error_without_any_fault_is_a_violation(self) -> None:
        assert rules_broken(history((*WRITES, failed_write(17.0, 17.1)))) == ["error"]


class TestLeaks:
    BEFORE = incidents.Census("writer", threads=5, descriptors=3, sessions=2, backends=2)

    def found(self, **after: int) -> list[str]:
        later = dataclasses.replace(self.BEFORE, **after)
        violations = judged(history(before=(self.BEFORE,), after=(later,))).violations
        assert all(finding.rule == "leak" for finding in violations)
        return [finding.text for finding in violations]

    def test_what_is_held_as_before_is_no_leak(self) -> None:
        assert self.found() == []

    def test_a_pool_may_grow_to_its_bound(self) -> None:
        assert self.found(sessions=4, backends=4) == []

    def test_an_event_loop_keeps_the_threads_of_its_executor(self) -> None:
        client = dataclasses.replace(WRITER, spare_threads=2)
        for threads, rules in ((7, []), (8, ["leak"])):
            later = dataclasses.replace(self.BEFORE, threads=threads)
            assert rules_broken(history(before=(self.BEFORE,), after=(later,)), client) == rules

    def test_what_was_not_given_back_is_found(self) -> None:
        assert self.found(threads=6) == ["6 threads, 5 at the beginning"]
        assert self.found(descriptors=4) == ["4 descriptors beside its sessions, 3 at the beginning"]
        assert self.found(sessions=5) == ["5 sessions, at most 4 are due"]
        assert self.found(backends=5) == ["5 sessions by the servers' word, at most 4 are due"]


class TestExactlyOnce:
    ONCE = dataclasses.replace(WRITER, once=True)

    def test_an_error_in_flight_is_nobodys_fault_unless_the_transaction_was_to_run_again(self) -> None:
        assert rules_broken(history()) == []
        assert rules_broken(history(), self.ONCE) == ["failed"]

    def test_books_that_do_not_balance_are_found(self) -> None:
        assert rules_broken(history(imbalance={"accounts": 0, "shop": 0})) == []
        found = judged(history(imbalance={"accounts": -3, "shop": 1})).violations
        assert [(finding.rule, finding.text) for finding in found] == [
            ("imbalance", "accounts: -3"),
            ("imbalance", "shop: +1"),
        ]


def test_the_history_is_written_for_the_post_mortem(tmp_path: Path) -> None:
    whole = history((*WRITES, *READS, write(12.33, "n1", 1)))
    path = tmp_path / "history.jsonl"
    files.write_history(path, {"seed": 123}, whole, judged(whole, WRITER, READER))
    first, *events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert first == {"event": "settings", "seed": 123}
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    [violation] = [event for event in events if event["event"] == "violation"]
    assert violation["rule"] == "wrong node"
    assert sum(event["event"] == "write" for event in events) == len(WRITES) + 1
    spans = [(e["node"], e["timeline"], e["count"]) for e in events if e["event"] == "oracle"]
    assert ("n2", 2, 800) in spans
