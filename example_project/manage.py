"""Django's command line for the example project: ``python example_project/manage.py runserver``."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command that the arguments name."""
    checkout = str(Path(__file__).resolve().parent.parent)
    if __package__ in (None, "") and checkout not in sys.path:
        # Run by its path: Python put this folder first, where "orders" would be importable under two names.
        sys.path[0] = checkout
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415 - needs the path set above

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
