"""How long members that failed rest, and what lets them come back."""

from __future__ import annotations

import random
import threading

from patroni_db.quarantine import Quarantine


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def quarantine(seed: int = 1) -> tuple[Quarantine, Clock]:
    clock = Clock()
    return Quarantine(clock, random.Random(seed)), clock


def rests(one: Quarantine, clock: Clock, failures: int) -> list[float]:
    """Let reads fail each time the member is back; return how long it rested each time."""
    lengths = []
    for _ in range(failures):
        seconds = one.rest("n2", reads_failed=True)
        assert seconds is not None
        assert one.resting() == one.failing() == {"n2"}
        clock.now += seconds
        assert not one.resting()
        lengths.append(seconds)
    return lengths


def test_who_fails_again_rests_longer_each_time_up_to_a_minute() -> None:
    lengths = rests(*quarantine(), failures=9)
    wanted = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert all(0.75 * seconds <= length <= 1.25 * seconds for length, seconds in zip(lengths, wanted, strict=True))


def test_processes_do_not_come_back_at_the_same_moment() -> None:
    assert len({quarantine(seed)[0].rest("n2", reads_failed=True) for seed in range(20)}) == 20


def test_failures_of_one_moment_count_once() -> None:
    one, clock = quarantine()
    first = one.rest("n2", reads_failed=True)
    assert first is not None
    for _ in range(10):
        assert one.rest("n2", reads_failed=True) is None
    clock.now += first
    assert not one.resting()


def test_who_served_for_as_long_as_it_rested_has_proved_itself() -> None:
    one, clock = quarantine()
    rests(one, clock, failures=3)  # the last one for about 4 s
    clock.now += 3
    again = one.rest("n2", reads_failed=True)
    assert again is not None
    assert again > 5
    clock.now += again + 9
    after = one.rest("n2", reads_failed=True)
    assert after is not None
    assert after < 2


def test_a_connection_proves_who_could_not_be_connected_to_but_not_who_failed_to_read() -> None:
    one, clock = quarantine()
    one.rest("n2", reads_failed=False)
    one.rest("n3", reads_failed=True)
    assert one.resting() == {"n2", "n3"}
    assert one.failing() == {"n3"}
    one.reached("n2")
    one.reached("n3")
    one.reached("n9")
    assert one.resting() == {"n3"}
    clock.now += 1
    # It was reached and lost again: it flaps.
    again = one.rest("n2", reads_failed=False)
    assert again is not None
    assert again > 7


def test_reads_that_fail_prolong_the_rest_of_who_could_not_be_connected_to() -> None:
    one, _ = quarantine()
    one.rest("n2", reads_failed=False)
    assert one.rest("n2", reads_failed=True) is not None
    assert one.rest("n2", reads_failed=False) is None
    one.reached("n2")
    assert one.failing() == {"n2"}


def test_who_was_started_again_is_forgiven_but_damaged_data_is_not() -> None:
    one, _ = quarantine()
    one.rest("n2", reads_failed=False)
    one.rest("n3", reads_failed=True)
    for name in ("n2", "n3", "n9"):
        one.forgive(name)
    assert one.resting() == {"n3"}


def test_many_threads_may_report_at_once() -> None:
    one, _ = quarantine()
    counted: list[float] = []
    together = threading.Barrier(8)

    def report() -> None:
        together.wait()
        for _ in range(200):
            seconds = one.rest("n2", reads_failed=True)
            one.reached("n2")
            assert one.resting() == {"n2"}
            if seconds is not None:
                counted.append(seconds)

    threads = [threading.Thread(target=report) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 1
