from __future__ import annotations

import json

import pytest

from patroni_db.cluster.settings import ClusterSettings
from patroni_db.errors import ConfigError


@pytest.mark.parametrize(
    ("wish", "setting"),
    [
        ({"nodes": 0}, "nodes"),
        ({"nodes": 33}, "nodes"),
        ({"nodes": "3"}, "nodes"),
        ({"nodes": True}, "nodes"),
        ({"ttl": 19}, "ttl"),
        ({"loop_wait": 0}, "loop_wait"),
        ({"retry_timeout": 2}, "retry_timeout"),
        ({"primary_start_timeout": -1}, "primary_start_timeout"),
        ({"loop_wait": 10, "retry_timeout": 10}, "ttl"),
        ({"synchronous": "always"}, "synchronous"),
        ({"tags": {"n4": {"nofailover": True}}}, "tags"),
        ({"tags": {"pg1": {}}}, "tags"),
    ],
)
def test_a_wrong_setting_is_named(wish: dict[str, object], setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ClusterSettings(**wish)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.setting == setting


def test_settings_travel_as_json() -> None:
    settings = ClusterSettings(
        nodes=2, synchronous="quorum", parameters={"work_mem": "8MB"}, tags={"n2": {"nofailover": True}}
    )
    assert ClusterSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_what_the_caller_passed_can_change_without_effect() -> None:
    parameters = {"work_mem": "8MB"}
    settings = ClusterSettings(parameters=parameters)
    parameters["work_mem"] = "1MB"
    assert settings.parameters["work_mem"] == "8MB"
