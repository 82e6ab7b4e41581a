"""What an S3Action with KmsKeyArn stores, read by Amazon's own S3 Encryption Client for Python, from an environment of its own.

The client pins an older `cryptography` than ours, so it can not share our environment.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from local_dev import ANY_PORTS, Dev, client, run
from needs import missing, needs_module

RULES = """
RuleSets:
  default:
    - Name: secret
      Recipients: [example.com]
      Actions:
        - S3Action: {BucketName: mail, ObjectKeyPrefix: secret, KmsKeyArn: "arn:aws:kms:us-east-1:000000000000:alias/mail"}
"""
READ = """
import sys
import boto3
from s3_encryption import S3EncryptionClient, S3EncryptionClientConfig
from s3_encryption.materials.kms_keyring import KmsKeyring
from s3_encryption.materials.materials import AlgorithmSuite, CommitmentPolicy

endpoint, key = sys.argv[1:]
aws = dict(endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
keyring = KmsKeyring(boto3.client("kms", **aws), "arn:aws:kms:us-east-1:000000000000:alias/mail", enable_legacy_wrapping_algorithms=True)
config = S3EncryptionClientConfig(
    keyring, encryption_algorithm=AlgorithmSuite.ALG_AES_256_GCM_IV12_TAG16_NO_KDF,
    commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)
client = S3EncryptionClient(boto3.client("s3", **aws), config)
sys.stdout.buffer.write(client.get_object(Bucket="mail", Key=key)["Body"].read())
"""


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has Amazon's client."""
    folder = tmp_path_factory.mktemp("amazon")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    got = subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "amazon-s3-encryption-client-python>=4,<5"],
                         capture_output=True, text=True, check=False)
    if got.returncode:
        missing(f"Amazon's S3 Encryption Client can not be installed: {got.stderr.strip().splitlines()[-1:]}")
    return python


def test_amazons_client_reads_what_is_stored_under_a_kms_key(amazon: Path, tmp_path: Path) -> None:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    (tmp_path / "rules.yaml").write_text(RULES)
    eml = tmp_path / "large.eml"
    eml.write_bytes(b"Subject: secret\r\n\r\n" + b"0123456789abcdef\r\n" * 60_000)
    dev = Dev(tmp_path, *ANY_PORTS)
    try:
        about = dev.ready()
        sent = run(tmp_path, "send", "--to", "x@example.com", "--eml", str(eml))
        assert sent.stdout.splitlines()[-1] == "done", sent.stdout + sent.stderr
        key = f"secret/{sent.stdout.split()[3]}"
        stored = client(about, "s3").get_object(Bucket="mail", Key=key)
        assert b"secret" not in stored["Body"].read()
        assert stored["Metadata"]["x-amz-wrap-alg"] == "kms"
        read = subprocess.run([str(amazon), "-c", READ, about["aws"], key], capture_output=True, check=False)
        assert read.returncode == 0, read.stderr.decode()
        assert read.stdout.startswith(b"Return-Path: <sender@example.net>\r\nReceived: ")
        assert read.stdout.endswith(eml.read_bytes())
    finally:
        dev.stop()


def test_this_interpreter_has_not_got_it() -> None:
    """It would hold `cryptography` back."""
    assert subprocess.run([sys.executable, "-c", "import s3_encryption"], capture_output=True, check=False).returncode != 0
