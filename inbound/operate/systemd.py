"""What systemd gives a service and wants of it: sockets by name, READY, STOPPING, a watchdog. Nothing of it matters anywhere else.

sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

from inbound.settings import SettingsError, Supervisor

SMTP = "smtp"
SMTPS = "smtps"  # implicit TLS


def inherited(supervisor: Supervisor) -> dict[str, list[socket.socket]]:
    """The listening sockets by their FileDescriptorName, `smtp` or `smtps`; a socket without a name is `smtp`. Raises SettingsError."""
    found: dict[str, list[socket.socket]] = {}
    for descriptor, name in supervisor.sockets:
        kind = SMTP if name in ("", "unknown") or name.endswith(".socket") else name
        if kind not in (SMTP, SMTPS):
            raise SettingsError(f"systemd passes a socket named {name!r}; FileDescriptorName= is smtp or smtps")
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        found.setdefault(kind, []).append(sock)
    return found


class Notifier:
    """Tells systemd how the service is; silent where nobody listens."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._address = supervisor.notify
        self._watchdog = supervisor.watchdog

    def ready(self, status: str) -> None:
        """Mail is accepted from now on."""
        self._send({"READY": "1", "STATUS": status})

    def stopping(self) -> None:
        """The service drains."""
        self._send({"STOPPING": "1", "STATUS": "draining"})

    async def watch(self) -> None:
        """Say that the event loop is alive, twice in each watchdog time, until cancelled."""
        while self._address and self._watchdog:
            self._send({"WATCHDOG": "1"})
            await asyncio.sleep(self._watchdog / 2)

    def _send(self, facts: Mapping[str, str]) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{key}={value}" for key, value in facts.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(text.encode(), address)
