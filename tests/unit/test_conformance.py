"""The comparison of two runs of a framework's own suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.outcomes import Outcome, compare, parse_declarations, parse_junit, unused

DECLARED = parse_declarations('[[django]]\ntests = ["a.B.test_x", "c.*[psycopg]"]\nreason = "why"\n')
PASSED, FAILED = Outcome("passed"), Outcome("failed", "boom")


def test_the_same_outcome_is_no_difference() -> None:
    assert compare({"t": PASSED, "u": FAILED}, {"t": PASSED, "u": Outcome("failed", "else")}, ()) == ()


def test_a_test_that_only_one_run_has_is_a_difference() -> None:
    (difference,) = compare({"t": PASSED}, {}, ())
    assert (difference.stock.state, difference.ours.state, difference.reason) == ("passed", "absent", None)


def test_a_declared_difference_has_its_reason() -> None:
    stock = {"a.B.test_x": PASSED, "c.D.test_y[psycopg]": PASSED, "c.D.test_y[asyncpg]": PASSED}
    differences = compare(stock, dict.fromkeys(stock, FAILED), DECLARED)
    assert {d.test: d.reason for d in differences} == {
        "a.B.test_x": "why",
        "c.D.test_y[asyncpg]": None,
        "c.D.test_y[psycopg]": "why",
    }


def test_a_declaration_whose_test_is_the_same_again_is_named() -> None:
    ran = ["a.B.test_x", "c.D.test_y[psycopg]"]
    differences = compare({"a.B.test_x": PASSED}, {"a.B.test_x": FAILED}, DECLARED)
    assert [d.test for d in unused(ran, differences, DECLARED)] == ["c.*[psycopg]"]
    assert not unused([], (), DECLARED)


@pytest.mark.parametrize("entry", ['tests = ["t"]', 'reason = "why"', 'tests = []\nreason = "why"'])
def test_a_declaration_without_test_or_reason_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="an entry of django lacks"):
        parse_declarations(f"[[django]]\n{entry}\n")


def test_the_project_declares_only_with_a_reason() -> None:
    text = Path(__file__).parents[1].joinpath("conformance", "differences.toml").read_text()
    assert {d.suite for d in parse_declarations(text)} <= {"django", "sqlalchemy"}


def test_a_report_of_pytest_is_read() -> None:
    report = """<testsuites><testsuite>
        <testcase classname="m.T" name="a"/>
        <testcase classname="m.T" name="b"><failure message="E: one&#10;two"/></testcase>
        <testcase classname="m.T" name="c"><skipped message="no"/></testcase>
        <testcase classname="m.T" name="d"><error message="E: set-up"/></testcase>
    </testsuite></testsuites>"""
    assert parse_junit(report) == {
        "m.T::a": PASSED,
        "m.T::b": Outcome("failed", "E: one"),
        "m.T::c": Outcome("skipped"),
        "m.T::d": Outcome("failed", "E: set-up"),
    }
