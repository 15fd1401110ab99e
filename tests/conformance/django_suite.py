"""Django's suite: the parts that reach the database backend."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conformance.outcomes import Outcome
from tests.conformance.sources import source_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conformance.server import Server

__all__ = ["outcomes_of"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_SHORT: Final = ("backends", "transactions", "transaction_hooks", "cache.tests.DBCacheTests", "test_utils")
_LONG: Final = (
    "aggregation",
    "annotations",
    "async",
    "backends",
    "basic",
    "bulk_create",
    "cache",
    "constraints",
    "contenttypes_tests",
    "db_utils",
    "dbshell",
    "defer",
    "delete",
    "delete_regress",
    "expressions",
    "fixtures",
    "generic_relations",
    "get_or_create",
    "introspection",
    "lookup",
    "many_to_many",
    "migrations",
    "model_forms",
    "model_inheritance",
    "multiple_database",
    "nested_foreign_keys",
    "prefetch_related",
    "queries",
    "raw_query",
    "schema",
    "select_for_update",
    "serializers",
    "sessions_tests",
    "test_runner",
    "test_utils",
    "transaction_hooks",
    "transactions",
    "update",
)
# What further parts need the server to have.
_NEEDED: Final = {
    "db_functions": frozenset({"pgcrypto"}),
    "inspectdb": frozenset({"ICU"}),
    "postgres_tests": frozenset({"pgcrypto"}),
}


def outcomes_of(server: Server, work: Path, cache: Path, *, short: bool) -> dict[str, Mapping[str, Outcome]]:
    """Run the suite on Django's own backend and on ours; return the outcomes by ``stock`` and ``ours``.

    :param server: the cluster
    :param work: a folder for reports and logs
    :param cache: the folder that source distributions are kept in
    :param short: whether to run only what is likely to differ
    """
    tree = source_tree("django", cache)
    labels = list(_SHORT if short else _LONG)
    for label, needed in _NEEDED.items():
        missing = needed - server.features
        if not short and missing:
            print(f"without Django's {label}: this PostgreSQL has no {', '.join(sorted(missing))}")
        elif not short:
            labels.append(label)
    return {kind: _run(kind, server, tree, work, labels) for kind in ("stock", "ours")}


def _run(kind: str, server: Server, tree: Path, work: Path, labels: list[str]) -> Mapping[str, Outcome]:
    report, log = work / f"django-{kind}.json", work / f"django-{kind}.log"
    case = {**dataclasses.asdict(server), "features": [], "kind": kind}
    environment = {
        **os.environ,
        "CONFORMANCE_CASE": json.dumps(case),
        "CONFORMANCE_REPORT": str(report),
        "PYTHONPATH": str(_ROOT),
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    # One process: some tests look at the databases that others would make.
    command = [sys.executable, "runtests.py", "--settings=tests.conformance.django_settings", "--parallel=1"]
    with log.open("w") as output:
        subprocess.run(
            [*command, "--noinput", *labels],
            cwd=tree / "tests",
            env=environment,
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if not report.exists():
        raise SystemExit(f"Django's suite did not run on {kind}:\n{log.read_text()[-4000:]}")
    return {test: Outcome(state, message) for test, (state, message) in json.loads(report.read_text()).items()}
