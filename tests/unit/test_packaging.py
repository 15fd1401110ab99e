"""What an installed distribution offers."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import patroni_db

if TYPE_CHECKING:
    from collections.abc import Iterator

DISTRIBUTION = "patroni-db"
PACKAGES = ("patroni_db", "django_backend", "sqlalchemy_dialect")
EXTRAS = {"asyncpg", "cli", "cluster", "django", "otel", "pool", "prometheus", "sqlalchemy"}
# Parts of the core's package that come with extras; the others are whole without.
OF_EXTRAS = {"cli", "cluster", "demo", "testing.py", "__main__.py"}
# Imported where it is there already, and never otherwise: pytest's plugins, and what Django cannot be without.
UNDECLARED = {("patroni_db", "pytest"), ("django_backend", "pytest"), ("django_backend", "asgiref")}
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


def required(*, by_extras: bool) -> set[str]:
    """Return the distributions that an installation needs, or that its extras add."""
    requirements = distribution().requires or []
    lines = [line for line in requirements if ("extra ==" in line) == by_extras]
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in lines}


def test_the_core_needs_few_libraries() -> None:
    """urllib3 comes with requests; that it is named gives it a lower bound."""
    assert required(by_extras=False) == {"cachetools", "psycopg", "requests", "urllib3"}


def imported(package: str) -> Iterator[tuple[str, bool]]:
    """Return what the modules of `package` import by its top-level names, and whether the core does."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    folder = Path((spec.submodule_search_locations or [""])[0])
    for path in folder.rglob("*.py"):
        is_core = package == "patroni_db" and path.relative_to(folder).parts[0] not in OF_EXTRAS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                names = [node.module]
            for name in names:
                yield name.partition(".")[0], is_core


def test_what_is_imported_is_declared() -> None:
    """A library that another one brings is of a version that nobody chose."""
    ours = {*PACKAGES, *sys.stdlib_module_names}
    brought = importlib.metadata.packages_distributions()
    core, extras = required(by_extras=False), required(by_extras=True)
    undeclared = set()
    for package in PACKAGES:
        for name, is_core in imported(package):
            names = {found.lower().replace("_", "-") for found in brought.get(name, [name])}
            if name not in ours and not names & (core if is_core else core | extras):
                undeclared.add((package, name))
    assert undeclared == UNDECLARED


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
