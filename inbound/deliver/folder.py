"""Where bounces go in `inbound dev`: a folder of .eml files to look at. Nothing leaves the machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from inbound.deliver.sinks import SinkDown


class BounceFolder:
    """A `Smarthost` that writes each bounce into a file of its own, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def sink(self) -> str:
        return f"folder:{self._folder}"

    async def send(self, message: bytes, recipient: str, *, name: str, smtputf8: bool) -> str:  # noqa: ARG002  # the file holds the recipient
        return await asyncio.to_thread(self._write, message, self._folder / f"{name}.eml")

    def _write(self, message: bytes, path: Path) -> str:
        unfinished = path.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(message)
            unfinished.replace(path)
        except OSError as error:
            raise SinkDown(f"cannot write {path}: {error.strerror or error}") from error
        return str(path)
