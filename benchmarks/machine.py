"""What the figures were measured on."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from patroni_db.cluster.binaries import find_etcd, find_postgres

__all__ = ["about_machine", "about_versions"]

_PACKAGES = ("patroni", "psycopg", "psycopg-pool", "SQLAlchemy", "Django", "hasql")
_GIB = 2**30


def about_machine() -> str:
    """Return processor, memory, system and date in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    today = dt.datetime.now(dt.UTC).date()
    return f"{cores} cores of {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}; {today}"


def about_versions(haproxy: str | None = None) -> str:
    """Return what was run, in one line.

    :param haproxy: the program, when it takes part
    """
    etcd = ".".join(map(str, find_etcd().version))
    versions = [f"Python {platform.python_version()}", f"PostgreSQL {find_postgres().version}", f"etcd {etcd}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if haproxy is not None:
        said = subprocess.run([haproxy, "-v"], capture_output=True, text=True, check=True).stdout.split()
        versions.append(f"HAProxy {said[2]}")
    return ", ".join(versions)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
