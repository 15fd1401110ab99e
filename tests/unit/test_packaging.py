"""What an installed distribution offers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import tomllib
from pathlib import Path

import pytest

import patroni_db

DISTRIBUTION = "patroni-db"
PACKAGES = ("patroni_db", "django_backend", "sqlalchemy_dialect")
EXTRAS = {"asyncpg", "cli", "cluster", "django", "otel", "pool", "prometheus", "sqlalchemy"}
ENTRY_POINTS = {
    ("console_scripts", "patroni-db"),
    ("pytest11", "patroni_db"),
    ("pytest11", "patroni_db_django"),
    ("sqlalchemy.dialects", "postgresql.patroni"),
    ("sqlalchemy.dialects", "postgresql.patroni_async"),
    ("sqlalchemy.plugins", "patroni"),
}


def distribution() -> importlib.metadata.Distribution:
    return importlib.metadata.distribution(DISTRIBUTION)


def test_every_entry_point_is_installed() -> None:
    installed = {(entry.group, entry.name) for entry in distribution().entry_points}
    assert installed == ENTRY_POINTS


@pytest.mark.parametrize(
    "entry", distribution().entry_points, ids=lambda entry: f"{entry.group}:{entry.name}".replace(".", "-")
)
def test_every_entry_point_loads(entry: importlib.metadata.EntryPoint) -> None:
    needs = {"sqlalchemy.dialects": "sqlalchemy", "sqlalchemy.plugins": "sqlalchemy", "console_scripts": "click"}
    if entry.group in needs:
        pytest.importorskip(needs[entry.group])
    assert entry.load() is not None


def test_extras() -> None:
    assert set(distribution().metadata.get_all("Provides-Extra") or ()) == EXTRAS


def test_the_core_needs_three_libraries() -> None:
    requirements = distribution().requires or []
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in requirements if "extra ==" not in line}
    assert names == {"cachetools", "psycopg", "requests"}


def test_one_version() -> None:
    assert distribution().version == patroni_db.__version__


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert Path(spec.submodule_search_locations[0], "py.typed").is_file()


@pytest.mark.skipif("PATRONI_DB_INSTALLED" not in os.environ, reason="said by tox: the wheel is tested")
@pytest.mark.parametrize("package", PACKAGES)
def test_the_installed_wheel_is_what_is_tested(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert "site-packages" in Path(spec.origin).parts


def test_pytest_finds_no_module_twice() -> None:
    """Tests are imported by path: a test folder named like a framework must not hide it."""
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert "--import-mode=importlib" in settings["tool"]["pytest"]["ini_options"]["addopts"]
    for name in ("django", "sqlalchemy"):
        spec = importlib.util.find_spec(name)
        assert spec is None or "tests" not in Path(spec.origin or "").parts
