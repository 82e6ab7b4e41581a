"""deploy/ and .ci/run: what the linters say, and that the files agree with the settings and with each other."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import needs

from inbound.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"

Answering = Callable[[int], AbstractContextManager[int]]


def checked(*command: str) -> None:
    """Run a linter at the top of the repository; its words are the failure."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (INSTRUCTION, arguments), continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined)]


def last(instruction: str) -> str:
    """The arguments of the last such instruction: those of the image that runs."""
    return [rest for name, rest in instructions() if name == instruction][-1]


@pytest.fixture
def environment() -> dict[str, str]:
    """What the image sets."""
    return dict(part.split("=", 1) for part in shlex.split(last("ENV")))


@pytest.fixture
def service() -> dict[str, Any]:
    """The compose file's one service."""
    composed = yaml.safe_load(COMPOSE.read_text())
    assert list(composed["services"]) == ["inbound"]
    found: dict[str, Any] = composed["services"]["inbound"]
    return found


def healthcheck() -> list[str]:
    """The program that Docker runs in the image."""
    command: list[str] = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    return command


def test_hadolint_finds_nothing() -> None:
    checked(needs("hadolint"), "deploy/Dockerfile")


def test_the_compose_file_follows_the_compose_specification() -> None:
    checked(needs("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")


def test_ci_is_a_script_that_bash_can_read() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100, "not executable"
    checked(needs("bash"), "-n", str(script))


def test_ci_runs_the_commands_that_the_readme_gives() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    for command in ("pip install '.[dev]'", "pip install '.[dev,test]' && pytest"):
        assert command in script, f".ci/run lacks {command}"
        assert command in readme, f"README.md lacks {command}"


def test_the_image_sets_only_what_settings_reads(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours = {name.removeprefix("INBOUND_").lower() for name in environment if name.startswith("INBOUND_")}
    assert ours == {"listen", "http_listen", "data", "rules"}
    settings = Settings()
    assert [address.host for address in settings.listen] == ["0.0.0.0"]
    assert settings.http_listen.host == "0.0.0.0"
    assert {str(settings.listen[0].port), str(settings.http_listen.port)} == set(last("EXPOSE").split())
    assert str(settings.data) == last("VOLUME")


def test_the_image_runs_serve_as_a_numbered_user_and_stops_by_sigterm() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["inbound", "serve"]
    assert re.fullmatch(r"[1-9][0-9]{3,}:[1-9][0-9]{3,}", last("USER"))
    assert last("STOPSIGNAL") == "SIGTERM"


def test_the_build_copies_only_what_the_ignore_file_lets_through() -> None:
    let = {line[1:] for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}
    assert copied == let
    assert all((ROOT / source).exists() for source in copied)


def test_compose_fits_the_image(service: dict[str, Any], environment: dict[str, str]) -> None:
    smtp, http = (environment[name].rpartition(":")[2] for name in ("INBOUND_LISTEN", "INBOUND_HTTP_LISTEN"))
    assert service["ports"] == [f"25:{smtp}", f"127.0.0.1:{http}:{http}"]
    data, rules = service["volumes"]
    assert (data["type"], data["target"]) == ("volume", environment["INBOUND_DATA"])
    assert (rules["type"], rules["read_only"]) == ("bind", True)
    assert rules["target"] == str(Path(environment["INBOUND_RULES"]).parent)  # the folder: a mounted file never shows a rename over it
    assert service["healthcheck"]["test"] == ["CMD", *healthcheck()]
    ours = {name.removeprefix("INBOUND_").lower() for name in service["environment"] if name.startswith("INBOUND_")}
    assert ours <= set(Settings.model_fields)


def test_compose_passes_aws_access_through_and_holds_none(service: dict[str, Any]) -> None:
    aws = {name: value for name, value in service["environment"].items() if name.startswith("AWS_")}
    assert {"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"} <= set(aws)
    assert set(aws.values()) == {None}


def test_compose_gives_the_container_no_more_than_it_needs(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert int(service["stop_grace_period"].removesuffix("s")) > 30, "a stop drains within 30 s"


@pytest.fixture
def answering() -> Answering:
    """An HTTP server that answers every request with one status; gives its port."""

    @contextmanager
    def serve(status: int) -> Iterator[int]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/healthz" else 404)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield server.server_port
            server.shutdown()
            thread.join()

    return serve


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_the_health_check_asks_healthz_as_back_pressure_replaces_no_container(
        answering: Answering, monkeypatch: pytest.MonkeyPatch, status: int, healthy: bool) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    program, *arguments = healthcheck()
    with answering(status) as port:
        done = subprocess.run([needs(program), *(a.replace(":8025/", f":{port}/") for a in arguments)], capture_output=True, check=False)
    assert (done.returncode == 0) is healthy
