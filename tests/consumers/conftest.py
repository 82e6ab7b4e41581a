"""The npm packages that the tests here run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from needs import missing, needs

LOCKED = Path(__file__).with_name("npm")
INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1", "--fetch-retry-mintimeout=1000")


@pytest.fixture(scope="session")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what npm/package-lock.json names installed, and the scripts beside it."""
    program = needs("npm", why="it brings the consumers written in JavaScript")
    folder = tmp_path_factory.mktemp("consumers") / "npm"
    shutil.copytree(LOCKED, folder)
    got = subprocess.run([program, *INSTALL], cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    if got.returncode:
        missing(f"npm can not install the consumers: {'; '.join(got.stderr.splitlines()[:4])}")
    return folder


@pytest.fixture(scope="session")
def node() -> str:
    """The program that runs JavaScript."""
    return needs("node", why="it runs the consumers written in JavaScript")
