"""Django's test runner, which also writes down how each test ended."""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any

from django.test.runner import DiscoverRunner

__all__ = ["Runner"]


class _Result(unittest.TextTestResult):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outcomes: dict[str, tuple[str, str]] = {}

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - as unittest has it
        super().startTest(test)
        self.outcomes.setdefault(test.id(), ("passed", ""))

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self.outcomes[test.id()] = ("failed", _line(err))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self.outcomes[test.id()] = ("failed", _line(err))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.outcomes[test.id()] = ("failed", _line(err))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.outcomes[test.id()] = ("skipped", reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self.outcomes[test.id()] = ("failed", "unexpected success")


def _line(err: Any) -> str:
    kind, value = err[0], err[1]
    return f"{kind.__name__}: {value}".partition("\n")[0]


class Runner(DiscoverRunner):
    """Writes a JSON object of ``{test: [state, message]}`` to the file that ``CONFORMANCE_REPORT`` names."""

    def get_resultclass(self) -> Any:
        """Return the class that keeps the outcomes."""
        return _Result

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        """Run the tests and write down how they ended."""
        result: Any = super().run_suite(suite, **kwargs)
        Path(os.environ["CONFORMANCE_REPORT"]).write_text(json.dumps(result.outcomes))
        return result
