"""The scripts of ``.ci``: a late cluster loses no landing, and hides nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPTS = Path(__file__).parents[2] / ".ci"

pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="a checkout has them, its copies do not")


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"ci_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


LATE = "tests/integration/test_a.py::test_late"


@pytest.mark.parametrize(
    ("status", "failures", "again"),
    [
        (0, [], ()),
        (1, [(LATE, "call")], (LATE,)),
        (1, [(LATE, "setup"), (LATE, "call")], (LATE,)),
        (1, [(LATE, "???")], (LATE,)),
        (1, [(LATE, "teardown")], ()),
        (1, [(LATE, "call"), ("tests/unit/test_a.py::test_wrong", "call")], ()),
        (1, [("tests/spec/test_integration.py::test_wrong", "call")], ()),
        (2, [("tests/integration/test_a.py", "collect")], ()),
        (3, [(LATE, "call")], ()),
        (1, [], ()),
    ],
)
def test_only_tests_of_the_real_cluster_run_again(
    status: int, failures: list[tuple[str, str]], again: tuple[str, ...]
) -> None:
    module = script("again")
    assert module.tests_to_run_again(status, [module.Failure(*failure, "") for failure in failures]) == again


@pytest.fixture
def ci(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A project of one integration test and one unit test, and the script that runs them."""
    (tmp_path / "pytest.ini").touch()

    def run(integration: str, unit: str = "pass", *options: str) -> subprocess.CompletedProcess[str]:
        for suite, body in (("integration", integration), ("unit", unit)):
            folder = tmp_path / "tests" / suite
            folder.mkdir(parents=True)
            head = "import pathlib, pytest\nSEEN = pathlib.Path('seen')\ndef test_it():\n"
            (folder / f"test_{suite}.py").write_text(f"{head}{textwrap.indent(body, '    ')}\n")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "DJANGO_"))}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        return subprocess.run(
            [sys.executable, str(SCRIPTS / "again.py"), "out/first", "-p", "no:cacheprovider", *options, "tests"],
            cwd=tmp_path,
            env=environment | {"FLAKY_LOG": str(tmp_path / "flaky")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


ONCE = "if not SEEN.exists():\n    SEEN.touch()\n    raise ValueError('late')"


@pytest.mark.parametrize("options", [(), pytest.param(("-p", "xdist", "-n2"), marks=pytest.mark.thorough)])
def test_a_flake_passes_and_is_told(ci: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = ci(ONCE, "pass", *options)
    assert done.returncode == 0, done.stdout
    nodeid = "tests/integration/test_integration.py::test_it"
    assert f"{nodeid}\n    first  failed: ValueError: late\n    second passed\n== 1 flaky, 0 failed" in done.stdout
    assert (tmp_path / "flaky").read_text() == f"first: {nodeid}: ValueError: late\n"
    results = script("results")
    counts, _ = results.report(tmp_path / "out" / "first.xml")
    assert counts == {"tests": 2, "failures": 0, "errors": 0, "skipped": 0, "flaky": 1}


@pytest.mark.parametrize(
    ("integration", "told"),
    [
        ("raise ValueError('broken')", "second failed: ValueError: broken\n== 0 flaky, 1 failed"),
        pytest.param(
            ONCE + "\npytest.skip('no cluster')",
            "second did not run to its end\n== 0 flaky, 1 failed",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_what_does_not_pass_the_second_time_fails(ci: Any, tmp_path: Path, integration: str, told: str) -> None:
    done = ci(integration)
    assert done.returncode == 1
    assert told in done.stdout
    assert not (tmp_path / "flaky").exists()
    counts, _ = script("results").report(tmp_path / "out" / "first.xml")
    assert (counts["failures"], counts["flaky"]) == (1, 0)


def test_a_failure_without_a_cluster_is_final(ci: Any, tmp_path: Path) -> None:
    done = ci(ONCE, "assert 1 == 2")
    assert done.returncode == 1
    assert "once more" not in done.stdout
    assert not (tmp_path / "out" / "first-again.xml").exists()
