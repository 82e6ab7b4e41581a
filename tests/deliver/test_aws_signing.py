"""Our signatures are botocore's, header by header, whatever is signed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.utils import normalize_url_path
from hypothesis import assume, given
from hypothesis import strategies as st

from inbound.deliver.aws.signing import UNSIGNED_PAYLOAD, Keys, Scope, signed

PATH = st.text(st.sampled_from("abcXYZ019-._~/%+:=@! "), max_size=30).map(lambda text: "/" + text.replace("%", "%25").replace(" ", "%20"))
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
NAME = st.from_regex(r"x-amz-meta-[a-z0-9-]{1,12}", fullmatch=True)
SECRET = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@given(PATH, st.dictionaries(NAME, VALUE, max_size=5), st.binary(max_size=100), SECRET, st.sampled_from(["", "token"]),
       st.integers(0, 4_000_000_000), st.sampled_from(["s3", "sns", "lambda"]), st.sampled_from(["us-east-1", "eu-central-1"]),
       st.sampled_from(["bucket.s3.amazonaws.com", "127.0.0.1:4566", "[::1]:9000"]))
def test_signatures_are_those_of_botocore(
    path: str, headers: dict[str, str], body: bytes, secret: str, token: str, now: int, service: str, region: str, host: str,
) -> None:
    digest = hashlib.sha256(body).hexdigest()
    is_s3 = service == "s3"
    assume(is_s3 or normalize_url_path(path) == path)  # those of other services are our own, and never of the kind that AWS rewrites
    sent = signed("PUT", host, path, headers, digest, scope=Scope(service, region, is_s3), keys=Keys("AKIA", secret, token), now=now)
    reference = (S3SigV4Auth if is_s3 else SigV4Auth)(ReadOnlyCredentials("AKIA", secret, token or None, None), service, region)
    request = AWSRequest("PUT", f"http://{host}{path}", data=body, headers={k: v for k, v in sent.items() if k != "Authorization"})
    request.context["timestamp"] = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    canonical = reference.canonical_request(request)
    signature = reference.signature(reference.string_to_sign(request, canonical), request)
    assert sent["Authorization"].endswith(f"Signature={signature}"), canonical


def test_a_body_that_tls_protects_need_not_be_read_to_sign_it() -> None:
    sent = signed("PUT", "b.s3.amazonaws.com", "/k", {}, UNSIGNED_PAYLOAD, scope=Scope("s3", "us-east-1", True), keys=Keys("A", "s"), now=0)
    assert sent["X-Amz-Content-SHA256"] == UNSIGNED_PAYLOAD


def test_a_secret_does_not_show() -> None:
    assert "hidden" not in repr(Keys("AKIA", "hidden", "hidden too"))


@pytest.mark.parametrize("name", ["User-Agent"])
def test_what_proxies_change_is_not_signed(name: str) -> None:
    sent = signed("POST", "h", "/", {name: "x"}, "0", scope=Scope("sns", "us-east-1"), keys=Keys("A", "s"), now=0)
    assert sent[name] == "x"
    assert name.lower() not in sent["Authorization"]
