"""The rules that `compose.yaml` keeps whatever is running; needs Compose, and no engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import chain, combinations
from typing import Any

import pytest

from containers.commands import run
from containers.stack import ONE_SHOT, OURS, ROOT

PROFILES = ("demo", "tools", "zookeeper")
BUNDLED = {"mongo", "mosquitto", "kafka", "zookeeper", "kafka-zookeeper", "mongo-express"}
# A password or token given otherwise than as the name of a file, or inside an address.
SECRET = re.compile(r"(?i)(password|token)(?!\w*_FILE)\w*=[^/]|://[^/]*:[^/]*@")
ENV_FILES = ((), ("--env-file", ".env.example"), ("--env-file", "deploy/zookeeper.env"))


def has_compose() -> bool:
    """Tell whether the Compose plugin is there; it needs no engine to check a file."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return asked.returncode == 0


pytestmark = pytest.mark.skipif(not has_compose(), reason="no `docker compose` (version 2)")


def config(*arguments: str) -> str:
    # An address where nothing listens shows that no engine is asked.
    nowhere = {"DOCKER_HOST": "unix:///nonexistent.sock", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return run(["docker", "compose", *arguments], cwd=ROOT, environment=nowhere).stdout


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Give all services of all profiles as Compose understands them."""
    return json.loads(config("--profile", "*", "config", "--format", "json"))


@pytest.fixture(scope="module")
def services(whole: dict[str, Any]) -> dict[str, Any]:
    """Give the services by name."""
    return whole["services"]


@pytest.mark.parametrize("env_file", ENV_FILES, ids=lambda given: "".join(given[1:]) or "none")
@pytest.mark.parametrize(
    "profiles",
    list(chain.from_iterable(combinations(PROFILES, count) for count in range(4))),
    ids=lambda given: "+".join(given) or "none",
)
def test_the_file_is_valid_with_every_profile_and_settings_file(profiles, env_file):
    named = [word for profile in profiles for word in ("--profile", profile)]
    config(*env_file, *named, "config", "--quiet")


def test_the_services_are_the_originals_and_a_plain_up_starts_no_extra(services):
    default = set(config("config", "--services").split())
    assert default == {*OURS, *ONE_SHOT, "mongo", "mosquitto", "kafka"}
    assert set(services) == default | BUNDLED | {"demo"}


def test_zookeeper_takes_the_place_of_kraft_with_one_settings_file():
    given = json.loads(config("--env-file", "deploy/zookeeper.env", "config", "--format", "json"))[
        "services"
    ]
    assert {"zookeeper", "kafka-zookeeper"} <= set(given)
    assert given["kafka"].get("scale", given["kafka"].get("deploy", {}).get("replicas")) == 0
    assert "--kafka-host=kafka-zookeeper" in given["secrets"]["command"]


def test_every_image_is_pinned_to_a_version(services):
    for name, service in services.items():
        _, _, tag = service["image"].partition(":")
        assert re.match(r"\d+\.\d+", tag), f"{name}: {service['image']}"


def test_our_services_share_one_image_and_only_one_builds_it(services):
    ours = {*OURS, *ONE_SHOT, "demo"}
    assert len({services[name]["image"] for name in ours}) == 1
    assert [name for name, service in services.items() if "build" in service] == ["secrets"]


def test_every_service_has_limits_and_rotated_logs(services):
    for name, service in services.items():
        assert 0 < int(service["mem_limit"]) <= 2 * 2**30, name
        assert service["logging"]["options"].keys() >= {"max-size", "max-file"}, name


def test_services_start_again_and_one_shots_do_not(services):
    for name, service in services.items():
        wanted = ("no", "on-failure") if name in ONE_SHOT else ("unless-stopped",)
        assert service["restart"].partition(":")[0] in wanted, name


def test_every_service_has_a_health_check_that_is_quick_at_the_start(services):
    for name, service in services.items():
        if name in ONE_SHOT:
            continue
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert check["start_interval"] in ("500ms", "1s", "2s"), name
        # A check that starves on two busy cores must not make a service unhealthy.
        assert check["timeout"] == "5s", name
        assert check["start_period"] == "3m0s", name


def test_everything_is_given_time_to_drain_before_it_is_killed(services):
    for name, service in services.items():
        if name not in ONE_SHOT:
            assert service["stop_grace_period"] not in ("", "0s"), name
    # Longer than the drain of our own services' lifecycle.
    assert services["server"]["stop_grace_period"] == "40s"


def test_host_ports_are_the_documented_ones_on_loopback(services):
    published = {}
    for name, service in services.items():
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
            published[int(port["published"])] = name
    assert published == {
        1883: "mosquitto",
        2181: "zookeeper",
        8081: "dashboard",
        8082: "mongo-express",
        9092: "kafka",
        9093: "kafka-zookeeper",
        27017: "mongo",
    }


def test_one_line_of_the_settings_opens_all_ports():
    opened = run(
        ["docker", "compose", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        environment={"BIND_ADDRESS": "0.0.0.0", "PATH": "/usr/local/bin:/usr/bin:/bin"},
    ).stdout
    for name, service in json.loads(opened)["services"].items():
        for port in service.get("ports", ()):
            assert port["host_ip"] == "0.0.0.0", name


def test_stores_and_streams_are_on_an_internal_network_and_sensors_are_not_on_it(whole, services):
    assert whole["networks"]["core"]["internal"]
    for name in ("kafka", "mongo", "zookeeper", "kafka-zookeeper"):
        assert set(services[name]["networks"]) < {"core", "ports", "outside"}, name
    for name in ("sensor", "demo", "mosquitto"):
        assert set(services[name]["networks"]) == {"sensors"}, name
    for name in ("ports", "outside"):
        options = whole["networks"][name]["driver_opts"]
        assert options == {"com.docker.network.bridge.enable_icc": "false"}
    assert services["secrets"]["network_mode"] == "none"


@pytest.mark.parametrize(
    ("asking", "answering"),
    [
        *(("setup", name) for name in ("mongo", "kafka", "kafka-zookeeper")),
        *(("server", name) for name in ("mongo", "kafka", "kafka-zookeeper", "mosquitto")),
        *(("dashboard", name) for name in ("mongo", "kafka", "kafka-zookeeper")),
        *(("model_analysis", name) for name in ("kafka", "kafka-zookeeper")),
        *(("sensor", "mosquitto"), ("demo", "mosquitto")),
        *(("mongo-express", "mongo"), ("kafka-zookeeper", "zookeeper")),
    ],
)
def test_who_asks_shares_one_network_with_who_answers(services, asking, answering):
    # On a second one the name would stand for another address, where nobody lets it in.
    shared = set(services[asking]["networks"]) & set(services[answering]["networks"])
    assert len(shared) == 1


def test_no_secret_is_in_the_environment_or_the_command(services):
    for name, service in services.items():
        given = {key: str(value) for key, value in (service.get("environment") or {}).items()}
        words = [*(service.get("command") or ()), *(service.get("entrypoint") or ())]
        words += [f"{key}={value}" for key, value in given.items()]
        suspicious = [word for word in words if SECRET.search(word)]
        assert suspicious == [], name


def test_every_service_sees_only_its_own_secrets_and_none_of_them_writes(services):
    for name, service in services.items():
        mounts = [m for m in service["volumes"] if m.get("source") == "secrets"]
        if name == "secrets":
            continue
        assert len(mounts) == 1, name
        assert mounts[0]["read_only"], name
        folder = {"demo": "sensor", "kafka-zookeeper": "kafka"}.get(name, name)
        assert mounts[0]["volume"]["subpath"] == folder, name


def test_our_containers_have_no_rights_to_speak_of(services):
    for name in (*OURS, "setup", "demo", "secrets"):
        service = services[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == ("0:0" if name == "secrets" else "10001:10001"), name
        assert "privileged" not in service, name
    allowed = {"CHOWN", "DAC_OVERRIDE", "FOWNER"}
    assert set(services["secrets"]["cap_add"]) == allowed


def test_the_servers_have_only_the_rights_their_images_need(services):
    for name in BUNDLED:
        assert services[name]["cap_drop"] == ["ALL"], name
        assert services[name]["security_opt"] == ["no-new-privileges:true"], name
        assert set(services[name].get("cap_add", ())) <= {
            *("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"),
        }, name


def test_starting_waits_for_health_and_for_the_one_shots(services):
    def needs(name: str) -> dict[str, str]:
        return {other: at["condition"] for other, at in services[name]["depends_on"].items()}

    done, healthy = "service_completed_successfully", "service_healthy"
    assert needs("setup").items() >= {("secrets", done), ("mongo", healthy), ("kafka", healthy)}
    for name in ("server", "model_analysis", "dashboard", "mongo-express"):
        assert needs(name)["setup"] == done, name
    assert needs("sensor") == {"mosquitto": healthy, "server": healthy}


def test_every_data_folder_is_a_named_volume(whole, services):
    for name, folder in {
        "mongo": "/data/db",
        "kafka": "/var/lib/kafka/data",
        "kafka-zookeeper": "/var/lib/kafka/data",
        "mosquitto": "/mosquitto/data",
        "zookeeper": "/data",
        "sensor": "/var/lib/matchday",
    }.items():
        mounts = {m["target"]: m for m in services[name]["volumes"]}
        assert mounts[folder]["type"] == "volume", name
        assert mounts[folder]["source"] in whole["volumes"], name


def test_the_example_settings_show_the_defaults():
    plain = config("--profile", "*", "config")
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    # Files of one's own have no default to show.
    shown = re.sub(
        r"(?m)^#(?=[A-Z_]+=)(?!STREAM_URL|STORE_URL|KAFKA_SCALE|MONGO_SCALE)", "", example
    )
    settings = dict(
        line.split("=", 1) for line in shown.splitlines() if re.match(r"[A-Z_]+=", line)
    )
    with_all = run(
        ["docker", "compose", "--profile", "*", "config"],
        cwd=ROOT,
        environment={**settings, "PATH": "/usr/local/bin:/usr/bin:/bin"},
    ).stdout
    assert with_all == plain


def test_the_example_settings_name_every_variable_of_the_file():
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))
    named = set(
        re.findall(r"(?m)^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"))
    )
    internal = {"KAFKA_HOST", "KAFKA_ZOOKEEPER_PORT"}  # deploy/zookeeper.env sets them
    assert used - internal == named
