"""Client-side encryption as SES does it: the metadata key by key, and octets that our own reading of the format decrypts."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from worker_bench import MESSAGE, TOPIC, Bench, rule

from inbound.accept.spool import State
from inbound.assess.rendering import BytesContent
from inbound.deliver.encryption import Encrypted
from inbound.deliver.sinks import SinkDown

KEY = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
ROLE = "arn:aws:iam::123456789012:role/mail"
ENCRYPTED = {"S3Action": {"BucketName": "mail", "KmsKeyArn": KEY}}


async def test_the_object_and_its_metadata_are_in_the_format_of_ses() -> None:
    async with Bench(rule("secret", ENCRYPTED)) as bench:
        message_id = await bench.send()
        body, metadata = bench.aws.objects["mail", message_id], bench.aws.metadata["mail", message_id]
        assert list(metadata) == ["x-amz-key-v2", "x-amz-iv", "x-amz-cek-alg", "x-amz-wrap-alg", "x-amz-tag-len",
                                  "x-amz-unencrypted-content-length", "x-amz-matdesc"]
        assert (metadata["x-amz-cek-alg"], metadata["x-amz-wrap-alg"], metadata["x-amz-tag-len"]) == ("AES/GCM/NoPadding", "kms", "128")
        described = {"aws:ses:message-id": message_id, "aws:ses:rule-name": "secret", "aws:ses:source-account": "123456789012", "kms_cmk_id": KEY}
        assert json.loads(metadata["x-amz-matdesc"]) == described
        plain_key, asked_with = bench.aws.keys[base64.b64decode(metadata["x-amz-key-v2"])]
        assert asked_with == described, "the whole material description is the encryption context"
        plain = AESGCM(plain_key).decrypt(base64.b64decode(metadata["x-amz-iv"]), body, None)
        assert plain.endswith(b"\r\n" + MESSAGE)
        assert int(metadata["x-amz-unencrypted-content-length"]) == len(plain) == len(body) - 16
        assert MESSAGE not in body


async def test_each_message_has_a_key_and_a_nonce_of_its_own() -> None:
    async with Bench(rule("secret", ENCRYPTED)) as bench:
        ids = [await bench.send() for _ in range(3)]
        seen = {(bench.aws.metadata["mail", i]["x-amz-key-v2"], bench.aws.metadata["mail", i]["x-amz-iv"]) for i in ids}
        assert len(seen) == 3


async def test_a_key_that_is_disabled_is_retried_and_holds_up_nothing_that_needs_no_key() -> None:
    plain = {"S3Action": {"BucketName": "mail"}}
    async with Bench(rule("secret", ENCRYPTED, to="a@example.com"), rule("open", plain, to="b@example.com")) as bench:
        bench.aws.down[f"kms:{KEY}"] = SinkDown("DisabledException: the key is disabled")
        held = [await bench.send("a@example.com") for _ in range(6)]
        assert await bench.state(await bench.send("b@example.com")) is State.DONE
        entry = await bench.entry(held[0])
        assert (entry.state, "DisabledException" in entry.error) == (State.DEFERRED, True)


async def test_a_role_is_used_for_bucket_key_and_topic() -> None:
    action = {"S3Action": {"BucketName": "mail", "KmsKeyArn": KEY, "IamRoleArn": ROLE, "TopicArn": TOPIC}}
    async with Bench(rule("secret", action, {"S3Action": {"BucketName": "own"}})) as bench:
        await bench.send()
        assert bench.aws.roles == [ROLE, ROLE, ROLE, None]


@given(st.binary(max_size=700_000) | st.integers(0, 900_000).map(bytes), st.lists(st.integers(1, 400_000), max_size=6))
def test_any_body_read_in_any_pieces_decrypts_to_itself(plain: bytes, sizes: list[int]) -> None:
    body = Encrypted(BytesContent(plain), b"k" * 32, b"n" * 12)
    with body.open() as reader:
        pieces = [reader.read(size) for size in sizes]
        whole = b"".join(pieces) + reader.read()
        assert len(whole) == body.size
        reader.seek(0)
        assert reader.read() == whole, "a retry sends the same octets"
    assert AESGCM(b"k" * 32).decrypt(b"n" * 12, whole, None) == plain


@given(st.binary(max_size=600_000), st.data())
def test_reading_from_anywhere_gives_the_octets_of_that_place(plain: bytes, data: st.DataObject) -> None:
    body = Encrypted(BytesContent(plain), b"k" * 32, b"n" * 12)
    with body.open() as reader:
        whole = reader.read()
        for place in data.draw(st.lists(st.integers(0, len(whole) + 5), max_size=4)):
            reader.seek(place)
            assert reader.tell() == place
            assert reader.read(1000) == whole[place : place + 1000]


def test_one_octet_changed_does_not_decrypt() -> None:
    with Encrypted(BytesContent(MESSAGE), b"k" * 32, b"n" * 12).open() as reader:
        whole = bytearray(reader.read())
    whole[3] ^= 1
    with pytest.raises(InvalidTag):
        AESGCM(b"k" * 32).decrypt(b"n" * 12, bytes(whole), None)
