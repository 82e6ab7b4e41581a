"""The route of a message for people: what each rule did and why, made from the JSON of `deliver.trace`."""

from __future__ import annotations

from typing import Any

import click

_COLOURS = {"done": "green", "supposed": "cyan", "failed": "yellow", "failed for good": "red", "waiting": "yellow", "not run": "bright_black"}
_SHOWN = {"supposed": "would"}


def render(trace: dict[str, Any], *, whole: bool = False) -> str:
    """The route; `whole` adds the session, every attempt and the outline of the parts."""
    lines = [*_head(trace)] if whole else []
    lines += verdict_lines(trace["verdicts"])
    for rule in trace["rules"]:
        lines += _rule(rule, whole=whole)
    lines += _unexplained(trace)
    lines.append(_end(trace))
    if whole and trace.get("outline"):
        lines += _outline(trace["outline"])
    for number, run in enumerate(trace["earlier"] if whole else (), 1):
        lines += _earlier(run, number)
    text = "\n".join(lines)
    return text.replace(trace["id"], "<message id>") if trace["state"] == "supposed" else text


def safe(value: Any) -> str:
    """One line without control characters: what strangers wrote must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(value))


def _head(trace: dict[str, Any]) -> list[str]:
    session, envelope = trace["session"], trace["envelope"]
    supposed = trace["state"] == "supposed"
    tls = session["tls"]
    client = f"{safe(session['client'])} ({safe(session['reverse_name'] or 'unknown')}), HELO {safe(session['helo'])}" if session["client"] else (
        "not told (--ip)")
    encrypted = f"{tls['version']} {tls['cipher']}".strip() if tls else "no TLS"
    set_name = f" of rule set {trace['rule_set']}" if trace["rule_set"] else ""
    return [
        *([] if supposed else [f"id          {trace['id']}", f"received    {envelope['received']}"]),
        f"size        {trace['size']} octets",
        f"client      {client}, {encrypted}",
        f"sender      {safe(envelope['sender'] or '<>')}",
        f"recipients  {', '.join(safe(r) for r in envelope['recipients']) or 'none is accepted'}",
        *(_refusal(each) for each in trace["recipients"] if each["acceptance"] != "accept"),
        f"revision    {trace['revision']}{set_name}",
        *([f"replayed    {trace['replay']}; what came of it before stands at the end"] if trace["replay"] else []),
        *([f"finished    {trace['finished']}"] if trace["finished"] else []),
    ]


def _refusal(recipient: dict[str, Any]) -> str:
    why = f"  ({recipient['why']})" if recipient["why"] not in recipient["reply"] else ""
    return click.style(safe(f"    {recipient['recipient']}: {recipient['reply']}"), fg="yellow") + safe(why)


def _unexplained(trace: dict[str, Any]) -> list[str]:
    """What was recorded, and no rule accounts for."""
    known = trace.get("rules_known", True)
    lines = [] if known else [
        f"the spool does not hold revision {trace['revision']} of the rules any more, so which of them matched, and why, cannot be told"]
    if trace.get("unexplained"):
        lines.append("recorded" if not known else "recorded, and of no step of these rules (INBOUND_STOP_SCOPE as in the service?)")
    return lines + [safe(_attempt(each)) for each in trace.get("unexplained", ())]


def _attempt(each: dict[str, Any]) -> str:
    """A recorded attempt, apart from any rule."""
    return (f"    {each['rule']}: {each['action']} (action {each['index'] + 1}) {each['part']}, attempt {each['attempt']}, "
            f"{each['started']}, {each['milliseconds']} ms: {each['outcome']}" + (f": {each['error']}" if each["error"] else ""))


def _earlier(run: dict[str, Any], number: int) -> list[str]:
    """What came of a message before it was replayed."""
    end = "dead" if run["state"] == "dead" else "done" + (": no rule matched" if run["disposition"] == "UNMATCHED" else "")
    told = [(_attempt(each), _told([each | {"sink": "", "attempt": 1}])) for each in run["attempts"]]
    return ["", f"run {number}, by revision {run['revision']}, until it was replayed at {run['replayed']}",
            *(safe(line + (f": {what}" if what and what not in line else "")) for line, what in told),
            safe(f"    {end}" + (f" at {run['finished']}" if run["finished"] else "") + (f": {run['error']}" if run["error"] else ""))]


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
    attempts = action["attempts"]
    main = [a for a in attempts if a["part"] == "action"]
    assumed = "  (CONTINUE is assumed: the function decides)" if action["assumed"] and action["flow"] else ""
    lines = [f"    {action['action']:<10} {_state(action['state'])} {_told(main) or _meant(action)}{assumed}".rstrip()]
    topic = action["topic"]
    topics = [a for a in attempts if a["part"] == "topic"]
    if topic and (topics or action["state"] not in ("not run", "failed for good")):
        lines.append(f"      {'topic':<8} {_state(topic['state'])} {_told(topics) or topic['arn']}".rstrip())
    if whole:
        lines += [f"        attempt {a['attempt']} of the {a['part']}, {a['started']}, {a['milliseconds']} ms: {a['outcome']}"
                  + (f": {safe(a['error'])}" if a["error"] else "") for a in attempts if a["sink"] and a["outcome"] != "supposed"]
    return lines


def _state(state: str) -> str:
    return click.style(f"{_SHOWN.get(state, state):<8}", fg=_COLOURS[state])


def _meant(action: dict[str, Any]) -> str:
    """Where an action would go that was not tried."""
    told = action["parameters"]
    if "BucketName" in told:
        return safe(f"s3://{told['BucketName']}/{told.get('ObjectKeyPrefix', '')}")
    return safe(told.get("FunctionArn", told.get("TopicArn", "")))


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
    took = f"  {last['milliseconds']} ms" if last["sink"] and last["outcome"] != "supposed" else ""
    tried = f"  attempt {last['attempt']}" if last["attempt"] > 1 else ""
    return safe(f"{what or last['error']}{flow}{took}{tried}".strip())


def _bounced(detail: dict[str, Any]) -> str:
    """The failure, whom it was told, and what became of that."""
    became = next((f"{word}: {detail[word]}" for word in ("suppressed", "refused") if word in detail), detail.get("reply", ""))
    return f"{detail['bounce']} to {detail['to'] or '<>'}" + (f"; {became}" if became else "")


def _end(trace: dict[str, Any]) -> str:
    state = trace["state"]
    if state == "supposed":
        return _supposed_end(trace)
    if state == "deferred":
        latest = f", at the latest at {trace['due']}" if trace["due"] else ""
        waits = f"waits for {trace['waits_for']}, tried again when it answers{latest}" if trace["waits_for"] else f"tried again at {trace['due']}"
        error = trace["error"].removeprefix(f"{trace['waits_for']}: ")
        return click.style("deferred", fg="yellow") + f": {safe(error)}; {waits}; at once: inbound queue retry {trace['id']}"
    if state == "dead":
        return click.style("dead", fg="red") + f": {safe(trace['error'])}; to try again: inbound queue retry {trace['id']}"
    if state == "done":
        return click.style("done", fg="green") + (": no rule matched" if trace["disposition"] == "UNMATCHED" else "")
    return "in hand"


def _supposed_end(trace: dict[str, Any]) -> str:
    if trace["refused"]:
        answer = f"refused at {trace['refused']['command']}: {trace['refused']['reply']}"
        return click.style(safe(answer), fg="yellow") + "; no rule runs"
    if trace["error"]:
        return click.style("it would be a dead letter", fg="red") + f": {safe(trace['error'])}"
    return click.style("nothing was sent", fg="cyan") + (": no rule matches" if trace["disposition"] == "UNMATCHED" else "")


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
