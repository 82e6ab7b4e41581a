"""The rules of the house: what the linters hold, and what only a look at the whole tree can tell."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from needs import needs

from inbound.log import Event

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "inbound"

OUTSIDE = {
    "accept/connection.py": "one client connection",
    "accept/listener.py": "SMTP sessions",
    "accept/session.py": "an SMTP session",
    "accept/tls.py": "the certificate's files",
    "accept/spool/blobs.py": "content in files",
    "accept/spool/commits.py": "the thread that owns the database",
    "accept/spool/content.py": "content in files",
    "accept/spool/database.py": "SQLite",
    "accept/spool/entries.py": "the clock, for what is written",
    "accept/spool/folder.py": "the spool's folder",
    "accept/spool/lock.py": "one process, one spool",
    "accept/spool/memory.py": "the twin keeps time as its model does",
    "accept/spool/several.py": "the spools of a data folder",
    "accept/spool/sqlite.py": "the spool on disk",
    "accept/spool/threads.py": "threads for what blocks",
    "assess/dkim/check.py": "a thread for the hash of a large body",
    "assess/assessor.py": "makes the checks at once",
    "assess/dns.py": "the resolver",
    "assess/dnsbl.py": "asks all blocklists at once",
    "assess/outline.py": "a process for what a stranger's MIME may cost",
    "assess/turns.py": "a thread for large headers, and the rounds of the event loop",
    "changes.py": "watches files",
    "assess/scanning.py": "reads content in a thread",
    "assess/spam.py": "rspamd",
    "assess/virus.py": "clamd",
    "decide/load.py": "reads the rule file",
    "decide/watch.py": "reads the rule file in a thread",
    "deliver/alerts.py": "alerts have their pace",
    "deliver/aws/calls.py": "the clock and the dice of repetitions",
    "deliver/aws/client.py": "AWS",
    "deliver/aws/credentials.py": "renews credentials while calls go on",
    "deliver/aws/http.py": "HTTP to AWS",
    "deliver/aws/routes.py": "botocore, asked by one thread at a time",
    "deliver/aws/sessions.py": "botocore",
    "deliver/aws/threads.py": "threads for what blocks",
    "deliver/aws/topics.py": "messages wait a moment for company",
    "deliver/bounces.py": "a thread for signing, the clock for the caps",
    "deliver/channels.py": "the topic and the hook that alerts go to",
    "deliver/folder.py": "the bounces of inbound dev, in files",
    "deliver/intake.py": "verdicts that are formed before a reply have a time limit",
    "deliver/memory.py": "the twin of AWS waits as its model does",
    "deliver/pressure.py": "looks at the disk",
    "deliver/smtp.py": "the smarthost",
    "deliver/shadow.py": "follows the candidate's file",
    "deliver/shadow_state.py": "the state file of the shadow",
    "deliver/sinks.py": "limits and breakers run on the clock",
    "deliver/vigil.py": "looks for what lasts too long",
    "deliver/worker.py": "the loop over what is due",
    "log.py": "standard output",
    "memory.py": "the address space that is held in reserve",
    "mishap.py": "watches that begin again after a while",
    "operate/": "what people run and look at",
    "service.py": "the composition root",
    "settings.py": "the environment",
}
"""The files that touch the outside world or the clock. All others are pure: what they need to know is handed to them."""

TOUCHING_MODULES = {
    "aiohttp", "asyncio", "concurrent", "fcntl", "http", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "resource",
    "secrets", "select", "selectors", "shutil", "signal", "smtplib", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile",
    "threading", "time", "urllib", "uuid", "watchfiles",
}
TOUCHING_CALLS = {"date.today", "datetime.now", "datetime.today", "datetime.utcnow", "open", "print", "input"}
PURE_ALL_THE_SAME = {
    ("deliver/actions/s3.py", "os"): "os.urandom makes the nonce of an encrypted object",
    ("accept/envelope.py", "os"): "os.urandom makes the message id, os.register_at_fork keeps ids apart",
    ("deliver/aws/objects.py", "urllib"): "urllib.parse escapes the key of an object",
    ("deliver/aws/signing.py", "urllib"): "urllib.parse escapes what is signed",
    ("assess/spf.py", "urllib"): "urllib.parse escapes what a macro asks to escape",
}

ENVIRONMENT = {
    "settings.py": "takes from it what systemd passed to this process, so that children do not inherit it",
    "operate/cli/__init__.py": "NO_COLOR, which is the user's word to all programs (no-color.org)",
    "operate/dev/child.py": "cleans the environment that ministack and the functions run in",
    "operate/dev/entry/inbound_entry.py": "runs in the Lambda, and tells the function where it lies",
}
"""Who may name the environment. settings.py reads it by pydantic-settings; the options of commands are held to it in test_settings.py."""

OVERRIDES = {
    "connection_made": "asyncio's",
    "convert": "click's",
    "list_commands": "click's",
    "get_command": "click's",
    "format_commands": "click's",
}
"""Methods that an outside base class documents."""

LOG_CALL = re.compile(r"(?:^|[._])log(?:ger)?(?:\.get\(\))?\.(?:debug|info|warning|error|exception|critical)$")


def checked(*command: str) -> None:
    """Run a tool at the top of the repository; its words are the failure."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@cache
