"""Where calls go: what botocore would decide, by all that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inbound.deliver.aws import Access
from inbound.deliver.aws.routes import Route, Routes
from inbound.deliver.aws.sessions import Sessions
from inbound.deliver.aws.threads import Threads
from inbound.deliver.sinks import SinkDown


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No AWS settings but those that a test makes."""
    import os

    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path / "config"


async def routes(**access: Any) -> tuple[Routes, Threads]:
    threads = Threads()
    return Routes(Sessions(Access(**access)), threads), threads


async def bucket(name: str, **access: Any) -> Route:
    found, threads = await routes(**access)
    try:
        return await found.bucket(name)
    finally:
        threads.close()


def shown(route: Route) -> str:
    return f"{route.origin}{route.path}"


@pytest.mark.parametrize(("name", "region", "url"), [
    ("mail", "eu-west-1", "https://mail.s3.eu-west-1.amazonaws.com/"),
    ("mail", "us-east-1", "https://mail.s3.amazonaws.com/"),
    ("mail.example.com", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/mail.example.com/"),
    ("mail", "cn-north-1", "https://mail.s3.cn-north-1.amazonaws.com.cn/"),
    ("mail", "us-gov-west-1", "https://mail.s3.us-gov-west-1.amazonaws.com/"),
])
async def test_buckets_of_aws_are_hosts_where_a_certificate_can_name_them(name: str, region: str, url: str, environment: Path) -> None:
    route = await bucket(name, region=region)
    assert shown(route) == url
    assert (route.scope.service, route.scope.region, route.method, route.region) == ("s3", region, "PUT", region)
    assert route.is_encrypted
    assert not route.signs_body
    assert route.has_checksum


async def test_buckets_of_another_endpoint_are_paths() -> None:
    route = await bucket("mail", endpoint_url="http://127.0.0.1:9000/base", region="us-east-1")
    assert shown(route) == "http://127.0.0.1:9000/base/mail/"
    assert route.host == "127.0.0.1:9000"


@pytest.mark.parametrize(("settings", "url"), [
    ({"AWS_ENDPOINT_URL": "https://store.test"}, "https://store.test/mail/"),
    ({"AWS_ENDPOINT_URL": "https://all.test", "AWS_ENDPOINT_URL_S3": "https://s3.test:8443"}, "https://s3.test:8443/mail/"),
    ({"AWS_ENDPOINT_URL": "https://all.test", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, "https://mail.s3.amazonaws.com/"),
    ({"AWS_USE_FIPS_ENDPOINT": "true"}, "https://mail.s3-fips.us-east-1.amazonaws.com/"),
    ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://mail.s3.dualstack.us-east-1.amazonaws.com/"),
    ({"AWS_DEFAULT_REGION": "eu-west-3"}, "https://mail.s3.eu-west-3.amazonaws.com/"),
])
async def test_the_environment_decides(settings: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert shown(await bucket("mail")) == url


@pytest.fixture
def profile(environment: Path) -> None:
    environment.write_text("[profile shop]\nregion = eu-south-1\nservices = here\ns3 =\n  addressing_style = path\n"
                           "request_checksum_calculation = when_required\n[services here]\nsns =\n  endpoint_url = https://sns.shop.test\n")


async def test_a_profile_decides(profile: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "shop")
    found, threads = await routes()
    route = await found.bucket("mail")
    assert shown(route) == "https://s3.eu-south-1.amazonaws.com/mail/"
    assert not route.has_checksum
    assert shown(await found.topics("eu-south-1")) == "https://sns.shop.test/"
    threads.close()


async def test_topics_and_functions_are_in_the_region_of_their_arn() -> None:
    found, threads = await routes(region="us-east-1")
    topics = await found.topics("eu-west-1")
    told = shown(topics), topics.scope.service, topics.scope.region, topics.method
    assert told == ("https://sns.eu-west-1.amazonaws.com/", "sns", "eu-west-1", "POST")
    arn = "arn:aws:lambda:eu-west-2:123456789012:function:handler"
    function = await found.function(arn, "Event")
    escaped = arn.replace(":", "%3A")
    assert shown(function) == f"https://lambda.eu-west-2.amazonaws.com/2015-03-31/functions/{escaped}/invocations"
    assert function.headers["X-Amz-Invocation-Type"] == "Event"
    assert (await found.function(arn, "RequestResponse")).headers["X-Amz-Invocation-Type"] == "RequestResponse"
    threads.close()


async def test_a_route_is_asked_for_once() -> None:
    found, threads = await routes(region="us-east-1")
    assert await found.bucket("mail") is await found.bucket("mail")
    moved = await found.move("mail", "eu-west-1")
    assert shown(moved) == "https://mail.s3.eu-west-1.amazonaws.com/"
    assert await found.bucket("mail") is moved
    threads.close()


async def test_nothing_of_a_route_is_one_requests_own() -> None:
    route = await bucket("mail", region="us-east-1")
    assert set(route.headers) == {"User-Agent"}
    assert "inbound" in route.headers["User-Agent"]


async def test_a_region_that_is_none_is_told() -> None:
    with pytest.raises(SinkDown, match="InvalidRegionError"):
        await bucket("mail", region="not a region")


async def test_a_bucket_name_that_is_none_is_told() -> None:
    with pytest.raises(SinkDown, match="Invalid bucket name"):
        await bucket("no such name", region="us-east-1")


@pytest.mark.parametrize(("settings", "proxy"), [
    ({"HTTPS_PROXY": "http://user:word@proxy.test:3128"}, "http://user:word@proxy.test:3128"),
    ({"HTTPS_PROXY": "proxy.test:3128"}, "http://proxy.test:3128"),
    ({"HTTP_PROXY": "http://proxy.test:3128"}, ""),
    ({"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": ".amazonaws.com"}, ""),
])
async def test_proxies_are_those_of_the_environment(settings: dict[str, str], proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert (await bucket("mail", region="us-east-1")).proxy == proxy
    assert (await bucket("mail", region="us-east-1", proxies=False)).proxy == ""


async def test_a_directory_bucket_which_ses_does_not_know_either_is_told() -> None:
    with pytest.raises(SinkDown, match="a signature that is not supported"):
        await bucket("mail--use1-az4--x-s3", region="us-east-1")
