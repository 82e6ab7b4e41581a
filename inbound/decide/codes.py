"""The codes of the warnings, by which a comment silences them: `# inbound: allow CODE` on the line that the warning names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from inbound.decide.document import Allow, Document
from inbound.decide.problem import Problem
from inbound.decide.wording import near

CODES = {
    "receiving-off": "no rule set is active: every recipient is refused",
    "no-enabled-rule": "the active rule set has no enabled rule: every recipient is refused",
    "no-actions": "an enabled rule accepts mail and does nothing with it",
    "never-matches": "earlier rules stop all that a rule is for",
    "catch-all-first": "a rule for everybody acts before later rules for some, and does not stop",
    "empty-recipients": "an empty list of Recipients, which matches everybody, beside other rules",
    "duplicate-recipient": "a recipient is listed twice in a rule",
    "after-stop": "actions come after a StopAction and never run",
    "sns-alone": "an SNSAction, which takes 150 KB, without an S3Action beside it",
    "bounce-status": "SmtpReplyCode and StatusCode of a bounce are of different classes",
    "bounce-sender": "the Sender of a bounce is outside Identities",
    "other-region": "a topic, function, key or role is in another region or account than the others",
    "unsigned-bounce": "no DKIM signature vouches for the Sender of a bounce",
    "needs-certificate": "a rule requires TLS, which the service must have a certificate for",
    "needs-smarthost": "a rule bounces, which the service must have a smarthost for",
    "unknown-allow": "a comment allows a code that there is not",
    "unused-allow": "a comment allows what is not warned of on its line",
}

SITUATIONAL = frozenset({"unsigned-bounce", "needs-certificate", "needs-smarthost"})
"""Those that depend on the service: they may be allowed where nobody warns of them."""


_FIRST = re.compile(r"\s+([A-Za-z0-9][A-Za-z0-9_-]*)")
_NEXT = re.compile(r"(\s*,\s*|\s+)([A-Za-z0-9][A-Za-z0-9_-]*)")


def codes_of(allow: Allow) -> tuple[str, ...]:
    """The codes that a comment allows, with commas or spaces between them. After a space, a word that is not like any code begins the reason."""
    found = _FIRST.match(allow.text)
    codes: list[str] = []
    while found:
        separator, word = found.group(1, 2) if found.re is _NEXT else (",", found[1])
        if "," not in separator and not near(word, list(CODES)):
            break
        codes.append(word)
        found = _NEXT.match(allow.text, found.end())
    return tuple(codes)


def allowed(problem: Problem, allows: Mapping[int, Allow]) -> bool:
    """Does a comment on its line silence the warning?"""
    allow = allows.get(problem.line)
    return allow is not None and problem.code in codes_of(allow)


def odd_allows(document: Document, warnings: Iterable[Problem]) -> Iterator[Problem]:
    """The warnings about comments that silence nothing; `warnings` are all that there are, silenced or not."""
    there = {(warning.line, warning.code) for warning in warnings}
    for allow in document.allows.values():
        codes = codes_of(allow)
        if not codes:
            yield _about(document, allow, f"names no code: # inbound: allow {next(iter(CODES))}", "unknown-allow")
        for code in codes:
            if code not in CODES:
                meant = near(code, list(CODES))
                known = f"did you mean {meant!r}?" if meant else f"there is {', '.join(CODES)}"
                yield _about(document, allow, f"there is no warning {code!r}; {known}", "unknown-allow")
            elif (allow.line, code) not in there and code not in SITUATIONAL:
                yield _about(document, allow, f"nothing on this line is warned of as {code}; remove it", "unused-allow")


def _about(document: Document, allow: Allow, message: str, code: str) -> Problem:
    return Problem(document.name, allow.line, allow.column, f"inbound: allow: {message}", code)
