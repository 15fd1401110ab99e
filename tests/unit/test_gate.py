"""One prober at a time while the primary is sought, everybody once it is proved."""

from __future__ import annotations

from patroni_db.gate import Admission, PrimaryGate
from patroni_db.topology import Address

HERE, THERE = Address("n1", 5432), Address("n2", 5432)


def test_the_first_seeker_probes_and_the_others_wait() -> None:
    gate = PrimaryGate()
    assert gate.admit("a", HERE) is Admission.PROBE
    assert gate.admit("b", HERE) is Admission.WAIT
    assert gate.admit("a", HERE) is Admission.PROBE


def test_a_proved_primary_lets_everybody_in_and_wakes_who_waits() -> None:
    gate = PrimaryGate()
    gate.admit("a", HERE)
    waiting = [gate.opened.enter() for _ in range(3)]
    assert gate.prove(HERE, "a")
    assert all(waiter.woken for waiter in waiting)
    assert gate.admit("b", HERE) is gate.admit("c", HERE) is Admission.OPEN
    assert not gate.prove(HERE, "b")


def test_a_prober_that_gives_up_hands_over_to_one() -> None:
    gate = PrimaryGate()
    gate.admit("a", None)
    first, second = gate.opened.enter(), gate.opened.enter()
    gate.leave("b")
    assert not first.woken
    gate.leave("a")
    assert (first.woken, second.woken) == (True, False)
    assert gate.admit("b", HERE) is Admission.PROBE


def test_a_move_of_the_leader_closes_the_gate_to_the_new_one_until_it_is_proved() -> None:
    gate = PrimaryGate()
    gate.prove(HERE)
    assert gate.admit("a", THERE) is Admission.PROBE
    assert gate.admit("b", THERE) is Admission.WAIT


def test_a_fault_on_another_server_does_not_close_it() -> None:
    gate = PrimaryGate()
    gate.prove(HERE)
    gate.disprove(THERE)
    assert gate.admit("a", HERE) is Admission.OPEN
    gate.disprove(HERE)
    assert gate.admit("a", HERE) is Admission.PROBE


def test_a_late_proof_of_a_former_primary_does_not_end_the_probing_of_the_new_one() -> None:
    gate = PrimaryGate()
    gate.admit("a", THERE)
    gate.prove(HERE, "late")
    assert gate.is_sought
    assert gate.admit("b", THERE) is Admission.WAIT
