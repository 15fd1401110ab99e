"""Django on a Patroni cluster: ``ENGINE`` ``"django_backend"``.

Importing this package imports nothing else: settings modules do.
"""

from __future__ import annotations
