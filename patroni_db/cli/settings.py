"""The options that say where and how to ask Patroni, and the config they make.

Every option is a setting of :class:`~patroni_db.config.PatroniConfig`, checked there; an error is told in the
words the user used: the option's name, or the environment variable's.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, Final

import click

from patroni_db.cli.exits import SettingFailure
from patroni_db.config import ENV_API_URL, PREFIX, PatroniConfig
from patroni_db.errors import ConfigError
from patroni_db.escaping import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ENV_PASSWORD", "config_options", "setting"]

ENV_PASSWORD: Final = "PATRONI_PASSWORD"  # noqa: S105 - its name
_META: Final = "patroni_db.settings"
_URLS: Final = PREFIX + "urls"
_PASSWORD: Final = PREFIX + "password"


def setting(*names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds an option whose value goes into the command's config.

    :param names: click's declarations, with the setting's full name (``patroni_target``) as parameter name
    :param attributes: click's
    """
    return click.option(*names, expose_value=False, callback=_collect, **attributes)


def _option(name: str, setting_name: str, text: str, **attributes: Any) -> Callable[..., Callable[..., Any]]:
    variable = setting_name.upper()
    return setting(name, setting_name, envvar=variable, help=f"{text} [env: {variable}]", **attributes)


def _collect(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    settings: dict[str, Any] = context.meta.setdefault(_META, {})
    if value is not None and value != () and parameter.name is not None:
        settings[parameter.name] = ",".join(value) if parameter.name == _URLS else value
    return value


def _config(context: click.Context, defaults: Mapping[str, Any]) -> PatroniConfig:
    settings = {**defaults, **context.meta.get(_META, {})}
    password = os.environ.get(ENV_PASSWORD)
    if password:
        settings[_PASSWORD] = password
    try:
        return PatroniConfig.from_options(settings)
    except ConfigError as exc:
        problem = re.sub(rf"{PREFIX}\w+", lambda match: _spelled(context, match[0]), exc.problem)
        raise SettingFailure(plain(f"{_source(context, exc.setting)}: {problem}")) from exc


def _source(context: click.Context, setting_name: str) -> str:
    """Return what the user would change: the option given, or the environment variable that is set."""
    from_environment = context.get_parameter_source(setting_name) is click.core.ParameterSource.ENVIRONMENT
    if setting_name == _PASSWORD:
        return ENV_PASSWORD
    if setting_name == _URLS:
        given = context.meta.get(_META, {}).get(_URLS)
        return ENV_API_URL if not given and os.environ.get(ENV_API_URL) else "--url"
    return setting_name.upper() if from_environment else _spelled(context, setting_name)


def _spelled(context: click.Context, setting_name: str) -> str:
    if setting_name == _PASSWORD:
        return ENV_PASSWORD
    option = next((p for p in context.command.params if p.name == setting_name), None)
    return option.opts[0] if option else setting_name


_OPTIONS: Final = (
    setting(
        "--url",
        _URLS,
        multiple=True,
        metavar="URL",
        help=f"A REST API of Patroni, or several separated by commas; repeatable. [env: {ENV_API_URL}]",
    ),
    _option("--scope", "patroni_scope", "Refuse a cluster of another name.", metavar="NAME"),
    _option("--ca", "patroni_ca", "CA certificates of the APIs.", metavar="FILE"),
    _option("--cert", "patroni_cert", "Client certificate.", metavar="FILE"),
    _option("--key", "patroni_key", "Its key.", metavar="FILE"),
    _option("--api-user", "patroni_user", f"Basic auth; the password is read from {ENV_PASSWORD}.", metavar="NAME"),
    _option(
        "--allowed-hosts",
        "patroni_allowed_hosts",
        "Names, '*.suffixes' or networks that members must be in.",
        metavar="HOSTS",
    ),
    _option("--request-timeout", "patroni_timeout", "Seconds for one request; 2 by default.", metavar="SECONDS"),
    # No variable: in Kubernetes PATRONI_PORT is the address of a service called patroni.
    setting("--port", "patroni_port", metavar="PORT", help="Connect to this port on every member's host."),
    setting(
        "--address-map",
        "patroni_address_map",
        metavar="MAP",
        help="Where advertised addresses are reachable from here: 10.0.0.1:5432=localhost:5433,...",
    ),
)


def config_options(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options of the REST API and hands the command the finished ``config``.

    :param defaults: full names of settings, and their values where the user gives none
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_config(*arguments: Any, **keywords: Any) -> None:
            command(*arguments, config=_config(click.get_current_context(), defaults), **keywords)

        decorated: Callable[..., None] = with_config
        for option in reversed(_OPTIONS):
            decorated = option(decorated)
        return decorated

    return decorate
