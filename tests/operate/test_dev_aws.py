"""The local AWS of `inbound dev`, as it really runs: ministack in a child, functions in children of that.

All of it runs in an environment that would lead astray whoever looked at it: a user's profile, keys, endpoints and proxies.
"""

import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import pytest_asyncio

from inbound.decide.rules import RuleSet
from inbound.operate.dev import FunctionSource, LocalAws, LocalAwsError, Provision, ProvisionError, local_aws, parse_function, wanted
from inbound.operate.dev.functions import SAMPLE

IS_CI = os.environ.get("CI") == "true"
HAS_MINISTACK = importlib.util.find_spec("ministack") is not None
HAS_NODE = shutil.which("node") is not None

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not HAS_MINISTACK and not IS_CI, reason="ministack is not installed (extra `dev`)"),
]
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
needs_node = pytest.mark.skipif(not HAS_NODE and not IS_CI, reason="there is no node in PATH")

ACCOUNT = "123456789012"
TOPIC = f"arn:aws:sns:us-east-1:{ACCOUNT}:inbound"
TOPIC_ELSEWHERE = f"arn:aws:sns:eu-west-1:{ACCOUNT}:inbound"
MESSAGE_ID = "o3vrnil0e2ic28trm7dfhrc2v0clambda4nbp0g1"

PYTHON_FUNCTION = """
    import os, sys
    import boto3, click
    import beside

    s3 = boto3.client("s3")

    def handler(event, context):
        key = "support/" + event["Records"][0]["ses"]["mail"]["messageId"]
        content = s3.get_object(Bucket="mail", Key=key)["Body"].read()
        s3.put_object(Bucket="mail", Key="read/" + context.aws_request_id, Body=content.upper())
        return {"wrote": "read/" + context.aws_request_id, "prefix": sys.prefix, "click": click.__file__, "beside": beside.WORD,
                "environment": dict(os.environ), "here": os.getcwd()}
"""
JAVASCRIPT_FUNCTION = """
    const beside = require("./beside.js");
    exports.handler = async (event) => ({
      disposition: beside.word,
      id: event.Records[0].ses.mail.messageId,
      endpoint: process.env.AWS_ENDPOINT_URL,
    });
"""
MODULE_FUNCTION = """
    export const handler = (event, context, callback) => callback(null, { disposition: "STOP_RULE" });
"""


def function_arn(name: str, region: str = "us-east-1", account: str = ACCOUNT) -> str:
    return f"arn:aws:lambda:{region}:{account}:function:{name}"


def rule_set(*actions: dict[str, object]) -> RuleSet:
    return RuleSet.model_validate({"name": "default", "rules": [{"Name": "r", "Actions": list(actions)}]})


