"""Message ids: SES's form, and never the same twice, in a forked process neither."""

from __future__ import annotations

import os
import re

from inbound.accept.envelope import new_message_id

LENGTH = 40


def test_ids_have_the_form_of_ses_and_differ() -> None:
    ids = [new_message_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(rf"[0-9a-v]{{{LENGTH}}}", each) for each in ids)


def test_a_forked_process_has_ids_of_its_own() -> None:
    new_message_id()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, "".join(new_message_id() for _ in range(50)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    theirs = {text[start : start + LENGTH] for start in range(0, len(text), LENGTH)}
    assert len(theirs) == 50
    assert not theirs & {new_message_id() for _ in range(500)}
