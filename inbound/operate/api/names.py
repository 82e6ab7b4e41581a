"""By what names a browser may ask for what is not for everybody: a page of a stranger must not read it by having its own name point here.

Pure. DNS rebinding: the browser sends the stranger's name in Host, whatever address that has now (RFC 9110 §7.2, §15.5.20).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

NOBODYS = (".localhost", ".internal", ".cluster.local")  # RFC 6761 §6.3; ICANN resolution 2024.07.29.06; inside Kubernetes

_HOST = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]@/\s]+))(?::[0-9]{1,5})?")


def is_ours(hosts: Sequence[str], names: Collection[str]) -> bool:
    """May a request with these Host fields be answered? `names` are our own, in lower case.

    Yes without any, which no browser sends; for addresses, names without a dot and those that nobody can register, and our own.
    """
    return all(_is_ours(host, names) for host in hosts)


def _is_ours(host: str, names: Collection[str]) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match["literal"] or match["name"]).lower().removesuffix(".")
    return "." not in name or name in names or name.endswith(NOBODYS) or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
