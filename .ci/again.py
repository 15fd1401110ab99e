"""Run pytest; what failed on a real cluster runs once more, in a session of its own on a fresh cluster.

usage: again.py REPORT PYTEST'S-ARGUMENT...

A real cluster on a busy machine is late now and then, which says nothing about the change under test. A second failure
fails, and so does the first of anything that needs no cluster, of a collection, or of what a session leaves behind.
Both results are printed. A test that passed the second time is called flaky: it is counted at the end, and in the file
that the variable FLAKY_LOG names.

REPORT.xml is pytest's report of the first run, REPORT-again.xml that of the second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Tests that need a real cluster; the others do the same each time.
ON_A_CLUSTER = "tests/integration/"

_RECORD = "--record"


@dataclass(frozen=True)
class Failure:
    """One report of pytest that is no success.

    :param nodeid: of the test, or of the file that could not be collected
    :param when: ``collect``, ``setup``, ``call``, ``teardown``, or ``???`` where a worker crashed
    :param why: one line
    """

    nodeid: str
    when: str
    why: str

    @property
    def may_run_again(self) -> bool:
        """Whether a second run can tell something.

        A teardown fails for what a whole session has left behind: a run of this one test would hide that.
        """
        return self.nodeid.startswith(ON_A_CLUSTER) and self.when not in {"collect", "teardown"}


class Recorder:
    """A plugin that notes what fails; with pytest-xdist it is told by the workers."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a phase of a test."""
        if report.failed:
            self.failures.append(Failure(report.nodeid, report.when or "", _reason(report)))
        elif report.passed and report.when == "call":
            self.passed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be read."""
        if report.failed:
            self.failures.append(Failure(report.nodeid, "collect", _reason(report)))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(getattr(crash, "message", "") or report.longreprtext).strip().splitlines() or ["no reason given"]
    return (lines[0] if crash else lines[-1])[:200]


def tests_to_run_again(status: int, failures: Iterable[Failure]) -> tuple[str, ...]:
    """Return the tests that run again; none when one of the failures is final.

    :param status: pytest's exit status
    """
    found = list(failures)
    if status != pytest.ExitCode.TESTS_FAILED or not all(failure.may_run_again for failure in found):
        return ()
    return tuple(dict.fromkeys(failure.nodeid for failure in found))


def record(path: Path, arguments: Sequence[str]) -> int:
    """Run pytest here, and write what failed and what passed into `path`."""
    sys.path.pop(0)  # this script's folder, from which tests import nothing
    recorder = Recorder()
    status = pytest.main(list(arguments), plugins=[recorder])
    found = {"failures": [asdict(failure) for failure in recorder.failures], "passed": recorder.passed}
    path.write_text(json.dumps(found), encoding="utf-8")
    return int(status)


def run(report: Path, arguments: Sequence[str]) -> tuple[int, list[Failure], set[str]]:
    """Run pytest in a process of its own; return its status, what failed and what passed.

    :param report: without a suffix
    """
    report.parent.mkdir(parents=True, exist_ok=True)
    notes = report.with_name(f"{report.name}.json")
    notes.unlink(missing_ok=True)
    command = [sys.executable, __file__, _RECORD, str(notes), f"--junitxml={report}.xml", *arguments]
    status = subprocess.run(command, check=False).returncode
    found = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {"failures": [], "passed": []}
    notes.unlink(missing_ok=True)
    return status, [Failure(**failure) for failure in found["failures"]], set(found["passed"])


def main(report: Path, arguments: Sequence[str]) -> int:
    """Run pytest once or twice and return the exit status."""
    report.with_name(f"{report.name}-again.xml").unlink(missing_ok=True)
    status, failures, _ = run(report, arguments)
    tests = tests_to_run_again(status, failures)
    if not tests:
        return status
    print(f"\n== {len(tests)} of the tests on a real cluster failed: once more, on a fresh cluster", flush=True)
    # What is broken fails in the first of them; the rest need not be waited for.
    again, repeated, passed = run(report.with_name(f"{report.name}-again"), ["--maxfail=1", *tests])
    flaky = [] if again else [nodeid for nodeid in tests if nodeid in passed]
    second = {failure.nodeid: f"failed: {failure.why}" for failure in repeated}
    print("\n== first and second results")
    for failure in failures:
        result = second.get(failure.nodeid) or ("passed" if failure.nodeid in passed else "did not run to its end")
        print(f"{failure.nodeid}\n    first  failed: {failure.why}\n    second {result}")
    succeeded = len(flaky) == len(tests)
    print(f"== {len(flaky)} flaky, {len(tests) - len(flaky)} failed", flush=True)
    if succeeded and (log := os.environ.get("FLAKY_LOG")):
        with Path(log).open("a", encoding="utf-8") as file:
            file.writelines(f"{report.name}: {failure.nodeid}: {failure.why}\n" for failure in failures)
    return 0 if succeeded else int(pytest.ExitCode.TESTS_FAILED)


if __name__ == "__main__":
    if sys.argv[1:2] == [_RECORD]:
        sys.exit(record(Path(sys.argv[2]), sys.argv[3:]))
    if len(sys.argv) < 3:  # noqa: PLR2004 - the report and one argument
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]).absolute(), sys.argv[2:]))
