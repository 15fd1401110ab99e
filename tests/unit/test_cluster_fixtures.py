from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def run_pytest(folder: Path, *arguments: str, ini: str = "") -> str:
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    (folder / "test_it.py").write_text("def test_it(patroni_urls):\n    assert patroni_urls\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        # No PostgreSQL: a cluster that is asked for must be an error, never a skip.
        "PATRONI_DB_POSTGRES_BIN": "/nowhere",
    }
    command = [sys.executable, "-m", "pytest", "-p", "patroni_db.testing", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "ini", "message"),
    [
        (["--patroni-nodes=many"], "", "patroni_nodes: must be a whole number, not 'many'"),
        ([], "patroni_nodes = 0", "nodes: must be from 1 to 32, not 0"),
        (["--patroni-nodes=2"], "patroni_nodes = 0", "PATRONI_DB_POSTGRES_BIN: /nowhere has no postgres"),
        (["--patroni-synchronous=perhaps"], "", "must be true, false or quorum, not 'perhaps'"),
        (["--patroni-synchronous"], "", "PATRONI_DB_POSTGRES_BIN: /nowhere has no postgres"),
    ],
)
def test_options_come_before_ini_and_errors_are_told(
    tmp_path: Path, arguments: list[str], ini: str, message: str
) -> None:
    output = run_pytest(tmp_path, *arguments, ini=ini)
    assert message in output
    assert "1 error" in output


def test_the_plugins_are_light() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import patroni_db.testing, django_backend.pytest_plugin; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"django", "sqlalchemy", "psutil", "psycopg", "requests"} & set(output.stdout.split())
