"""Which bounces the world would refuse: a null reverse-path leaves DMARC nothing but a DKIM signature to go by (RFC 7489 §3.1)."""

from __future__ import annotations

from inbound.decide.load import Loaded
from inbound.decide.problem import KeyPath, Problem, written
from inbound.decide.recipients import split
from inbound.decide.rules import Bounce


def unsigned(loaded: Loaded, domain: str) -> tuple[Problem, ...]:
    """A warning for each bounce of the enabled rules in use that no signature for `domain` (empty: there is none) vouches for."""
    found: list[Problem] = []
    for number, rule in enumerate(loaded.rule_set.rules):
        for index, action in enumerate(rule.Actions if rule.Enabled else ()):
            if isinstance(action.only, Bounce) and not _aligned(split(action.only.Sender)[1], domain.lower()):
                path: KeyPath = ("RuleSets", str(loaded.rule_set.name), number, "Actions", index)
                told = f"{written((*path, 'BounceAction'))}: {_words(action.only.Sender, domain)}"
                found.append(Problem(loaded.name, *loaded.places[path], told, "unsigned-bounce"))
    return loaded.unsilenced(found)


def _aligned(sender: str, domain: str) -> bool:
    """One of them is the other or above it: as close to an Organizational Domain as one gets without a list of public suffixes."""
    return bool(domain) and (sender == domain or sender.endswith(f".{domain}") or domain.endswith(f".{sender}"))


def _words(sender: str, domain: str) -> str:
    if domain:
        return f"is DKIM-signed for {domain}, which says nothing for its Sender {sender}; where DMARC is strict it is refused"
    return ("is not DKIM-signed; where the DMARC policy of its Sender's domain is strict it is refused: "
            "set INBOUND_DKIM_KEY, INBOUND_DKIM_SELECTOR and INBOUND_DKIM_DOMAIN")