def sources() -> dict[str, ast.Module]:
    """Each module of the package by its path within it."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def repository() -> tuple[Path, ...]:
    """Every file that git knows or would take, but for a user's virtual environment, whatever its name is."""
    command = [needs("git"), "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    environments = [config.parent for config in ROOT.glob("*/pyvenv.cfg")]
    files = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return tuple(path for path in files if path.is_file() and not any(path.is_relative_to(each) for each in environments))


def texts() -> Iterator[tuple[str, int, str]]:
    """Every line of every text file of the repository: its file, its number, its text."""
    for path in repository():
        octets = path.read_bytes()
        if b"\0" not in octets:
            for number, line in enumerate(octets.decode(errors="replace").splitlines(), 1):
                yield path.relative_to(ROOT).as_posix(), number, line


def nothing(faults: Iterable[str]) -> None:
    """Hold that there is no fault; each is a line of the failure."""
    listed = sorted(faults)
    assert not listed, "\n" + "\n".join(listed)


def found(pattern: str) -> list[str]:
    """The lines of the repository in which the pattern is found."""
    return [f"{file}:{number}: {line.strip()[:160]}" for file, number, line in texts() if re.search(pattern, line)]


def imported(tree: ast.Module) -> set[str]:
    """The top-level names of the modules that a module imports, wherever in it."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and node.level == 0]
    return {name.partition(".")[0] for name in names}


def test_ruff_finds_nothing() -> None:
    checked(needs("ruff"), "check", "--output-format=concise", "inbound", "tests")


def test_mypy_finds_nothing() -> None:
    checked(needs("mypy"))


def test_imports_keep_their_contracts() -> None:
    checked(needs("lint-imports"), "--no-logo")


def test_every_outside_library_has_its_doors() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    behind = {module for contract in contracts if contract["type"] == "protected" for module in contract["protected_modules"]}
    used = set().union(*map(imported, sources().values()))
    outside = used - sys.stdlib_module_names - {"inbound", "_typeshed"}
    assert outside <= behind, f"without a contract in pyproject.toml: {sorted(outside - behind)}"
    assert behind <= used, f"behind a door, and used nowhere: {sorted(behind - used)}"


def touches(name: str, tree: ast.Module) -> list[str]:
    """What a module does that a pure one does not."""
    modules = sorted(module for module in imported(tree) & TOUCHING_MODULES if (name, module) not in PURE_ALL_THE_SAME)
    return modules + [call for node in ast.walk(tree) if isinstance(node, ast.Call) and (call := ast.unparse(node.func)) in TOUCHING_CALLS]


def test_code_is_pure_apart_from_the_files_that_touch_the_outside() -> None:
    impure = {name: what for name, tree in sources().items() if (what := touches(name, tree))}
    nothing(f"{name}: {', '.join(what)}" for name, what in impure.items() if not name.startswith(tuple(OUTSIDE)))
    nothing(f"OUTSIDE lists {entry}, which touches nothing" for entry in OUTSIDE if not any(name.startswith(entry) for name in impure))


def test_what_is_pure_all_the_same_uses_only_what_its_reason_says() -> None:
    for (name, module), reason in PURE_ALL_THE_SAME.items():
        uses = {ast.unparse(node) for node in ast.walk(sources()[name])
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module}
        assert uses == {word for word in reason.split() if word.startswith(f"{module}.")}


def test_only_settings_reads_the_environment() -> None:
    readers = set()
    for name, tree in sources().items():
        for node in ast.walk(tree):
            named = node.attr if isinstance(node, ast.Attribute) else node.name if isinstance(node, ast.alias) else ""
            if named in ("environ", "environb", "getenv", "getenvb", "putenv", "expandvars"):
                readers.add(name)
    assert readers == set(ENVIRONMENT)


def test_every_module_says_why_it_exists() -> None:
    nothing(name for name, tree in sources().items() if not ast.get_docstring(tree))


Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(node: ast.Module | ast.ClassDef, within: str = "") -> Iterator[tuple[str, Documented]]:
    """The public classes, functions and methods of a module, with their dotted names."""
    for child in node.body:
        if isinstance(child, Documented) and not child.name.startswith("_"):
            yield f"{within}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{within}{child.name}.")


def promised() -> set[str]:
    """The methods that Protocols of the package document: who implements one need not repeat it."""
    return {
        method.name
        for tree in sources().values()
        for _, node in public(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).partition("[")[0] == "Protocol" for base in node.bases)
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(method)
    }


def test_every_public_name_has_a_docstring() -> None:
    inherited = promised() | set(OVERRIDES)
    nothing(
        f"{file}:{node.lineno}: {name}" for file, tree in sources().items() for name, node in public(tree)
        if not ast.get_docstring(node) and not ("." in name and node.name in inherited)
    )


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call that logs, with its place."""
    for name, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and LOG_CALL.search(ast.unparse(node.func)):
                yield f"{name}:{node.lineno}", node


def events(node: ast.expr) -> list[str]:
    """The members of Event that an expression may be; a name that is no member stands for anything else."""
    if isinstance(node, ast.IfExp):
        return events(node.body) + events(node.orelse)
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("Event", "log.Event"):
        return [node.attr]
    return [f"not an Event: {ast.unparse(node)}"]


def test_only_listed_events_are_logged() -> None:
    calls = list(log_calls())
    named = [(place, name) for place, call in calls for name in (events(call.args[0]) if call.args else ["no event"])]
    nothing(f"{place}: {name}" for place, name in named if name not in Event.__members__)
    assert len(calls) >= len(Event), "the pattern for calls that log finds too few"


def test_every_listed_event_is_logged() -> None:
    named = {node.attr for tree in sources().values() for node in ast.walk(tree)
             if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("Event", "log.Event")}
    nothing(set(Event.__members__) - named)


@pytest.mark.parametrize("place", ["[.][.]/shared", "/wor[k]/", "/opt/ven[v]"])
def test_nothing_names_a_place_outside_the_repository(place: str) -> None:
    nothing(found(place))


def test_nothing_is_left_for_later() -> None:
    nothing(found(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b"))


def test_no_file_is_a_drawer_for_anything() -> None:
    drawer = re.compile(r"_?(?:util|helper|common|manager|misc)s?", re.IGNORECASE)
    names = [path.relative_to(ROOT) for path in repository()]
    nothing(str(name) for name in names if any(drawer.fullmatch(Path(part).stem) for part in name.parts))


def test_every_exemption_has_its_reason() -> None:
    exemption = re.compile(r"# (noqa(?:: [A-Z0-9]+(?:, ?[A-Z0-9]+)*)?|type: ignore(?:\[[a-z-, ]+\])?)(\s.*)?$")
    lacking: list[str] = []
    before = ""
    for file, number, line in texts():
        exempt = exemption.search(line) if file.startswith("inbound/") and file.endswith(".py") else None
        if exempt and not exempt[2] and exempt[1] != before:  # the lines of one block share the reason of the first
            lacking.append(f"{file}:{number}: {line.strip()}")
        before = exempt[1] if exempt else ""
    nothing(lacking)
