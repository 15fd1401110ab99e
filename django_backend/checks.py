"""System checks of the settings. None of them connects to anything.

===========  =======================================================================================
patroni.E001 a ``patroni_*`` setting is unknown, wrong or contradicts another
patroni.E002 ``patroni_urls`` is missing
patroni.E003 an option of the driver names a server or a role, which is Patroni's to tell
patroni.E004 ``OPTIONS["pool"]`` together with ``CONN_MAX_AGE``
patroni.W001 ``HOST`` or ``PORT`` is set, and ignored
patroni.W002 an alias that reads has no ``TEST["MIRROR"]``
patroni.W003 ``CONN_HEALTH_CHECKS`` costs a round trip for what is checked without one
patroni.W004 an alias reads from replicas, but no router sends reads there
patroni.W005 ``ATOMIC_REQUESTS`` on an alias that reads
patroni.E005 ``PATRONI_REQUEST_DEADLINE`` is no number of seconds
patroni.E007 ``PATRONI_COMMAND_WAIT`` is no number of seconds
patroni.W006 ``FailoverMiddleware`` is not the first middleware
patroni.W007 ``PATRONI_EXACTLY_ONCE`` has no effect
patroni.E006 a ``PATRONI_CAUSAL_*`` setting is wrong
patroni.W008 reads go to replicas, but requests do not read what they wrote: no ``CausalMiddleware``
patroni.W009 ``CausalMiddleware`` comes after middleware that writes, or without a router that asks for its tokens
patroni.W020 ``check --deploy``: nothing makes a server prove that it is the right one
patroni.W021 ``check --deploy``: members may be anywhere, without ``patroni_allowed_hosts``
patroni.W022 ``check --deploy``: Patroni's API or etcd is asked without TLS
===========  =======================================================================================
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.utils.module_loading import import_string

from django_backend.aliases import following, wrappers
from django_backend.pairing import pair
from django_backend.router import PrimaryReplicaRouter
from patroni_db.config import PatroniConfig
from patroni_db.durations import LONGEST
from patroni_db.errors import ConfigError
from patroni_db.escaping import quoted
from patroni_db.libpq import ADDRESSING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django_backend.pairing import Alias

__all__ = ["check_databases", "check_deployment"]

_MIDDLEWARE = "django_backend.middleware.FailoverMiddleware"
_CAUSAL_MIDDLEWARE = "django_backend.causal_middleware.CausalMiddleware"
_PROVEN = frozenset({"verify-ca", "verify-full"})
# How two aliases of one cluster differ without being guarded differently.
_GUARDS_NOTHING = frozenset({"patroni_target", "patroni_max_lag", "patroni_tags"})
_SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"


def check_databases(app_configs: Any = None, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """Return what is wrong with the entries of ``DATABASES`` that have this engine."""
    entries = {name: wrapper.settings_dict for name, wrapper in wrappers().items()}
    messages = [message for name, entry in entries.items() for message in check_entry(name, entry)]
    if not any(message.id in {"patroni.E001", "patroni.E002"} for message in messages):
        aliases, routers = following(), _routers()
        messages += check_aliases(aliases, routers)
        messages += check_reads(pair(aliases), routers)
    messages += check_requests(any(entry.get("ATOMIC_REQUESTS") for entry in entries.values()))
    return messages


def check_deployment(app_configs: Any = None, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - as above
    """Return what leaves the entries of ``DATABASES`` with this engine unguarded in production: docs/security.md."""
    alike: list[tuple[dict[str, Any], list[str], Mapping[str, Any]]] = []
    for name, wrapper in wrappers().items():
        entry = wrapper.settings_dict
        guards = {key: value for key, value in (entry.get("OPTIONS") or {}).items() if key not in _GUARDS_NOTHING}
        for known, names, _ in alike:
            if known == guards:
                names.append(name)
                break
        else:
            alike.append((guards, [name], entry))
    return [message for _, names, entry in alike for message in check_guards(*names, entry=entry)]


def check_guards(*names: str, entry: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """Check that somebody on the network cannot have an entry's connections, and its password, for the asking.

    :param names: its alias, and those of other entries that are guarded alike
    :param entry: its settings
    """
    where = " and ".join(f"DATABASES[{name!r}]['OPTIONS']" for name in names)
    options = entry.get("OPTIONS") or {}
    try:
        config = PatroniConfig.from_options(options)
    except ConfigError:
        return  # check_entry() tells
    mode = options.get("sslmode") or os.environ.get("PGSSLMODE", "")
    binding = options.get("channel_binding") or os.environ.get("PGCHANNELBINDING", "")
    if mode not in _PROVEN and binding != "require":
        yield Warning(
            f"{where}: no server has to prove that it is the right one. An impostor that Patroni's API names gets what "
            "is written, and the password if it asks for it in clear text.",
            hint='Set "sslmode": "verify-full" with "sslrootcert", or "channel_binding": "require" (docs/security.md).',
            id="patroni.W020",
        )
    if not config.allowed_hosts:
        yield Warning(
            f"{where}: a member may advertise any host, and connections go there.",
            hint="Set patroni_allowed_hosts to the names or networks of the cluster's servers.",
            id="patroni.W021",
        )
    plain = [name for name, urls in (("patroni_urls", config.urls), ("patroni_etcd", config.etcd)) if _lacks_tls(urls)]
    if plain:
        has_password = config.password is not None or config.etcd_password is not None
        yield Warning(
            f"{where}: {' and '.join(plain)} without TLS{', a password included' if has_password else ''}: whoever is "
            "on the way can read it and name another primary.",
            hint="Use https:// with patroni_ca, which Patroni serves with restapi.certfile.",
            id="patroni.W022",
        )


def _lacks_tls(urls: Sequence[str]) -> bool:
    return any(url.startswith("http:") for url in urls)


def check_entry(name: str, entry: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """Check one entry by itself.

    :param name: its alias
    :param entry: its settings
    """
    where = f"DATABASES[{name!r}]"
    options = entry.get("OPTIONS") or {}
    try:
        config = PatroniConfig.from_options(options)
    except ConfigError as exc:
        missing = exc.setting == "patroni_urls" and not options.get("patroni_urls")
        yield Error(f"{where}['OPTIONS']: {exc}", id="patroni.E002" if missing else "patroni.E001")
    else:
        if not config.target.writes and entry.get("ATOMIC_REQUESTS"):
            yield Warning(
                f"{where} reads from replicas and has ATOMIC_REQUESTS: every view holds a transaction on it.",
                hint="Set ATOMIC_REQUESTS on the alias that writes alone.",
                id="patroni.W005",
            )
    for option in sorted(ADDRESSING & options.keys()):
        yield Error(
            f"{where}['OPTIONS'][{option!r}] contradicts discovery: Patroni tells which server to connect to.",
            hint="Remove it. patroni_target says what the alias is for, patroni_port which port to use.",
            id="patroni.E003",
        )
    if options.get("pool") and entry.get("CONN_MAX_AGE", 0) != 0:
        yield Error(f"{where}: OPTIONS['pool'] excludes CONN_MAX_AGE.", id="patroni.E004")
    for setting in ("HOST", "PORT"):
        if entry.get(setting):
            yield Warning(
                f"{where}[{setting!r}] is ignored: Patroni tells which server to connect to.",
                hint=f"Remove {setting}. Where members advertise addresses that are not reachable from here, set "
                "patroni_address_map or patroni_port.",
                id="patroni.W001",
            )
    if entry.get("CONN_HEALTH_CHECKS"):
        yield Warning(
            f"{where}['CONN_HEALTH_CHECKS'] costs a round trip in every request.",
            hint="Remove it: connections are checked before every statement outside a transaction, without one.",
            id="patroni.W003",
        )


def check_aliases(aliases: Sequence[Alias], routers: Sequence[object]) -> Iterator[CheckMessage]:
    """Check what entries say together.

    :param aliases: those whose settings are right by themselves
    :param routers: the routers in use
    """
    partners = pair(aliases)
    known = {alias.name: alias for alias in aliases}
    for reader, primary in partners.items():
        if known[reader].mirror is None:
            yield Warning(
                f"DATABASES[{reader!r}] reads what {primary!r} writes, but is not its mirror in tests.",
                hint=f'Set "TEST": {{"MIRROR": {primary!r}}}, or use django_backend.config.databases().',
                id="patroni.W002",
            )
    if partners and not any(isinstance(router, PrimaryReplicaRouter) for router in routers):
        yield Warning(
            f"DATABASES[{next(iter(partners))!r}] reads from replicas, but no router sends reads there.",
            hint='Add "django_backend.router.PrimaryReplicaRouter" to DATABASE_ROUTERS.',
            id="patroni.W004",
        )


def check_requests(atomic: bool) -> Iterator[CheckMessage]:  # noqa: FBT001 - one fact
    """Check what the settings say of requests and commands.

    :param atomic: whether an alias with this engine has ATOMIC_REQUESTS
    """
    deadline = getattr(settings, "PATRONI_REQUEST_DEADLINE", None)
    is_number = isinstance(deadline, (int, float)) and not isinstance(deadline, bool)
    if deadline is not None and not (is_number and 0 < deadline <= LONGEST):
        problem = f"PATRONI_REQUEST_DEADLINE is {quoted(deadline)}: no number of seconds above 0, up to a day."
        yield Error(problem, id="patroni.E005")
    wait = getattr(settings, "PATRONI_COMMAND_WAIT", None)
    is_number = isinstance(wait, (int, float)) and not isinstance(wait, bool)
    if wait is not None and not (is_number and 0 <= wait <= LONGEST):
        problem = f"PATRONI_COMMAND_WAIT is {quoted(wait)}: neither a number of seconds, up to a day, nor None."
        yield Error(problem, id="patroni.E007")
    used = _MIDDLEWARE in settings.MIDDLEWARE
    if used and settings.MIDDLEWARE[0] != _MIDDLEWARE:
        yield Warning(
            f"{_MIDDLEWARE} is not the first in MIDDLEWARE: what comes before it does not run again with a request.",
            hint="Move it to the top.",
            id="patroni.W006",
        )
    if getattr(settings, "PATRONI_EXACTLY_ONCE", False) and not (used and atomic):
        missing = "no alias with this engine has ATOMIC_REQUESTS" if used else f"MIDDLEWARE lacks {_MIDDLEWARE}"
        yield Warning(
            f"PATRONI_EXACTLY_ONCE has no effect: {missing}.",
            hint="It is about the transactions of ATOMIC_REQUESTS, which the middleware runs again.",
            id="patroni.W007",
        )


def check_reads(partners: Mapping[str, str], routers: Sequence[object]) -> Iterator[CheckMessage]:
    """Check what the settings say of reading what was written.

    :param partners: the primary's alias by each alias that reads from its replicas
    :param routers: the routers in use
    """
    for setting in ("PATRONI_CAUSAL_COOKIE", "PATRONI_CAUSAL_HEADER"):
        value = getattr(settings, setting, None)
        if value is not None and not (isinstance(value, str) and value):
            yield Error(f"{setting} is {value!r}: neither a name nor None.", id="patroni.E006")
    max_age = getattr(settings, "PATRONI_CAUSAL_MAX_AGE", 1)
    if not isinstance(max_age, int) or isinstance(max_age, bool) or max_age < 1:
        problem = f"PATRONI_CAUSAL_MAX_AGE is {max_age!r}: no whole number of seconds above 0."
        yield Error(problem, id="patroni.E006")
    routed = any(isinstance(router, PrimaryReplicaRouter) for router in routers)
    used = list(settings.MIDDLEWARE)
    if _CAUSAL_MIDDLEWARE not in used:
        if partners and routed and used:
            yield Warning(
                "Reads go to replicas, and a request, or the next one of the same user, may miss what it has written.",
                hint=f'Add "{_CAUSAL_MIDDLEWARE}" to MIDDLEWARE, before what writes (sessions).',
                id="patroni.W008",
            )
    elif _SESSIONS in used and used.index(_SESSIONS) < used.index(_CAUSAL_MIDDLEWARE):
        yield Warning(
            f"{_CAUSAL_MIDDLEWARE} comes after sessions: what these write has no causal token.",
            hint="Move it up.",
            id="patroni.W009",
        )
    elif not routed:
        yield Warning(
            f"{_CAUSAL_MIDDLEWARE} has no effect: no router asks for its tokens.",
            hint='Add "django_backend.router.PrimaryReplicaRouter" to DATABASE_ROUTERS.',
            id="patroni.W009",
        )


def _routers() -> list[object]:
    return [import_string(r)() if isinstance(r, str) else r for r in settings.DATABASE_ROUTERS]
