"""SES itself as the source, through boto3: the receipt rule sets, the IP filters and the verified identities of one account and region.

Credentials, profiles and AWS_ENDPOINT_URL_SES are boto3's own. SES allows one call a second; boto3 waits and repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from inbound.operate.importers.draft import ImportRefused

_PAGE = 100  # identities that one GetIdentityVerificationAttributes takes


def documents(region: str | None, rule_sets: Sequence[str]) -> tuple[list[tuple[str, Any]], str | None]:
    """What the AWS CLI would print, each with the name of its command; and the name of the active rule set, None where there is none.

    The rule sets are those named, or the active one. Raises ImportRefused.
    """
    ses = _client(region)
    active = _call(ses.describe_active_receipt_rule_set)
    name = active.get("Metadata", {}).get("Name")
    found: list[tuple[str, Any]] = []
    if not rule_sets and name:
        found.append(("describe-active-receipt-rule-set", _shown(active)))
    found += [(f"describe-receipt-rule-set {wanted}", _shown(_call(ses.describe_receipt_rule_set, RuleSetName=wanted))) for wanted in rule_sets]
    found.append(("list-receipt-filters", _shown(_call(ses.list_receipt_filters))))
    found.append(("list-identities", {"Identities": _verified(ses, list(_identities(ses)))}))
    return found, name


def _client(region: str | None) -> Any:
    import boto3  # noqa: PLC0415  # only --live pays for it
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        config = Config(retries={"mode": "standard", "total_max_attempts": 8}, connect_timeout=5, read_timeout=30, user_agent_extra="inbound")
        return boto3.session.Session(region_name=region).client("ses", config=config)
    except (BotoCoreError, ValueError) as error:
        hint = " Give --region, or set AWS_DEFAULT_REGION" if "region" in str(error) else ""
        raise ImportRefused(f"SES: {' '.join(str(error).split())}{hint}") from None


def _call(operation: Callable[..., Any], **parameters: Any) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # only --live pays for it

    try:
        answer: dict[str, Any] = operation(**parameters)
    except ClientError as error:
        told = error.response.get("Error", {})
        raise ImportRefused(f"SES, {error.operation_name}: {told.get('Code', '')}: {told.get('Message', '').strip()}") from None
    except BotoCoreError as error:
        raise ImportRefused(f"SES: {' '.join(str(error).split())}") from None
    return answer


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def _identities(ses: Any) -> Iterator[str]:
    token = ""
    while True:
        page = _call(ses.list_identities, **({"NextToken": token} if token else {}))
        yield from page.get("Identities", [])
        token = page.get("NextToken", "")
        if not token:
            return


def _verified(ses: Any, identities: Sequence[str]) -> list[str]:
    """Those that SES receives for: it takes no mail for a domain whose verification is pending."""
    found: list[str] = []
    for start in range(0, len(identities), _PAGE):
        page = list(identities[start : start + _PAGE])
        states = _call(ses.get_identity_verification_attributes, Identities=page).get("VerificationAttributes", {})
        found += [identity for identity in page if states.get(identity, {}).get("VerificationStatus") == "Success"]
    return found
