"""``python -m patroni_db`` is ``patroni-db``."""

from __future__ import annotations

import sys

from patroni_db.cli import main

if __name__ == "__main__":
    sys.exit(main())
