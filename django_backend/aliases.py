"""The aliases in ``DATABASES`` that follow a cluster."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from django_backend.mixin import PatroniMixin
from django_backend.pairing import Alias

__all__ = ["following", "wrappers"]


def wrappers() -> dict[str, PatroniMixin]:
    """Return this thread's wrappers with this engine, or one derived from it, by alias. Connects to nothing."""
    found = {}
    for name in connections:
        try:
            wrapper = connections[name]
        except ImproperlyConfigured:
            continue  # another engine, which cannot be loaded: who uses it is told
        if isinstance(wrapper, PatroniMixin):
            found[name] = wrapper
    return found


def following() -> list[Alias]:
    """Return the aliases with this engine.

    :raises ImproperlyConfigured: naming a wrong setting
    """
    return [Alias.of(name, wrapper.settings_dict) for name, wrapper in wrappers().items()]
