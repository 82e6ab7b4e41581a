"""The tables, and the way from every older version of them to this one.

The file's user_version counts the migrations it has had. A released migration is never edited; a change is a new one at the end.
"""

from __future__ import annotations

APPLICATION_ID = 0x494E424D  # "INBM", in the file's header, so that file(1) and we can tell it from any other SQLite file
PAGE_SIZE = 16384
BUCKET = 2048  # entries of one bucket of ids; to change it takes a migration

# `number` grows with every entry, so new rows of all tables lie together at their ends. Message ids are random, so an index of all
# ids would have every insert write a page of its own, the more the fuller the spool; `entry_id` is cut into buckets of entries that
# came together, and finding an id is a walk over the buckets, newest first (`entries.BY_ID`; 1 ms with a million entries).
# `ready` marks entries that a claim found due: they are handed out in the order of receipt, without a look at all that are not due.
# The partial indexes hold only what waits, or what a sweep looks for, and the queries name the index they are made for: a planner
# without statistics would rather walk all that is done.
# `content` says where the octets are: in the table `content` (row), in a blob file (blob), or nowhere any more (empty).
_FIRST = (
    """CREATE TABLE entry (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        state TEXT NOT NULL,
        ready INTEGER NOT NULL DEFAULT 0,
        received REAL NOT NULL,
        due REAL NOT NULL,
        since REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        finished REAL NOT NULL DEFAULT 0.0,
        size INTEGER NOT NULL,
        content TEXT NOT NULL,
        sink TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        disposition TEXT NOT NULL DEFAULT '',
        assessment TEXT NOT NULL DEFAULT '',
        revision TEXT NOT NULL,
        envelope TEXT NOT NULL
    )""",
    f"CREATE UNIQUE INDEX entry_id ON entry (number / {BUCKET}, id)",
    "CREATE INDEX entry_blob ON entry (id) WHERE content = 'blob'",
    "CREATE INDEX entry_state ON entry (state, received)",
    "CREATE INDEX entry_due ON entry (ready, due) WHERE state = 'deferred'",
    "CREATE INDEX entry_ready ON entry (received) WHERE ready = 1",
    "CREATE INDEX entry_sink ON entry (sink, ready, attempts, received) WHERE state = 'deferred' AND sink <> ''",
    "CREATE INDEX entry_finished ON entry (finished) WHERE state = 'done'",
    "CREATE INDEX entry_finished_content ON entry (finished) WHERE state = 'done' AND content <> ''",
    "CREATE INDEX entry_revision ON entry (revision)",
    "CREATE TABLE content (entry INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    """CREATE TABLE step (
        entry INTEGER NOT NULL,
        position INTEGER NOT NULL,
        rule TEXT NOT NULL,
        place INTEGER NOT NULL,
        part TEXT NOT NULL,
        digest TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        started REAL NOT NULL,
        milliseconds INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        flow TEXT NOT NULL,
        sink TEXT NOT NULL,
        error TEXT NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (entry, position)
    ) WITHOUT ROWID""",
    "CREATE TABLE revision (digest TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
)

# What a candidate rule set would do differently: how many messages of each kind, and which. An entry is counted once.
_SHADOW = (
    """CREATE TABLE tally (
        run TEXT NOT NULL,
        revision TEXT NOT NULL,
        kind TEXT NOT NULL,
        told TEXT NOT NULL,
        messages INTEGER NOT NULL,
        first REAL NOT NULL,
        last REAL NOT NULL,
        PRIMARY KEY (run, revision, kind)
    ) WITHOUT ROWID""",
    """CREATE TABLE counted (
        entry INTEGER PRIMARY KEY,
        run TEXT NOT NULL,
        revision TEXT NOT NULL,
        kind TEXT NOT NULL,
        refused TEXT NOT NULL
    )""",
    "CREATE INDEX counted_kind ON counted (run, revision, kind, entry)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SHADOW)
