"""Database functions that say which server a statement ran on.

They are evaluated by PostgreSQL, so no client can be mistaken about them.
"""

from __future__ import annotations

from django.db.models import Func, GenericIPAddressField, IntegerField

__all__ = ["ServerAddress", "Timeline"]


class ServerAddress(Func):
    """The address of the server that runs the statement; NULL over a unix socket."""

    function = "inet_server_addr"
    arity = 0
    output_field = GenericIPAddressField(null=True)


class Timeline(Func):
    """The timeline a primary writes on: every promotion begins a new one. Fails on a replica.

    The first eight hexadecimal digits of a WAL file's name are its timeline.
    """

    template = "(('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer)"
    arity = 0
    output_field = IntegerField()
