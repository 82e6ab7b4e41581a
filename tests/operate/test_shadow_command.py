"""`inbound shadow` with input that is wrong: one clear line, and the exit code that it has everywhere."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inbound.accept.spool.several import spool_folder
from inbound.accept.spool.sqlite import SqliteSpool
from inbound.deliver.shadow_schema import Report
from inbound.deliver.shadow_state import read_state, write_trouble
from inbound.operate import cli as package
from inbound.operate import shadow_report
from inbound.operate.cli.shadow import shadow

GOOD = 'RuleSets: {default: [{Name: a, Recipients: [example.com], Actions: [{S3Action: {BucketName: mail}}]}]}\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the spool of a service that ended, and a good candidate."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INBOUND_")]:
        monkeypatch.delenv(name)

    async def made() -> None:
        spool = SqliteSpool(spool_folder(tmp_path / "var", 1))
        await spool.start()
        await spool.stop()

    asyncio.run(made())
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(shadow, arguments)


def refused(result: Result, code: int, *words: str) -> None:
    assert (result.exit_code, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_without_a_candidate_it_says_how_to_begin(here: Path) -> None:
    told = run()
    assert (told.exit_code, told.stdout) == (0, "no candidate is tried; begin with: inbound shadow FILE\n")
    assert json.loads(run("--json").stdout)["state"] == "off"
    refused(run("stop"), 1, "no candidate is tried in var; begin with: inbound shadow FILE")
    refused(run("report"), 1, "no candidate was ever tried in var")


def test_a_file_that_is_no_candidate_begins_nothing(here: Path) -> None:
    refused(run("missing.yaml"), 2, "missing.yaml: no such file")
    refused(run("var"), 2, "var: is a directory")
    (here / "broken.yaml").write_text("RuleSets: [")
    refused(run("broken.yaml"), 1, "broken.yaml:2:1: not YAML")
    (here / "wrong.yaml").write_text(GOOD.replace("BucketName", "Bucket"))
    told = run("wrong.yaml")
    assert told.exit_code == 1
    assert all(line.startswith("wrong.yaml:1:") for line in told.stderr.splitlines())
    assert json.loads(run("--json").stdout)["state"] == "off"


def test_a_data_folder_that_is_none_or_anothers_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["good.yaml"], ["stop"], ["report"], []):
        refused(run(*arguments, "--data", "nowhere"), 2, "nowhere", "--data DIR")
    (here / "empty").mkdir()
    refused(run("good.yaml", "--data", "empty"), 2, "there is no spool in empty")
    assert not list((here / "empty").iterdir())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for arguments in (["good.yaml"], ["stop"]):
        refused(run(*arguments), 2, "the data folder var belongs to user", "run this as the service's user")
    assert not (here / "var" / "shadow.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("arguments", [["good.yaml"], ["stop"], ["report"], []])
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_user_gets_one_line(here: Path, arguments: list[str], mode: int) -> None:
    (here / "var").chmod(mode)
    here.chmod(0o755)
    (here / "var" / "shadow.json").write_text("{}")
    (here / "var" / "shadow.json").chmod(0o600)
    program = f"""
import os, sys
from inbound import settings
from inbound.accept.spool import several
from inbound.deliver import shadow_state
from inbound.operate import shadow_report
from inbound.operate.cli import main, queue, shadow
sys.argv = {["inbound", "shadow", *arguments]!r}
os.setuid(65534)
main()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True, text=True, check=False)
    assert (done.returncode in (1, 2), done.stdout, len(done.stderr.splitlines())) == (True, "", 1), done.stderr
    assert "shadow.json: Permission denied" in done.stderr or "belongs to user root, and you are nobody" in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "var/.shadow.json-x")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr(sys, "argv", ["inbound", "shadow", "good.yaml"])
    with pytest.raises(SystemExit) as ended:
        package.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "inbound: var/shadow.json: Permission denied\n"


def test_a_damaged_state_file_is_told_of_and_replaced(here: Path) -> None:
    assert run("good.yaml").exit_code == 0
    (here / "var" / "shadow.json").write_text("{")
    for arguments in ((), ("report",), ("stop",)):
        refused(run(*arguments), 1, "shadow.json is damaged: begin anew with inbound shadow FILE")
    assert run("good.yaml").exit_code == 0
    assert json.loads(run("--json").stdout)["state"] == "on"


def test_a_file_that_only_the_service_does_not_see_is_told_of(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under systemd's ProtectHome, in a container: it judges by what the file held when the command was given."""
    run("good.yaml")
    state = read_state(here / "var" / "shadow.json")
    assert state is not None
    write_trouble(here / "var" / "shadow.json", state.run, f"{state.file}: no such file")
    assert "says the service" not in run().stdout, "none runs"
    monkeypatch.setattr(shadow_report, "live", lambda _data: [1])
    assert f"\n{state.file}: no such file, says the service, which may not see what you see\n" in run().stdout
    (here / "good.yaml").write_text("RuleSets: [")
    assert f"\n{state.file}:2:1: not YAML" in run().stdout, "what both see is told as we see it now"


def test_options_are_for_what_they_are_for(here: Path) -> None:
    refused(run("good.yaml", "--revision", "x"), 2, "--revision is for inbound shadow report")
    run("good.yaml")
    refused(run("report", "--revision", "x"), 1, "no message was judged by revision x; there is none")
    told = run("report", "--examples", "-1")
    assert told.exit_code == 2


def test_a_candidate_that_lacks_a_certificate_here_is_warned_of_as_by_check(here: Path) -> None:
    (here / "tls.yaml").write_text("RuleSets:\n  default:\n    - {Name: a, Recipients: [example.com], TlsPolicy: Require, Actions: [{S3Action: "
                                   "{BucketName: mail}}]}\n")
    told = run("tls.yaml")
    assert told.exit_code == 0
    assert told.stderr.startswith("tls.yaml:3:")
    assert "warning: " in told.stderr


def test_the_schema_describes_every_key(here: Path) -> None:
    made = json.loads(run("--schema").stdout)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(made["properties"]) == set(Report.model_fields)
    run("good.yaml")
    Report.model_validate(json.loads(run("report", "--json").stdout))
