"""Where other programs find a cluster by its name.

One small file for each named cluster, in a folder that only this user can read. It holds no secret: those stay
with the cluster's supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_NAME", "control_of", "folder", "publish", "require_free", "running_names", "withdraw"]

DEFAULT_NAME = "default"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return this user's folder of names: in ``XDG_RUNTIME_DIR``, or else in the folder for temporary files."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "patroni-db"
    return Path(tempfile.gettempdir()) / f"patroni-db-names-{os.getuid()}"


def _file(name: str) -> Path:
    if not _NAME.match(name):
        raise ClusterError(f"{name!r} is no name for a cluster: letters, digits, '.', '_' and '-', 64 at most")
    return folder() / f"{name}.json"


def _own(path: Path) -> None:
    """Refuse a folder that somebody else made in a place where everybody can write."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ClusterError(f"{path} does not belong to this user alone")


def publish(name: str, control: Path) -> None:
    """Make the cluster with this control socket known under `name`.

    :raises ClusterError: when a running cluster has that name already
    """
    path = _file(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own(path.parent)
    draft = path.with_name(f".{name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps({"control": str(control)}))
    try:
        while True:
            try:
                # A link appears with its content, and never replaces what is there.
                path.hardlink_to(draft)
            except FileExistsError:
                require_free(name)
            else:
                return
    finally:
        draft.unlink()


def require_free(name: str) -> None:
    """Make sure that no running cluster is called `name`.

    :raises ClusterError: when one is
    """
    if _look_up(_file(name)) is not None:
        raise ClusterError(f"a cluster named {name!r} is running already")


def control_of(name: str) -> Path:
    """Return the control socket of the cluster called `name`.

    :raises ClusterError: when none runs
    """
    control = _look_up(_file(name))
    if control is None:
        running = ", ".join(running_names()) or "none"
        raise ClusterError(f"no cluster named {name!r} is running (running: {running})")
    return control


def running_names() -> tuple[str, ...]:
    """Return the names of this user's running clusters, sorted."""
    names = sorted(path.stem for path in folder().glob("*.json") if _NAME.match(path.stem))
    return tuple(name for name in names if _look_up(_file(name)) is not None)


def _look_up(path: Path) -> Path | None:
    """Return the control socket that the file names; forget a file whose cluster is gone without a word."""
    try:
        _own(path.parent)
        text = path.read_text()
    except OSError:
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        control = Path(json.loads(text)["control"])
        if _answers(control):
            return control
    path.unlink(missing_ok=True)
    return None


def _answers(control: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(str(control))
    except OSError:
        return False
    return True


def withdraw(name: str, control: Path) -> None:
    """Forget `name`, if it is still this cluster's."""
    path = _file(name)
    try:
        if json.loads(path.read_text())["control"] == str(control):
            path.unlink(missing_ok=True)
    except (OSError, ValueError, KeyError):
        return
    try:
        path.parent.rmdir()
    except OSError:
        return  # other clusters are known
