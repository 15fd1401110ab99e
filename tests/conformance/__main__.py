"""Run Django's and SQLAlchemy's own suites on their backends and on ours, and tell what ends differently."""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conformance import django_suite, sqlalchemy_suite
from tests.conformance.outcomes import FAILED, compare, parse_declarations, unused
from tests.conformance.server import running_server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conformance.outcomes import Declaration, Outcome

_SUITES: Final = {"sqlalchemy": sqlalchemy_suite.outcomes_of, "django": django_suite.outcomes_of}
_CACHE: Final = Path(sys.prefix) / "conformance"
_DECLARED: Final = Path(__file__).with_name("differences.toml")


def main() -> int:
    """Run the suites that were asked for; return 1 when a test ended differently that was not declared."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[[], *_SUITES], help="by default both")
    parser.add_argument("--short", action="store_true", help="only the tests that are most likely to differ")
    parser.add_argument("--logs", type=Path, help="a folder to keep the suites' own output in")
    options = parser.parse_args()
    declarations = parse_declarations(_DECLARED.read_text())
    undeclared = 0
    with tempfile.TemporaryDirectory(prefix="patroni-db-conformance-") as temporary, running_server() as server:
        work = options.logs or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in options.suites or _SUITES:
            outcomes = _SUITES[name](server, work, _CACHE, short=options.short)
            undeclared += _tell(name, outcomes, [d for d in declarations if d.suite == name])
    return 1 if undeclared else 0


def _tell(name: str, outcomes: Mapping[str, Mapping[str, Outcome]], declarations: list[Declaration]) -> int:
    """Print how the two runs of a suite compare; return the number of undeclared differences."""
    stock, ours = outcomes["stock"], outcomes["ours"]
    print(f"\n{name} {importlib.metadata.version(name)}")
    for kind, run in (("stock", stock), ("ours", ours)):
        counts = collections.Counter(outcome.state for outcome in run.values())
        print(f"  {kind:5} {', '.join(f'{count} {state}' for state, count in sorted(counts.items()))}")
    differences = compare(stock, ours, declarations)
    undeclared = [difference for difference in differences if difference.reason is None]
    for difference in differences:
        if difference.reason is not None:
            print(f"  declared: {difference.test}: {difference.reason}")
    for declaration in unused((*stock, *ours), differences, declarations):
        print(f"  declared, but the same now: {declaration.test}")
    for difference in undeclared:
        print(f"  DIFFERENT: {difference.test}: stock {difference.stock.state}, ours {difference.ours.state}")
        print(f"    {(difference.ours if difference.ours.state == FAILED else difference.stock).message}")
    declared = len(differences) - len(undeclared)
    print(f"  {len(differences)} differences: {declared} declared, {len(undeclared)} not")
    return len(undeclared)


if __name__ == "__main__":
    sys.exit(main())
