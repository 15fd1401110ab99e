"""The command ``patroni-db``. Its libraries come with the extra ``cli``, so they are imported only when it runs."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_LIBRARIES: Final = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code (see :mod:`patroni_db.cli.exits`).

    :param arguments: the words after the command's name; by default those of this process
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        what = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        sys.stderr.write(f"patroni-db: {what}; install the extra 'cli': pip install 'patroni-db[cli]'\n")
        return 2
    from patroni_db.cli.app import run  # noqa: PLC0415 - only now is it known to be importable

    return run(sys.argv[1:] if arguments is None else list(arguments))
