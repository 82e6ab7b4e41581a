"""Rule sets as values: revisions, keys, filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inbound.decide.rules import S3, Action, RuleSet, Stop


def filtered(*filters: tuple[str, str]) -> RuleSet:
    return RuleSet.model_validate({"name": "d", "rules": [], "filters": [
        {"Name": f"f{number}", "IpFilter": {"Policy": policy, "Cidr": cidr}} for number, (policy, cidr) in enumerate(filters)]})


@pytest.mark.parametrize(("filters", "address", "admitted"), [
    ([], "192.0.2.1", True),
    ([("Block", "192.0.2.0/24")], "192.0.2.1", False),
    ([("Block", "192.0.2.0/24")], "192.0.3.1", True),
    ([("Block", "192.0.2.1")], "192.0.2.1", False),
    ([("Block", "192.0.2.77/24")], "192.0.2.1", False),
    ([("Allow", "192.0.2.0/24")], "198.51.100.1", True),
    ([("Block", "0.0.0.0/0"), ("Allow", "192.0.2.0/24")], "192.0.2.1", True),
    ([("Block", "0.0.0.0/0"), ("Allow", "192.0.2.0/24")], "198.51.100.1", False),
    ([("Allow", "0.0.0.0/0"), ("Block", "192.0.2.1/32")], "192.0.2.1", True),
    ([("Block", "2001:db8::/32")], "2001:db8::1", False),
    ([("Block", "2001:db8::/32")], "192.0.2.1", True),
    ([("Block", "0.0.0.0/0")], "2001:db8::1", True),
    ([("Block", "::ffff:192.0.2.0/120")], "192.0.2.1", False),
    ([("Block", "::ffff:192.0.2.1")], "192.0.2.2", True),
    ([("Block", "::/0")], "192.0.2.1", True),
])
def test_filters_admit(filters: list[tuple[str, str]], address: str, admitted: bool) -> None:
    """SES "IP address filters", spec §10 rows 15 and 33: Allow beats Block, order and prefix length do not count."""
    assert filtered(*filters).admits(address) is admitted
    assert filtered(*reversed(filters)).admits(address) is admitted


@pytest.mark.parametrize(("prefix", "key"), [("", "id"), ("mail", "mail/id"), ("mail/", "mail/id"), ("a/b", "a/b/id"), ("/", "/id")])
def test_a_slash_is_put_between_prefix_and_message_id(prefix: str, key: str) -> None:
    assert S3(BucketName="mail", ObjectKeyPrefix=prefix).key("id") == key


def test_an_action_is_exactly_one() -> None:
    assert Action(StopAction=Stop(Scope="RuleSet")).only == Stop(Scope="RuleSet")
    for wrong in ({}, {"StopAction": None}, {"StopAction": {"Scope": "RuleSet"}, "S3Action": None}):
        with pytest.raises(ValidationError):
            Action.model_validate(wrong)


@given(st.lists(st.tuples(st.sampled_from(["a@example.com", ".ü.example"]), st.booleans(), st.booleans()), max_size=4))
def test_a_revision_survives_the_spool_and_names_its_content(rules: list[tuple[str, bool, bool]]) -> None:
    def made(suffix: str) -> RuleSet:
        return RuleSet.model_validate({"name": "d", "identities": ["example.com"], "rules": [
            {"Name": f"r{number}{suffix}", "Recipients": [entry], "Enabled": enabled, "ScanEnabled": scan,
             "Actions": [{"S3Action": {"BucketName": "mail", "TopicArn": None}}, {"StopAction": {"Scope": "RuleSet"}}]}
            for number, (entry, enabled, scan) in enumerate(rules)]})

    one = made("")
    again = RuleSet.model_validate_json(one.text)
    assert (again, again.text, again.revision) == (one, one.text, one.revision)
    assert len(one.revision) == 12
    assert (made("x").revision == one.revision) is (not rules)
