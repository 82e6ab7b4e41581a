"""A Lambda function for a LambdaAction: it logs the event and lets the rule set go on. Copy it and make it yours.

`inbound dev --function NAME=FILE:handler` runs yours in its place. The answer counts when the action's InvocationType is
RequestResponse: CONTINUE, STOP_RULE or STOP_RULE_SET.
"""

import json
from typing import Any


def handler(event: dict[str, Any], context: object) -> dict[str, str]:  # noqa: ARG001  Lambda's signature
    """What Lambda calls."""
    print(json.dumps(event, ensure_ascii=False))  # noqa: T201  what a function prints is its log
    return {"disposition": "CONTINUE"}
