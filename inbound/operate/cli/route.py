"""The route of a message for people: what each rule did and why, made from the JSON of `deliver.trace`."""

from __future__ import annotations

from typing import Any

import click

_COLOURS = {"done": "green", "failed": "yellow", "failed for good": "red", "waiting": "yellow", "not run": "bright_black"}


def render(trace: dict[str, Any], *, whole: bool = False) -> str:
    """The route; `whole` adds the session, the verdicts, every attempt and the outline of the parts."""
    lines = [*_head(trace)] if whole else []
    lines += verdict_lines(trace["verdicts"])
    for rule in trace["rules"]:
        lines += _rule(rule, whole=whole)
    lines.append(_end(trace))
    if whole and trace.get("outline"):
        lines += _outline(trace["outline"])
    return "\n".join(lines)


def safe(value: Any) -> str:
    """One line without control characters: what strangers wrote must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(value))


def _head(trace: dict[str, Any]) -> list[str]:
    session, envelope = trace["session"], trace["envelope"]
    tls = session["tls"]
    return [
        f"id          {trace['id']}",
        f"received    {envelope['received']}  {trace['size']} octets",
        f"client      {safe(session['client'])} ({safe(session['reverse_name'] or 'unknown')}), HELO {safe(session['helo'])}, "
        + (f"{tls['version']} {tls['cipher']}" if tls else "no TLS"),
        f"sender      {safe(envelope['sender'] or '<>')}",
        f"recipients  {', '.join(safe(r) for r in envelope['recipients'])}",
        f"revision    {trace['revision']}",
    ]


def verdict_lines(verdicts: dict[str, Any]) -> list[str]:
    """The verdicts in one line, then why for each that is no plain PASS; in one line for those with the same reason."""
    named = {name: verdict for name, verdict in verdicts.items() if isinstance(verdict, dict)}
    lines = ["verdicts    " + ", ".join(f"{name} {verdict['status']}" for name, verdict in named.items())]
    reasons: dict[str, list[str]] = {}
    for name, verdict in named.items():
        if verdict["status"] != "PASS":
            reasons.setdefault(verdict["reason"], []).append(name)
    lines += [f"    {', '.join(names)}: {safe(reason)}" for reason, names in reasons.items()]
    return [*lines, ""]


def _rule(rule: dict[str, Any], *, whole: bool) -> list[str]:
    ran = rule["reason"] == "matched"
    mark = click.style("+", fg="green") if ran else click.style("-", dim=True)
    told = safe(f"{rule['name']}: {rule['why']}") if ran else click.style(safe(f"{rule['name']}: {rule['reason']}: {rule['why']}"), dim=True)
    lines = [f"{mark} {told}"]
    if ran:
        for action in rule["actions"]:
            lines += _action(action, whole=whole)
    return lines


def _action(action: dict[str, Any], *, whole: bool) -> list[str]:
    state = click.style(f"{action['state']:<8}", fg=_COLOURS[action["state"]])
    attempts = action["attempts"]
    main = [a for a in attempts if a["part"] == "action"]
    lines = [f"    {action['action']:<10} {state} {_told(main)}".rstrip()]
    topics = [a for a in attempts if a["part"] == "topic"]
    if topics:
        outcome = topics[-1]["outcome"]
        lines.append(f"      {'topic':<8} {click.style(f'{outcome:<8}', fg=_COLOURS.get(outcome, 'red'))} {_told(topics)}".rstrip())
    if whole:
        lines += [f"        attempt {a['attempt']} of the {a['part']}, {a['started']}, {a['milliseconds']} ms: {a['outcome']}"
                  + (f": {safe(a['error'])}" if a["error"] else "") for a in attempts if len(attempts) > 1 or a["error"]]
    return lines


def _told(attempts: list[dict[str, Any]]) -> str:
    """What the last attempt did, how long it took, how often it was tried."""
    if not attempts:
        return ""
    last = attempts[-1]
    detail = last["detail"]
    if "bounce" in detail:
        what = _bounced(detail)
    elif "key" in detail:
        what = f"s3://{detail['bucket']}/{detail['key']}"
    elif "topic" in detail:
        what = detail["topic"]
    elif "function" in detail:
        what = detail["function"] + (f" answered {detail['answer']}" if "answer" in detail else "")
    else:
        what = detail.get("header", "")
    flow = f" -> {last['flow']}" if last["flow"] not in ("", "CONTINUE") else ""
    took = f"  {last['milliseconds']} ms" if last["sink"] else ""
    tried = f"  attempt {last['attempt']}" if last["attempt"] > 1 else ""
    return safe(f"{what or last['error']}{flow}{took}{tried}".strip())


def _bounced(detail: dict[str, Any]) -> str:
    """The failure, whom it was told, and what became of that."""
    became = next((f"{word}: {detail[word]}" for word in ("suppressed", "refused") if word in detail), detail.get("reply", ""))
    return f"{detail['bounce']} to {detail['to'] or '<>'}; {became}"


def _end(trace: dict[str, Any]) -> str:
    state = trace["state"]
    if state == "deferred":
        waits = f"waits for {trace['waits_for']}, tried again when it answers" if trace["waits_for"] else f"tried again at {trace['due']}"
        error = trace["error"].removeprefix(f"{trace['waits_for']}: ")
        return click.style("deferred", fg="yellow") + f": {safe(error)}; {waits}; at once: inbound queue retry {trace['id']}"
    if state == "dead":
        return click.style("dead", fg="red") + f": {safe(trace['error'])}; to try again: inbound queue retry {trace['id']}"
    if state == "done":
        return click.style("done", fg="green") + (": no rule matched" if trace["disposition"] == "UNMATCHED" else "")
    return "in hand"


def _outline(outline: Any) -> list[str]:
    if isinstance(outline, str):
        return ["", f"parts: {safe(outline)}"]
    lines = ["", "parts"]
    for part in outline["parts"]:
        name = f"  {part['name']}" if part["name"] else ""
        lines.append(f"    {safe(part['content_type']):<28} {part['size']:>9}{'  attachment' if part['attachment'] else ''}{safe(name)}")
    if outline["omitted"]:
        lines.append(f"    and {outline['omitted']} more")
    if outline["text"]:
        lines += ["", *(f"    | {safe(line)}" for line in outline["text"].splitlines()[:12])]
    return lines
