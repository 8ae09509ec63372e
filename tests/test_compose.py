"""docker-compose.yml says what is there: its commands, options, ports and configuration keys exist."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from voicebus.common.config import load_config
from voicebus.workers.registry import installed

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def command(service: dict[str, Any]) -> list[str]:
    words = service["command"]
    return words[2].partition("exec ")[2].split() if words[:2] == ["sh", "-c"] else list(words)


def test_the_services_of_the_plan() -> None:
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert plain == {"keys", "broker", "edge", "kokoro"}
    assert {profile for service in SERVICES.values() for profile in service.get("profiles", ())} == {
        "xtts",
        "openvoice",
        "gpt-sovits",
    }


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "keys"])
def test_a_service_starts_a_program_of_ours_with_options_it_has(name: str) -> None:
    program, *arguments = command(SERVICES[name])
    module = {"vc-broker": "broker", "vc-worker": "workers", "vc-edge": "edge"}[program]
    from importlib import import_module

    cli = import_module(f"voicebus.{module}.cli")
    main = getattr(cli, "command", None) or cli.main
    if program == "vc-worker":
        assert arguments[0] in installed()
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(word in shown for word in arguments if word.startswith("--"))


@pytest.mark.parametrize("name", SERVICES)
def test_its_environment_is_a_configuration(name: str) -> None:
    load_config(None, dict(SERVICES[name].get("environment", {})))


def test_services_meet_at_the_broker_s_ports() -> None:
    environment = load_config(None, dict(SERVICES["broker"]["environment"])).broker
    frontend, backend = (
        endpoint.rpartition(":")[2] for endpoint in (environment.frontend, environment.backend)
    )
    for name, service in SERVICES.items():
        words = command(service)
        if "--broker" in words:
            wanted = frontend if name == "edge" else backend
            assert words[words.index("--broker") + 1] == f"tcp://broker:{wanted}"


def test_nothing_runs_as_root_or_is_published_beyond_this_machine() -> None:
    assert "USER voicebus" in (ROOT / "Dockerfile").read_text()
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:8080:8080"]
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in SERVICES.values())


def test_gpus_are_reserved_where_they_are_used() -> None:
    for name in ("xtts", "openvoice"):
        devices = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices[0]["capabilities"] == ["gpu"]


def docker_compose() -> list[str]:
    """Docker's plugin, or the program that Debian has."""
    plugin = ["docker", "compose"]
    if shutil.which("docker") and not subprocess.run([*plugin, "version"], capture_output=True).returncode:
        return plugin
    return ["docker-compose"]


@pytest.mark.edge
def test_docker_compose_accepts_it() -> None:
    for profiles in ("", "xtts,openvoice,gpt-sovits"):
        done = subprocess.run(
            [*docker_compose(), "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COMPOSE_PROFILES": profiles},
        )
        assert done.returncode == 0, done.stderr


def test_keys_are_made_first_and_each_service_has_its_own_alone(tmp_path: Path) -> None:
    """What the service `keys` runs, run here: in folders where its volumes would be."""
    keys = SERVICES["keys"]
    places = {volume.partition(":")[0]: volume.split(":")[1] for volume in keys["volumes"]}
    vc = f"{sys.executable} -m voicebus.client.cli"
    script = keys["command"][2].replace("vc ", f"{vc} ")
    for _ in range(2):  # every start of the whole makes sure of them
        subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, env=os.environ | keys["environment"])
    held = {
        volume: {file.name for file in tmp_path.joinpath(Path(place).relative_to("/srv/voicebus")).iterdir()}
        for volume, place in places.items()
    }
    assert held["keys-of-edge"] == {"client.key"}
    assert held["keys-of-workers"] == {"worker.key"}
    assert held["keys"] > {"allowed.json", "server.key", "admin.key"}
    image = (ROOT / "Dockerfile").read_text()
    assert all(place in image for place in places.values()), (
        "a volume is its user's only if the image has the folder"
    )


def test_every_service_of_the_bus_shows_a_key() -> None:
    wanted = {"broker": "keys", "edge": "keys-of-edge"}
    for name, service in SERVICES.items():
        if name != "keys":
            assert service["environment"]["VOICEBUS_SECURITY__KEYS"] == "keys"
            assert f"{wanted.get(name, 'keys-of-workers')}:/srv/voicebus/keys:ro" in service["volumes"]
    assert SERVICES["broker"]["depends_on"]["keys"]["condition"] == "service_completed_successfully"
