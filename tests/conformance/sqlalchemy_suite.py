"""SQLAlchemy's suite: what its third-party dialects are asked to pass, and its PostgreSQL, engine and session tests."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.conformance.outcomes import parse_junit
from tests.conformance.sources import source_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conformance.outcomes import Outcome
    from tests.conformance.server import Server

__all__ = ["outcomes_of"]

_LONG = ("test/dialect/test_suite.py", "test/dialect/postgresql", "test/engine", "test/orm/test_session.py")
# Where what this project adds can show at all.
_SHORT = (
    "test/engine/test_execute.py",
    "test/engine/test_pool.py",
    "test/engine/test_reconnect.py",
    "test/engine/test_transaction.py",
    "test/orm/test_session.py",
)


def outcomes_of(server: Server, work: Path, cache: Path, *, short: bool) -> dict[str, Mapping[str, Outcome]]:
    """Run the suite on SQLAlchemy's own dialect and on ours; return the outcomes by ``stock`` and ``ours``.

    :param server: the cluster
    :param work: a folder for reports and logs
    :param cache: the folder that source distributions are kept in
    :param short: whether to run only what is likely to differ
    """
    tree = source_tree("sqlalchemy", cache)
    login = f"{quote(server.user)}:{quote(server.password)}"
    urls = {
        "stock": f"postgresql+psycopg://{login}@{server.host}:{server.port}/test",
        "ours": f"postgresql+patroni://{login}@/test?patroni_urls={quote(','.join(server.urls), safe='')}",
    }
    return {kind: _run(kind, url, tree, work, _SHORT if short else _LONG) for kind, url in urls.items()}


def _run(kind: str, url: str, tree: Path, work: Path, tests: tuple[str, ...]) -> Mapping[str, Outcome]:
    report, log = work / f"sqlalchemy-{kind}.xml", work / f"sqlalchemy-{kind}.log"
    # -s: its conftest.py then imports the installed SQLAlchemy, not the one of the source tree.
    command = [sys.executable, "-s", "-m", "pytest", "-q", "--maxfail=100000", "--dburi", url, f"--junitxml={report}"]
    plugins = ["-p", "no:patroni_db", "-p", "no:django", "-p", "no:cacheprovider", "-p", "no:randomly"]
    with log.open("w") as output:
        subprocess.run([*command, *plugins, *tests], cwd=tree, check=False, stdout=output, stderr=subprocess.STDOUT)
    if not report.exists():
        raise SystemExit(f"SQLAlchemy's suite did not run on {kind}:\n{log.read_text()[-4000:]}")
    return parse_junit(report.read_text())
