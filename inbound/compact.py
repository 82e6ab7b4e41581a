"""Compact JSON text of small values, for what every message writes: its log lines, its envelope, its verdicts, its steps.

`json.JSONEncoder.encode` makes its machinery anew for each value, which takes longer than the value. Where the standard library has that
machinery in C, it is made once here; the text is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json import encoder
from typing import Any


def encoded_by(default: Callable[[Any], Any] | None = None, *, ascii_only: bool = True) -> Callable[[Any], str]:
    """A function from a dict, list or tuple to its JSON text, without spaces. `default` turns what JSON does not know into what it does.

    With `ascii_only`, text beyond ASCII is escaped. The function raises TypeError for what it cannot encode. A value that holds itself is the
    caller's mistake, and not looked for.
    """
    slow = json.JSONEncoder(separators=(",", ":"), default=default, check_circular=False, ensure_ascii=ascii_only)
    make: Any = getattr(encoder, "c_make_encoder", None)
    if make is None:
        return slow.encode
    parts = make(None, slow.default, encoder.encode_basestring_ascii if ascii_only else encoder.encode_basestring, None, ":", ",", False, False, True)

    def encode(value: Any) -> str:
        return "".join(parts(value, 0))

    return encode
