"""Print what tox ran, what it could not run here and why, and the sum of all tests, from pytest's reports."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
COUNTS = ("tests", "failures", "errors", "skipped", "flaky")


def environments() -> list[str]:
    """Return the names of all environments of tox.ini, those included that cannot run on this machine."""
    tox = Path(sysconfig.get_path("scripts"), "tox")
    listed = subprocess.run([tox, "list", "--no-desc", "-q"], cwd=ROOT, check=True, capture_output=True, text=True)
    return listed.stdout.split()


def report(path: Path) -> tuple[dict[str, int], float]:
    """Return the counts and the seconds of one pytest run.

    Where `.ci/again.py` ran all that had failed once more, and all of it passed, it counts as passed and as flaky.
    """
    counts, seconds = _counted(path)
    again = path.with_name(f"{path.stem}-again.xml")
    if again.exists():
        second, more = _counted(again)
        seconds += more
        if second["tests"] and not second["failures"] + second["errors"] + second["skipped"]:
            counts |= {"failures": 0, "errors": 0, "flaky": second["tests"]}
    return counts, seconds


def _counted(path: Path) -> tuple[dict[str, int], float]:
    suites = list(ET.parse(path).getroot().iter("testsuite"))  # noqa: S314 - written by our own pytest
    counts = {count: sum(int(suite.get(count, 0)) for suite in suites) for count in COUNTS}
    return counts, sum(float(suite.get("time", 0)) for suite in suites)


def main(*, succeeded: bool) -> int:
    """Print the table; return 1 when there was nothing to put into it.

    :param succeeded: whether tox was content: then what it did not run has no interpreter on this machine
    """
    reason = "not on this machine" if succeeded else "not on this machine, or failed before its tests: see above"
    total = dict.fromkeys(COUNTS, 0)
    missing: dict[str, int] = {}
    for name in environments():
        reports = sorted((ROOT / ".tox" / "results").glob(f"{name}.xml")) + sorted(
            (ROOT / ".tox" / "results").glob(f"{name}-integration.xml")
        )
        if not reports:
            interpreter = name.partition("-")[0]
            missing[interpreter] = missing.get(interpreter, 0) + 1
        for path in reports:
            counts, seconds = report(path)
            total = {count: total[count] + counts[count] for count in COUNTS}
            failed = counts["failures"] + counts["errors"]
            passed = counts["tests"] - failed - counts["skipped"]
            skipped, flaky = counts["skipped"], f" ({counts['flaky']} flaky)" if counts["flaky"] else ""
            print(f"{path.stem:36} {passed:5} passed {failed:4} failed {skipped:4} skipped {seconds:6.0f} s{flaky}")
    for interpreter, number in missing.items():
        print(f"{interpreter:36} not run: {number} environments; {reason}")
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    flaky = f"; {total['flaky']} of them passed only the second time" if total["flaky"] else ""
    print(f"{passed} passed, {failed} failed, {total['skipped']} skipped{flaky}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(succeeded=sys.argv[1:] == ["0"]))
