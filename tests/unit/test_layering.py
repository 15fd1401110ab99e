"""Which part may know which: dependencies run one way, pure modules do no I/O, imports are light."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("patroni_db", "django_backend", "sqlalchemy_dialect")

# Decisions, apart from what carries them out. `balance`, `gate` and `signals` synchronize threads, `libpq` only names
# parameters.
PURE = (
    "addresses",
    "balance",
    "causal",
    "causal_text",
    "config",
    "durations",
    "errors",
    "escaping",
    "etcd_messages",
    "faults",
    "gate",
    "libpq",
    "lineage",
    "markers",
    "network",
    "outcome",
    "quarantine",
    "selection",
    "signals",
    "snapshot",
    "sql_effect",
    "statements",
    "time_limit",
    "topology",
    "transaction",
    "views",
)

# What reaches outside of the process, or waits for it. asyncio and threading do not: they only schedule.
IO_MODULES = {
    "asyncpg",
    "fcntl",
    "http",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "psycopg",
    "psycopg2",
    "psycopg_pool",
    "requests",
    "select",
    "selectors",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "urllib3",
}

# The names that a pure module may take from such a module all the same.
ALLOWED = {
    # Environment variables are one of its sources, and a certificate that is not there is a wrong setting.
    "config": {"os.PathLike", "os.environ", "os.fspath", "os.path"},
    "faults": {"socket.gaierror"},  # an exception's class
}

HEAVY = ("asyncpg", "cachetools", "django", "psycopg", "psycopg2", "psycopg_pool", "requests", "sqlalchemy", "urllib3")


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None, f"{package} has no __init__.py"
    return Path(spec.origin).parent


def modules_of(package: str) -> Iterator[Path]:
    yield from sorted(folder_of(package).rglob("*.py"))


def imports_of(tree: ast.AST) -> set[str]:
    """Return the top-level names of everything imported anywhere in a module, types-only imports included."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}"
            found.add((node.module or "").partition(".")[0])
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def offenders(package: str, forbidden: set[str]) -> dict[str, set[str]]:
    found = {str(path): imports_of(parse(path)) & forbidden for path in modules_of(package)}
    return {path: names for path, names in found.items() if names}


def test_the_core_knows_no_framework() -> None:
    ours = {"django_backend", "sqlalchemy_dialect", "example_project", "tests"}
    assert not offenders("patroni_db", {"django", "sqlalchemy"} | ours)


def test_django_backend_does_not_know_the_dialect() -> None:
    assert not offenders("django_backend", {"sqlalchemy", "sqlalchemy_dialect", "example_project", "tests"})


def test_the_dialect_does_not_know_django_backend() -> None:
    assert not offenders("sqlalchemy_dialect", {"django", "django_backend", "example_project", "tests"})


def test_only_clients_speak_http() -> None:
    users = offenders("patroni_db", {"requests", "urllib3"}) | offenders("django_backend", {"requests", "urllib3"})
    users |= offenders("sqlalchemy_dialect", {"requests", "urllib3"})
    # The client, and the transport adapter it mounts.
    assert sorted(Path(path).name for path in users) == ["client.py", "deadline.py"]
    # The client's policy of cookies is the standard library's. etcd's client reads a stream that must be interruptible,
    # below requests. Local clusters do what nobody else does.
    users = offenders("patroni_db", {"http"}) | offenders("django_backend", {"http"})
    users |= offenders("sqlalchemy_dialect", {"http"})
    core = [path for path in map(Path, users) if path.parent.name != "cluster"]
    assert sorted(path.name for path in core) == ["client.py", "deadline.py", "etcd_client.py"]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_no_io(name: str) -> None:
    tree = parse(folder_of("patroni_db") / f"{name}.py")
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in IO_MODULES
    }
    allowed = ALLOWED.get(name, set())
    assert used <= allowed
    assert imports_of(tree) & IO_MODULES <= {entry.partition(".")[0] for entry in allowed}
    assert not any(
        isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "print") for node in ast.walk(tree)
    )


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_depend_at_runtime_on_pure_modules_only(name: str) -> None:
    """Read from what is really loaded, so that imports for type checkers do not count."""
    core = loaded_by(f"import patroni_db.{name}")["modules"]
    ours = {module.partition(".")[2] for module in core if module.startswith("patroni_db.")}
    assert ours <= set(PURE)


def loaded_by(statement: str) -> dict[str, list[str]]:
    """Run `statement` in a new interpreter; return which modules that loaded, and what else it opened or started."""
    program = f"""
import json, sys
doings = []
WATCHED = {{"open", "os.fork", "os.posix_spawn", "_thread.start_new_thread", "socket.__new__", "socket.connect",
           "socket.bind", "socket.getaddrinfo", "subprocess.Popen"}}

def audit(event, arguments):
    # Python itself opens the source or the bytecode of a module; everything else is ours.
    name = str(arguments[0]) if arguments else ""
    loading = event == "open" and name.endswith((".py", ".pyc", ".so", ".pth")) or ".pyc." in name
    if event in WATCHED and not loading:
        doings.append(f"{{event}} {{name}}")

sys.addaudithook(audit)
{statement}
found = list(doings)
print(json.dumps({{"modules": sorted(sys.modules), "doings": found}}))
"""
    done = subprocess.run([sys.executable, "-B", "-c", program], check=True, capture_output=True, text=True)
    result: dict[str, list[str]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_is_light(package: str) -> None:
    """Django settings import django_backend.config, and pytest the package of its plugin: both cost nothing."""
    result = loaded_by(f"import {package}")
    assert not set(HEAVY) & set(result["modules"])
    assert not result["doings"]


def test_the_pytest_plugin_is_light() -> None:
    """It is loaded in every pytest run where the library is installed."""
    before = loaded_by("import pytest")
    after = loaded_by("import pytest, patroni_db.testing")
    new = set(after["modules"]) - set(before["modules"])
    assert new == {"patroni_db", "patroni_db.testing"}
    assert after["doings"] == before["doings"]


@pytest.mark.parametrize("name", ["Discovery", "PatroniConfig", "Target", "discovery_for"])
def test_using_a_public_name_starts_no_thread_and_no_connection(name: str) -> None:
    """urllib3, which comes with the first use of ``Discovery``, makes and drops a socket to see whether IPv6 works."""
    result = loaded_by(f"import patroni_db; patroni_db.{name}")
    harmless = ("open ", "socket.__new__ ", "socket.bind ")
    assert not [doing for doing in result["doings"] if not doing.startswith(harmless)]
    assert not {"psycopg", "django", "sqlalchemy"} & set(result["modules"])