RULES = rule_set(
    {"S3Action": {"BucketName": "mail", "ObjectKeyPrefix": "support/", "TopicArn": TOPIC}},
    {"SNSAction": {"TopicArn": TOPIC_ELSEWHERE}},
    {"LambdaAction": {"FunctionArn": function_arn("sampled")}},
    {"LambdaAction": {"FunctionArn": function_arn("read:live")}},
    {"LambdaAction": {"FunctionArn": function_arn("script:7")}},
    {"LambdaAction": {"FunctionArn": function_arn("module")}},
    {"LambdaAction": {"FunctionArn": function_arn("copied")}},
    {"S3Action": {"BucketName": "mail", "KmsKeyArn": f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/mail"}},
)
EVENT = {"Records": [{"eventSource": "aws:ses", "eventVersion": "1.0", "ses": {"mail": {"messageId": MESSAGE_ID}, "receipt": {}}}]}


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


@pytest.fixture(scope="module")
def astray() -> Iterator[None]:
    """A user's own AWS and a proxy, none of which may be used."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_PROFILE": "not-there", "AWS_ACCESS_KEY_ID": "AKIAUSERUSERUSERUSER", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "token", "AWS_REGION": "ap-south-1", "AWS_DEFAULT_REGION": "ap-south-1",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_USE_FIPS_ENDPOINT": "true",
            "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9",
            "NO_PROXY": "intra.example", "no_proxy": "intra.example",
            "MINISTACK_ACCOUNT_ID": "999999999999", "IOT_MTLS_ENABLED": "1", "USE_SSL": "1", "S3_PERSIST": "0",
        }.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    write(folder / "read.py", PYTHON_FUNCTION)
    write(folder / "beside.py", "WORD = 'first'\n")
    write(folder / "script.js", JAVASCRIPT_FUNCTION)
    write(folder / "beside.js", "exports.word = 'CONTINUE';\n")
    write(folder / "module.mjs", MODULE_FUNCTION)
    return folder


@functools.cache
def session() -> Any:
    from inbound.operate.dev.session import dev_session

    return dev_session("us-east-1")


@functools.cache
def client(endpoint: str, service: str, region: str) -> Any:
    from botocore.config import Config

    from inbound.operate.dev.session import NO_PROXIES

    return session().client(service, region_name=region, endpoint_url=endpoint, config=Config(proxies=NO_PROXIES))


class Local:
    """A running local AWS with all that RULES name in it, and clients for it."""

    def __init__(self, aws: LocalAws, functions: Sequence[FunctionSource] = ()) -> None:
        self.aws, self.functions = aws, functions
        self.provision = Provision(endpoint=aws.endpoint, functions=functions)
        self.lines: list[str] = []

    def client(self, service: str, region: str = "us-east-1") -> Any:
        return client(self.aws.endpoint, service, region)

    def invoke(self, name: str, **more: str) -> Any:
        answer = self.client("lambda").invoke(FunctionName=function_arn(name), Payload=json.dumps(EVENT), **more)
        payload = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, payload
        return payload

    def received(self, queue: str, region: str = "us-east-1") -> list[str]:
        sqs = self.client("sqs", region)
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages", [])
        return [message["Body"] for message in messages]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(astray: None, code: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Local]:
    named = wanted(RULES)
    aws = LocalAws(folder=tmp_path_factory.mktemp("aws") / "new", port=0, account=named.account, region=named.region)
    await aws.start()
    try:
        functions = [f"read={code}/read.py:handler"]
        functions += [f"script={code}/script.js:handler", f"module={code}/module.mjs:handler",
                      f"copied={SAMPLE.with_suffix('.js')}:handler"] if HAS_NODE else []
        running = Local(aws, [parse_function(text) for text in functions])
        running.lines = await running.provision.ensure(RULES)
        yield running
    finally:
        await aws.stop()


async def test_what_the_rules_name_is_created_and_told(local: Local) -> None:
    sample = "sample: logs the event, answers CONTINUE"
    script, module, copied = ("script.js:handler", "module.mjs:handler", "function.js:handler") if HAS_NODE else [sample] * 3
    assert local.lines == [
        "created bucket mail",
        "created topic inbound, with queue inbound-dev subscribed to it",
        "created topic inbound, with queue inbound-dev subscribed to it",
        "created KMS key alias/mail",
        f"created function sampled ({sample})",
        "created function read (read.py:handler)",
        "created function read:live, which is always the newest code",
        f"created function script ({script})",
        "created function script:7, which is always the newest code",
        f"created function module ({module})",
        f"created function copied ({copied})",
    ]


async def test_a_second_time_there_is_nothing_to_do(local: Local) -> None:
    sns = local.client("sns")
    subscriptions = sns.list_subscriptions()["Subscriptions"]
    assert await local.provision.ensure(RULES) == []
    assert await Provision(endpoint=local.aws.endpoint, functions=local.functions).ensure(RULES) == []
    assert sns.list_subscriptions()["Subscriptions"] == subscriptions


async def test_a_topic_publishes_to_the_queue_of_its_region_in_the_envelope_of_sns(local: Local) -> None:
    for topic, region in ((TOPIC, "us-east-1"), (TOPIC_ELSEWHERE, "eu-west-1")):
        local.client("sns", region).publish(TopicArn=topic, Message=f"for {region}", Subject="Amazon SES Email Receipt Notification")
        envelope = json.loads(local.received("inbound-dev", region)[-1])
        assert (envelope["Type"], envelope["TopicArn"], envelope["Message"]) == ("Notification", topic, f"for {region}")
        assert envelope["Subject"] == "Amazon SES Email Receipt Notification"


async def test_a_function_nobody_gave_code_for_answers_continue_and_logs_the_event(local: Local) -> None:
    assert local.invoke("sampled") == {"disposition": "CONTINUE"}
    assert json.dumps(EVENT) in local.aws.log.read_text()


async def test_a_python_function_runs_on_this_interpreter_and_reaches_s3_by_itself(local: Local, code: Path) -> None:
    s3 = local.client("s3")
    s3.put_object(Bucket="mail", Key=f"support/{MESSAGE_ID}", Body=b"subject: hello\r\n")
    answer = local.invoke("read:live")
    assert s3.get_object(Bucket="mail", Key=answer["wrote"])["Body"].read() == b"SUBJECT: HELLO\r\n"
    assert answer["prefix"] == sys.prefix
    assert answer["click"] == importlib.util.find_spec("click").origin  # type: ignore[union-attr]
    assert answer["here"] == str(code)


async def test_a_function_sees_test_credentials_and_nothing_of_the_users_aws(local: Local) -> None:
    local.client("s3").put_object(Bucket="mail", Key=f"support/{MESSAGE_ID}", Body=b"x")
    seen = local.invoke("read")["environment"]
    assert seen["AWS_ENDPOINT_URL"] == local.aws.endpoint
    assert seen["AWS_REGION"] == seen["AWS_DEFAULT_REGION"] == "us-east-1"
    assert seen["AWS_SECRET_ACCESS_KEY"] == "test"
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_USE_FIPS_ENDPOINT"} & seen.keys()
    assert not any("USER" in value or value == "token" for name, value in seen.items() if name.startswith("AWS_"))
    assert seen["NO_PROXY"] == seen["no_proxy"] == "intra.example,127.0.0.1,localhost,::1"


@needs_node
async def test_javascript_functions_run(local: Local) -> None:
    assert local.invoke("script") == {"disposition": "CONTINUE", "id": MESSAGE_ID, "endpoint": local.aws.endpoint}
    assert local.invoke("script:7")["disposition"] == "CONTINUE"
    assert local.invoke("module") == {"disposition": "STOP_RULE"}
    assert local.invoke("copied") == {"disposition": "CONTINUE"}


async def test_changed_code_is_in_place_without_a_reload(local: Local, code: Path) -> None:
    local.client("s3").put_object(Bucket="mail", Key=f"support/{MESSAGE_ID}", Body=b"x")
    assert local.invoke("read")["beside"] == "first"
    changes = local.provision.follow()
    told = asyncio.ensure_future(anext(changes))
    while not told.done():  # the watch begins at some time; each try changes the file anew
        write(code / "beside.py", f"WORD = 'second'\nTIME = {asyncio.get_running_loop().time()}\n")
        await asyncio.wait([told], timeout=0.5)
    await changes.aclose()
    assert told.result() == ["updated function read (read.py:handler)"]
    assert local.invoke("read")["beside"] == "second"
    write(code / "beside.py", "WORD = 'first'\n")
    assert await local.provision.ensure(RULES) == ["updated function read (read.py:handler)"]
    assert local.invoke("read:live")["beside"] == "first"


async def test_what_cannot_be_created_is_said_once_and_keeps_nothing_else_from_it(local: Local) -> None:
    rules = rule_set(
        {"S3Action": {"BucketName": "Not_A_Bucket"}},
        {"S3Action": {"BucketName": "another", "KmsKeyArn": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"}},
        {"SNSAction": {"TopicArn": "arn:aws:sns:us-east-1:111122223333:theirs"}},
        {"LambdaAction": {"FunctionArn": function_arn("theirs", account="111122223333")}},
        {"SNSAction": {"TopicArn": "arn:aws-cn:sns:cn-north-1:123456789012:inbound"}},
    )
    provision = Provision(endpoint=local.aws.endpoint, functions=[parse_function(f"unnamed={__file__}:handler")])
    lines = await provision.ensure(rules)
    assert lines[0] == (
        f"rules.yaml names account 111122223333, but the AWS at {local.aws.endpoint} is account {ACCOUNT}: "
        f"what is named there cannot work; write {ACCOUNT} in those ARNs")
    assert lines[1].startswith("cannot create bucket Not_A_Bucket: ")
    assert lines[2] == "created bucket another"
    assert "can only create arn:aws:sns:cn-north-1:123456789012:inbound" in lines[3]
    assert "AWS chooses the ids of keys; name an alias" in lines[4]
    assert lines[5] == "--function unnamed: no enabled rule names a function unnamed"
    assert len(lines) == 6
    assert await provision.ensure(rules) == []


@needs_proc
async def test_nothing_listens_but_one_port_of_loopback(local: Local) -> None:
    local.invoke("sampled")
    port = int(local.aws.endpoint.rpartition(":")[2])
    assert local.aws._process is not None
    assert listening(session_of(local.aws._process.pid)) == {("0100007F", port)}


async def test_a_web_page_gets_no_answer(local: Local) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{local.aws.endpoint}/2015-03-31/functions", method="POST", headers={"Origin": "https://evil.example"})
    with pytest.raises(HTTPError) as refused:
        direct.open(request, data=b"{}")
    assert refused.value.code == 403
    refused.value.close()


async def test_a_port_in_use_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalAwsError) as failure:
            await LocalAws(folder=tmp_path, port=port).start()
    assert str(failure.value) == (
        f"127.0.0.1:{port} is in use: choose another port for the local AWS with --aws HOST:PORT, "
        f"or use what runs there with --aws http://127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "::1", "example.com"])
async def test_only_loopback_is_served(tmp_path: Path, address: str) -> None:
    with pytest.raises(LocalAwsError, match=r"its address must be of 127\.0\.0\.0/8"):
        await LocalAws(folder=tmp_path, address=address, port=0).start()


async def test_one_folder_serves_one_at_a_time(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_aws, "_LOCK_LIMIT", 0.0)
    with pytest.raises(LocalAwsError, match=r"another inbound dev uses .*: choose another folder with --data DIR"):
        await LocalAws(folder=local.aws.log.parent, port=0).start()


async def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalAwsError, match=r"the local AWS cannot use .*file/aws: Not a directory"):
        await LocalAws(folder=tmp_path / "file" / "aws", port=0).start()


async def test_without_ministack_the_way_to_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocalAwsError, match=r"pip install 'inbound-mx\[dev\]'"):
        await LocalAws(folder=tmp_path, port=0).start()


async def test_a_child_that_ends_at_once_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_aws, "CHILD", write(tmp_path / "child.py", "raise SystemExit('no state for you\\n')"))
    with pytest.raises(LocalAwsError) as failure:
        await LocalAws(folder=tmp_path / "aws", port=0).start()
    assert str(failure.value) == f"the local AWS ended: no state for you (its log: {tmp_path}/aws/ministack.log)"


async def test_the_last_words_of_a_child_that_said_a_whole_event_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_aws, "CHILD", write(tmp_path / "child.py", "print('{' + 'x' * 5000)"))
    with pytest.raises(LocalAwsError) as failure:
        await LocalAws(folder=tmp_path / "aws", port=0).start()
    assert str(failure.value) == f"the local AWS ended: {{{'x' * 199}… (its log: {tmp_path}/aws/ministack.log)"


async def test_nothing_at_the_endpoint_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ProvisionError, match=f"no AWS answers at {endpoint}"):
            await Provision(endpoint=endpoint).ensure(RULES)


async def test_objects_and_queued_messages_outlive_a_restart(astray: None, tmp_path: Path) -> None:
    rules = rule_set({"S3Action": {"BucketName": "mail", "TopicArn": TOPIC}})

    def published(local: Local) -> list[str]:
        local.client("sns").publish(TopicArn=TOPIC, Message=local.aws.endpoint)
        return [json.loads(body)["Message"] for body in local.received("inbound-dev")]

    async with running(tmp_path, 0) as first:
        await first.provision.ensure(rules)
        first.client("s3").put_object(Bucket="mail", Key="kept", Body=b"kept")
        published(first)

    async with running(tmp_path, int(first.aws.endpoint.rpartition(":")[2])) as second:
        assert await second.provision.ensure(rules) == []
        assert second.client("s3").get_object(Bucket="mail", Key="kept")["Body"].read() == b"kept"
        assert published(second) == [first.aws.endpoint] * 2

    async with running(tmp_path, 0) as elsewhere:  # URLs of queues hold the port
        await elsewhere.provision.ensure(rules)
        assert published(elsewhere) == [elsewhere.aws.endpoint]
        (url,) = elsewhere.client("sqs").list_queues()["QueueUrls"]
        assert url.startswith(elsewhere.aws.endpoint)

        await elsewhere.aws.use_account("210987654321")
        theirs = rule_set({"SNSAction": {"TopicArn": "arn:aws:sns:us-east-1:210987654321:theirs"}})
        assert await elsewhere.provision.ensure(theirs) == ["created topic theirs, with queue theirs-dev subscribed to it"]


@contextlib.asynccontextmanager
async def running(folder: Path, port: int) -> AsyncIterator[Local]:
    aws = LocalAws(folder=folder, port=port, account=ACCOUNT)
    await aws.start()
    try:
        yield Local(aws)
    finally:
        await aws.stop()


async def test_a_child_that_ends_later_is_told(astray: None, tmp_path: Path) -> None:
    aws = LocalAws(folder=tmp_path, port=0)
    await aws.start()
    try:
        told = asyncio.ensure_future(aws.ended())
        assert aws._process is not None
        aws._process.kill()
        assert str(aws.log) in await asyncio.wait_for(told, 10)
    finally:
        await aws.stop()


PARENT = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from inbound.decide.rules import RuleSet
    from inbound.operate.dev import FunctionSource, LocalAws, Provision, parse_function
    from inbound.operate.dev.session import NO_PROXIES, dev_session
    from botocore.config import Config

    async def main(folder):
        aws = LocalAws(folder=Path(folder) / "aws", port=0)
        await aws.start()
        arn = "arn:aws:lambda:us-east-1:000000000000:function:busy"
        rules = RuleSet.model_validate({"name": "d", "rules": [{"Name": "r", "Actions": [{"LambdaAction": {"FunctionArn": arn}}]}]})
        await Provision(endpoint=aws.endpoint, functions=[parse_function(f"busy={folder}/busy.py:handler")]).ensure(rules)
        client = dev_session("us-east-1").client("lambda", endpoint_url=aws.endpoint, config=Config(proxies=NO_PROXIES))
        client.invoke(FunctionName=arn, InvocationType="Event", Payload=b"{}")
        print(aws._process.pid, aws.endpoint.rpartition(":")[2], flush=True)
        if os.fork() == 0:  # a worker that holds all that its parent held
            signal.pause()
        await asyncio.Event().wait()

    asyncio.run(main(sys.argv[1]))
"""
BUSY = """
    import os, time

    def handler(event, context):
        with open("began", "w") as fifo:
            fifo.write(str(os.getpid()))
        time.sleep(600)
"""


@needs_proc
async def test_all_of_it_is_gone_when_its_parent_is_killed_and_the_next_takes_its_place(astray: None, tmp_path: Path) -> None:
    write(tmp_path / "busy.py", BUSY)
    os.mkfifo(tmp_path / "began")
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path), stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert parent.stdout is not None
        child, port = map(int, (await parent.stdout.readline()).split())
        function = int(await asyncio.to_thread((tmp_path / "began").read_text))
        assert set(session_of(child)) == {child, function}
        ends = [os.pidfd_open(pid) for pid in (child, function)]
        parent.send_signal(signal.SIGKILL)
        async with running(tmp_path / "aws", port):
            await asyncio.to_thread(wait_for, ends)
            assert session_of(child) == []
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        await parent.wait()


def wait_for(ends: list[int]) -> None:
    """Until the processes of these pidfds have ended; fails after ten seconds."""
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    left = set(ends)
    while left:
        ended = poll.poll(10_000)
        assert ended, "still there ten seconds after its parent was killed"
        for end, _ in ended:
            poll.unregister(end)
            os.close(end)
            left.discard(end)


def session_of(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def listening(processes: list[int]) -> set[tuple[str, int]]:
    """The address (as /proc/net writes it) and port of every TCP socket that listens and every UDP socket, of these processes."""
    inodes = {link.readlink().name for pid in processes for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and f"socket:[{fields[9]}]" in inodes:
                address, _, port = fields[1].rpartition(":")
                found.add((address, int(port, 16)))
    return found
