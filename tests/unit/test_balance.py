"""Which connections are given up so that a replica that came gets its share, and how many at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from patroni_db.balance import Balance, moves

if TYPE_CHECKING:
    from collections.abc import Mapping

EQUAL = {"n2": 1.0, "n3": 1.0}


class Cluster:
    """Connections of one process, and a balance that looks at them."""

    def __init__(self, **loads: int) -> None:
        self.now = 0.0
        self.loads = Counter(loads)
        self.weights: dict[str, float] = dict.fromkeys(loads, 1.0)
        self.surveys = 0
        self.balance = Balance(lambda: self.now, 2.0)

    def survey(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        self.surveys += 1
        return self.loads, self.weights

    def hand_out_all(self) -> int:
        """Look at every connection, as if each were handed out once; return how many were replaced."""
        moved = 0
        for name in list(self.loads.elements()):
            if self.balance.takes(name, self.survey):
                moved += 1
                self.loads[name] -= 1
                emptiest = min(self.weights, key=lambda other: self.loads[other] / self.weights[other])
                self.loads[emptiest] += 1
        return moved


def test_balanced_connections_stay() -> None:
    for loads in ({}, {"n2": 1}, {"n2": 3, "n3": 3}, {"n2": 4, "n3": 3}):
        assert not moves(loads, EQUAL)


def test_a_tenth_goes_at_once_and_one_at_least() -> None:
    assert moves({"n2": 100}, EQUAL) == {"n2": 10}
    assert moves({"n2": 9}, EQUAL) == {"n2": 1}
    assert moves({"n2": 2}, EQUAL) == {"n2": 1}


def test_shares_follow_the_weights() -> None:
    weights = {"n2": 3.0, "n3": 1.0}
    assert not moves({"n2": 30, "n3": 10}, weights)
    assert moves({"n2": 20, "n3": 20}, weights) == {"n3": 4}


def test_connections_to_second_choices_go_first() -> None:
    assert moves({"n1": 5, "n2": 5}, EQUAL) == {"n1": 1}
    assert not moves({"n1": 5}, {})


def test_a_process_with_one_connection_draws_again_when_a_replica_returns() -> None:
    assert not moves({"n2": 1}, EQUAL)
    assert moves({"n2": 1}, EQUAL, returning=True) == {"n2": 1}
    assert moves({"n2": 100, "n3": 99}, EQUAL, returning=True) == {"n2": 1}
    assert not moves({"n2": 100, "n3": 100}, EQUAL, returning=True)


def test_a_replica_that_returns_gets_its_share_in_small_steps() -> None:
    cluster = Cluster(n2=40)
    assert not cluster.hand_out_all()
    cluster.weights["n3"] = 1.0
    assert not cluster.hand_out_all(), "not before the next look"
    steps = []
    for _ in range(20):
        cluster.now += 2.0
        steps.append(cluster.hand_out_all())
        assert not cluster.hand_out_all(), "once a look"
    assert cluster.loads == {"n2": 20, "n3": 20}
    assert steps[:6] == [4, 4, 4, 4, 4, 0]
    assert not any(steps[5:])


def test_looking_costs_one_survey_a_period() -> None:
    cluster = Cluster(n2=20, n3=20)
    for _ in range(10):
        cluster.hand_out_all()
    assert cluster.surveys == 1


def test_what_was_not_handed_out_in_its_period_is_counted_anew() -> None:
    cluster = Cluster(n2=40, n3=0)
    assert cluster.balance.takes("n2", cluster.survey)
    cluster.loads = Counter(n2=20, n3=20)
    cluster.now += 2.0
    assert not cluster.balance.takes("n2", cluster.survey)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 60)),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=1),
    st.booleans(),
)
def test_moving_is_bounded_takes_what_is_there_and_comes_to_an_end(
    loads: dict[str, int], weights: dict[str, float], returning: bool
) -> None:
    now = Counter(loads)
    total = now.total()
    for step in range(1000):
        taken = moves(now, weights, returning=returning and step == 0)
        assert taken.total() <= max(1, total // 10)
        assert all(0 < count <= now[name] for name, count in taken.items())
        if not taken:
            break
        for name in taken.elements():
            now[name] -= 1
            now[min(weights, key=lambda other: (now[other] + 1) / weights[other])] += 1
    else:
        raise AssertionError("it never came to rest")
    assert all(now[name] == 0 for name in loads if name not in weights)
