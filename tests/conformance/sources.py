"""The source distributions of the installed frameworks: their tests are in no wheel."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["source_tree"]


def source_tree(package: str, cache: Path) -> Path:
    """Return the folder with the sources of the installed release of `package`, fetched once.

    :param package: its name on the package index
    :param cache: the folder to keep sources in
    :raises SystemExit: pip could not fetch them; its own words are shown
    """
    version = importlib.metadata.version(package)
    folder = cache / f"{package.lower()}-{version}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"fetching the sources of {package} {version}", flush=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        fetched = subprocess.run(
            [*command, "--no-binary", package, "--dest", cache, f"{package}=={version}"],
            check=False,
            capture_output=True,
            text=True,
        )
        if fetched.returncode:
            raise SystemExit(f"the sources of {package} {version} cannot be fetched:\n{fetched.stderr}")
        archive = next(cache.glob(f"{package.lower()}-{version}.tar.*"))
        partial = cache / f"{folder.name}.partial"
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        (partial / folder.name).rename(folder)
        partial.rmdir()
        archive.unlink()
    return folder
