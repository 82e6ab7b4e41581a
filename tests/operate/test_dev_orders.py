"""The side channel of `inbound send --sign` and `--verdict`: there in dev, and not there in a service."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
import structlog

from inbound import settings
from inbound.assess.trial import Trial
from inbound.operate.api import bind_http, serve_http
from inbound.operate.station import OneProcess
from inbound.service import Service
from inbound.settings import Address

ORDER = {"sha256": "0" * 64, "verdicts": {"spf": "PASS"}, "records": {}}


@pytest.mark.parametrize(("trial", "status"), [(None, 404), (Trial(), 200)], ids=["serve", "dev"])
async def test_only_dev_takes_orders(tmp_path: Path, trial: Trial | None, status: int) -> None:
    service = Service(settings.read(data=tmp_path), structlog.get_logger(), trial=trial)
    runner = await serve_http(OneProcess(service), bind_http(Address("127.0.0.1", 0), "--http"))
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/dev/orders"
    async with aiohttp.ClientSession(trust_env=False) as session, session.post(url, json=ORDER) as answer:
        assert answer.status == status
    await runner.cleanup()
