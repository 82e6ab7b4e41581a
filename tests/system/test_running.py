"""What the fixtures of services promise: a test that fails leaves nothing that makes another one fail."""

from __future__ import annotations

from pathlib import Path

import process
import pytest
from process import Serve

RULES = "Identities: [example.com]\nRuleSets: {default: [{Name: all, Actions: [{S3Action: {BucketName: mail}}]}]}\n"


@pytest.mark.parametrize("holder", ["", "sleep 20 & "], ids=["alone", "beside a child that holds its pipes open"])
async def test_a_service_that_a_test_left_is_gone_and_its_pipes_are_closed(tmp_path: Path, holder: str) -> None:
    serve = Serve(tmp_path, RULES, "http://127.0.0.1:9")
    serve.under = ("sh", "-c", f'{holder}exec "$@"', "sh")
    await serve.start()
    await serve.end(2)
    assert serve.process is not None
    assert serve.process.returncode == -9
    transport = serve.process._transport
    assert all(transport.get_pipe_transport(number).is_closing() for number in (1, 2))
    assert serve not in process.STARTED
