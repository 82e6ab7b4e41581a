"""The least permissions: every call that the actions make, and nothing else."""

from inbound.decide.rules import RuleFile
from inbound.operate.policy import needs, policies

TOPIC = "arn:aws-us-gov:sns:us-gov-west-1:123456789012:stored"
KEY = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
ROLE = "arn:aws-us-gov:iam::999999999999:role/mail"
FUNCTION = "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:handler:live"
OURS = "arn:aws-us-gov:iam::123456789012:role/inbound"


def active(*rules: dict[str, object]):
    named = [{"Name": f"r{n}", "Recipients": ["example.com"], **rule} for n, rule in enumerate(rules)]
    return RuleFile.model_validate({"RuleSets": {"default": named}}).active()


def test_each_action_needs_its_own_call_and_the_partition_is_that_of_the_arns() -> None:
    rule_set = active({"Actions": [
        {"AddHeaderAction": {"HeaderName": "X", "HeaderValue": "y"}},
        {"S3Action": {"BucketName": "mail", "ObjectKeyPrefix": "in", "TopicArn": TOPIC}},
        {"LambdaAction": {"FunctionArn": FUNCTION}}, {"SNSAction": {"TopicArn": TOPIC}}, {"StopAction": {"Scope": "RuleSet", "TopicArn": TOPIC}}]})
    assert policies(rule_set, OURS)["identity"]["Statement"] == [
        {"Effect": "Allow", "Action": "s3:PutObject", "Resource": ["arn:aws-us-gov:s3:::mail/in/*"]},
        {"Effect": "Allow", "Action": "sns:Publish", "Resource": [TOPIC]},
        {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": [FUNCTION]},
    ]


def test_with_a_role_we_only_assume_it_and_it_does_the_rest() -> None:
    rule_set = active({"Actions": [{"S3Action": {"BucketName": "mail", "KmsKeyArn": KEY, "IamRoleArn": ROLE, "TopicArn": TOPIC}}]})
    found = policies(rule_set, OURS)
    assert found["identity"]["Statement"] == [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": [ROLE]}]
    assert [s["Action"] for s in found["roles"][ROLE]["policy"]["Statement"]] == ["s3:PutObject", "kms:GenerateDataKey", "sns:Publish"]
    assert found["roles"][ROLE]["trust"]["Statement"][0]["Principal"] == {"AWS": OURS}
    assert found["resources"][f"key {KEY}"] == {
        "Sid": "inbound", "Effect": "Allow", "Principal": {"AWS": [ROLE]}, "Action": "kms:GenerateDataKey", "Resource": ["*"]}


def test_disabled_rules_need_nothing_and_nothing_is_told_twice() -> None:
    s3 = {"S3Action": {"BucketName": "mail"}}
    assert len(needs(active({"Actions": [s3, s3]}, {"Actions": [s3]}, {"Enabled": False, "Actions": [{"SNSAction": {"TopicArn": TOPIC}}]}))) == 1


def test_alerts_need_to_publish_to_their_topic_and_no_more() -> None:
    rule_set = active({"Actions": [{"S3Action": {"BucketName": "mail"}}]})
    found = policies(rule_set, OURS, TOPIC)
    assert found["identity"]["Statement"][1:] == [{"Effect": "Allow", "Action": "sns:Publish", "Resource": [TOPIC]}]
    assert found["resources"][f"topic {TOPIC}"]["Principal"] == {"AWS": [OURS]}
    assert needs(active({"Actions": [{"SNSAction": {"TopicArn": TOPIC}}]}), TOPIC) == needs(active({"Actions": [{"SNSAction": {"TopicArn": TOPIC}}]}))
