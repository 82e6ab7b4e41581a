"""What `--function` means and what the rules name, without any AWS."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from inbound.decide.rules import RuleSet
from inbound.operate.dev import FunctionSource, parse_function, queue_name, wanted
from inbound.operate.dev.functions import SAMPLE, bundle, by_name, sample


def rule_set(*actions: dict[str, object], enabled: bool = True) -> RuleSet:
    return RuleSet.model_validate({"name": "default", "rules": [{"Name": "r", "Enabled": enabled, "Actions": list(actions)}]})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("route.py", "route.js", "a:b.py", "notes.txt"):
        (folder / name).write_text("")
    return folder


def test_a_function_is_a_name_a_file_and_a_handler(here: Path) -> None:
    assert parse_function("route=route.py:handler") == FunctionSource("route", here / "route.py", "handler")
    assert parse_function("route=a:b.py:main").file == here / "a:b.py"


@pytest.mark.parametrize(("text", "says"), [
    ("route.py:handler", "write it as NAME=FILE:HANDLER"),
    ("route=route.py", "write it as NAME=FILE:HANDLER"),
    ("=route.py:handler", "write it as NAME=FILE:HANDLER"),
    ("route=route.py:", "write it as NAME=FILE:HANDLER"),
    ("route=notes.txt:handler", "neither Python (.py) nor JavaScript (.js, .mjs, .cjs)"),
    ("route=missing.py:handler", "there is no file missing.py"),
])
def test_what_is_wrong_with_a_function_is_said_in_one_line(here: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match="--function") as failure:
        parse_function(text)
    assert says in str(failure.value)
    assert "\n" not in str(failure.value)


def test_javascript_without_node_is_said_before_anything_starts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(ValueError, match=r"--function route=route\.js:handler: JavaScript needs Node\.js, and there is no `node` in PATH"):
        parse_function("route=route.js:handler")


def test_one_name_has_one_function(here: Path) -> None:
    with pytest.raises(ValueError, match=r"--function route: given twice, as route\.py:a and route\.py:b"):
        by_name([parse_function("route=route.py:a"), parse_function("route=route.py:b")])


def members(source: FunctionSource) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle(source))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_holds_the_sources_of_its_language_beside_the_file(here: Path) -> None:
    (here / "lib").mkdir()
    (here / "package.json").write_text("{}")
    assert set(members(parse_function("route=route.py:handler"))) == {"route.py", "a:b.py", "inbound_entry.py", "inbound_entry.json"}
    javascript = FunctionSource("route", here / "route.js", "handler")
    held = members(javascript)
    assert set(held) == {"route.js", "package.json", "inbound_entry.js", "inbound_entry.json"}
    assert json.loads(held["inbound_entry.json"]) == {"folder": str(here), "file": "route.js", "handler": "handler"}


def test_a_bundle_differs_just_when_the_code_does(here: Path) -> None:
    source = parse_function("route=route.py:handler")
    before = bundle(source)
    (here / "route.py").touch()
    assert bundle(source) == before
    (here / "a:b.py").write_text("x = 1")
    assert bundle(source) != before


def test_neighbours_too_large_stay_behind(here: Path) -> None:
    (here / "table.py").write_bytes(b"#" * 5_000_001)
    assert set(members(parse_function("route=route.py:handler"))) == {"route.py", "inbound_entry.py", "inbound_entry.json"}


def test_a_python_function_runs_from_its_copy_where_its_folder_is_not(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (here / "word.py").write_text("WORD = 'beside'")
    (here / "route.py").write_text("import word\ndef handler(event, context):\n    return word.WORD + event")
    elsewhere = moved(parse_function("route=route.py:handler"), tmp_path_factory.mktemp("elsewhere"))
    assert said(sys.executable, "-c", "import inbound_entry; print(inbound_entry.handler('!', None))", cwd=elsewhere) == "beside!"


@pytest.mark.skipif(shutil.which("node") is None and os.environ.get("CI") != "true", reason="there is no node in PATH")
def test_a_javascript_function_runs_from_its_copy_where_its_folder_is_not(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (here / "word.js").write_text("exports.word = 'beside';")
    (here / "route.js").write_text("const { word } = require('./word.js'); exports.handler = (event) => word + event;")
    elsewhere = moved(parse_function("route=route.js:handler"), tmp_path_factory.mktemp("elsewhere"))
    assert said("node", "-e", "require('./inbound_entry').handler('!', null, (error, answer) => console.log(error || answer))",
                cwd=elsewhere) == "beside!"


def moved(source: FunctionSource, folder: Path) -> Path:
    """The function's bundle unpacked on another machine: the folder it came from is gone."""
    for name, content in members(source).items():
        (folder / name).write_bytes(content)
    source.file.parent.rename(source.file.parent.with_name("gone"))
    return folder


def said(*command: str, cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def test_the_samples_are_in_the_package() -> None:
    assert sample("route").file == SAMPLE
    assert SAMPLE.is_file()
    assert SAMPLE.with_suffix(".js").is_file()


def test_wanted_is_each_thing_once_in_the_order_of_the_rules() -> None:
    topic, other = "arn:aws:sns:eu-west-1:123456789012:one", "arn:aws:sns:us-east-1:123456789012:two"
    function, key = "arn:aws:lambda:us-east-1:123456789012:function:f:live", "arn:aws:kms:us-east-1:123456789012:alias/mail"
    named = wanted(rule_set(
        {"S3Action": {"BucketName": "mail", "TopicArn": topic, "KmsKeyArn": key}}, {"SNSAction": {"TopicArn": other}},
        {"AddHeaderAction": {"HeaderName": "X-A", "HeaderValue": "1"}},
        {"LambdaAction": {"FunctionArn": function, "TopicArn": topic}}, {"S3Action": {"BucketName": "mail"}},
        {"StopAction": {"Scope": "RuleSet", "TopicArn": other}}))
    assert named.buckets == ("mail",)
    assert [arn.text for arn in named.arns] == [topic, other, function, key]
    assert (named.account, named.region) == ("123456789012", "eu-west-1")


def test_disabled_rules_want_nothing_and_defaults_hold() -> None:
    named = wanted(rule_set({"SNSAction": {"TopicArn": "arn:aws:sns:eu-west-1:123456789012:one"}}, enabled=False))
    assert (named.buckets, named.arns) == ((), ())
    assert (named.account, named.region) == ("000000000000", "us-east-1")


def test_a_queue_has_its_topics_name_within_the_limit_of_sqs() -> None:
    assert queue_name("inbound") == "inbound-dev"
    assert queue_name("t" * 76) == "t" * 76 + "-dev"
    long = {queue_name("t" * 200 + end) for end in "ab"}
    assert len(long) == 2
    assert all(len(name) == 80 and name.endswith("-dev") for name in long)
