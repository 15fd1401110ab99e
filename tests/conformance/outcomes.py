"""What two runs of one suite are compared by: how each test ended, and which differences were declared. Pure."""

from __future__ import annotations

import dataclasses
import fnmatch
import tomllib
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Declaration", "Difference", "Outcome", "compare", "parse_declarations", "parse_junit", "unused"]

ABSENT = "absent"
PASSED = "passed"
FAILED = "failed"
SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended.

    :param state: ``passed``, ``failed``, ``skipped``, or ``absent`` where the run did not have it
    :param message: the first line of the failure
    """

    state: str
    message: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Declaration:
    """A difference that is meant.

    :param suite: ``django`` or ``sqlalchemy``
    :param test: the test's name; ``*`` stands for any text
    :param reason: why ours ends differently, for those who read it
    """

    suite: str
    test: str
    reason: str

    def covers(self, test: str) -> bool:
        """Return whether it speaks of `test`. Brackets are part of names, not sets of letters."""
        return fnmatch.fnmatchcase(test, self.test.replace("[", "[[]"))


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One test that ended differently.

    :param test: its name
    :param stock: how it ended on the framework's own backend
    :param ours: how it ended on ours
    :param reason: the declared reason; None for an undeclared difference
    """

    test: str
    stock: Outcome
    ours: Outcome
    reason: str | None


def compare(
    stock: Mapping[str, Outcome], ours: Mapping[str, Outcome], declarations: Iterable[Declaration]
) -> tuple[Difference, ...]:
    """Return every test that ended differently, in the order of the names.

    :param stock: the outcomes on the framework's own backend, by test
    :param ours: the outcomes on ours
    :param declarations: the differences of this suite that are meant
    """
    declared = tuple(declarations)
    absent = Outcome(ABSENT)
    differences = []
    for test in sorted({*stock, *ours}):
        before, after = stock.get(test, absent), ours.get(test, absent)
        if before.state != after.state:
            reason = next((declaration.reason for declaration in declared if declaration.covers(test)), None)
            differences.append(Difference(test, before, after, reason))
    return tuple(differences)


def unused(
    ran: Iterable[str], differences: Iterable[Difference], declarations: Iterable[Declaration]
) -> tuple[Declaration, ...]:
    """Return the declarations whose tests ran and did not differ: they may be removed.

    :param ran: the names of all tests of the run
    :param differences: what :func:`compare` returned
    :param declarations: those of the suite
    """
    names, differing = tuple(ran), tuple(difference.test for difference in differences)
    return tuple(
        declaration
        for declaration in declarations
        if any(map(declaration.covers, names)) and not any(map(declaration.covers, differing))
    )


def parse_declarations(text: str) -> tuple[Declaration, ...]:
    """Return the declared differences of a ``differences.toml``.

    :raises ValueError: an entry lacks its suite, its test or its reason
    """
    declarations: list[Declaration] = []
    for suite, entries in tomllib.loads(text).items():
        for entry in entries:
            missing = [name for name in ("tests", "reason") if not entry.get(name)]
            if missing:
                raise ValueError(f"an entry of {suite} lacks {' and '.join(missing)}: {entry}")
            declarations.extend(Declaration(suite, test, entry["reason"]) for test in entry["tests"])
    return tuple(declarations)


def parse_junit(text: str) -> dict[str, Outcome]:
    """Return the outcomes by test of a JUnit report, as pytest writes it.

    :param text: the report
    """
    outcomes = {}
    for case in ET.fromstring(text).iter("testcase"):  # noqa: S314 - written by the pytest that we started
        state, message = PASSED, ""
        for child in case:
            if child.tag in {"failure", "error"}:
                state, message = FAILED, (child.get("message") or "").partition("\n")[0]
            elif child.tag == "skipped" and state == PASSED:
                state = SKIPPED
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = Outcome(state, message)
    return outcomes
