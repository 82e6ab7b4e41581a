"""Rule sets as SES answers them, for hypothesis: within SES's quotas and value limits, with odd characters wherever SES allows them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

ACCOUNT = "123456789012"
TOPIC = f"arn:aws:sns:eu-west-1:{ACCOUNT}:mail"

NAMES = st.one_of(
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", fullmatch=True),
    st.sampled_from(["true", "No", "null", "1", "1.5", "1e3", "0x1F", "2001-01-01", "y", "12", "0o7", "1_000"]),
)
ODD = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029"), max_size=40),
    st.sampled_from(["", " ", "# no comment", "a: b", "- x", "'", '"', "\\", "{}", "[x]", "&a", "*a", "!x", "%", "@", "`", "yes", "~", "null", ".5",
                     "x # y", "x:", " x", "x ", "\t", "a\tb", "${x}", "\ufeff", "\ufffe",
                     "\x80", "\U0001f4e8", "0", "-1", "=", "<<", "?", "? x", ":", "|", ">"]),
)
RECIPIENTS = st.lists(
    st.sampled_from(["support@example.com", "Support+x@EXAMPLE.com", "example.com", ".example.com", "123.example", "münchen.example",
                     '"a b"@example.com', "no@example.com", "o'brien@example.com", "#x@example.com", "!x@example.com", "x_y.example"]),
    max_size=6, unique=True,
)
TOPICS = st.sampled_from([TOPIC, "arn:aws-us-gov:sns:us-gov-west-1:000000000000:a_b-C"])


def fields(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


SUPPORTED = st.one_of(
    st.fixed_dictionaries({"S3Action": fields({"BucketName": st.sampled_from(["mail", "my.bucket-1", "123"])}, {
        "ObjectKeyPrefix": ODD, "TopicArn": TOPICS, "KmsKeyArn": st.just(f"arn:aws:kms:eu-west-1:{ACCOUNT}:alias/aws/ses"),
        "IamRoleArn": st.sampled_from([f"arn:aws:iam::{ACCOUNT}:role/mail", f"arn:aws:iam::{ACCOUNT}:role/a!b/c~d/x+=,.@-y"])})}),
    st.fixed_dictionaries({"SNSAction": fields({"TopicArn": TOPICS}, {"Encoding": st.sampled_from(["UTF-8", "Base64"])})}),
    st.fixed_dictionaries({"LambdaAction": fields({"FunctionArn": st.sampled_from(
        [f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f", f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f:$LATEST"])},
        {"InvocationType": st.sampled_from(["Event", "RequestResponse"]), "TopicArn": TOPICS})}),
    st.fixed_dictionaries({"BounceAction": fields(
        {"SmtpReplyCode": st.sampled_from(["550", "450"]), "Message": ODD.filter(bool),
         "Sender": st.sampled_from(["no@example.com", '"x y"@example.com'])},
        {"StatusCode": st.sampled_from(["5.1.1", "4.0.0"]), "TopicArn": TOPICS})}),
    st.fixed_dictionaries({"AddHeaderAction": fields(
        {"HeaderName": st.from_regex(r"[A-Za-z0-9-]{1,50}", fullmatch=True), "HeaderValue": ODD}, {})}),
    st.fixed_dictionaries({"StopAction": fields({"Scope": st.just("RuleSet")}, {"TopicArn": TOPICS})}),
)
UNSUPPORTED = st.one_of(
    st.fixed_dictionaries({"WorkmailAction": fields(
        {"OrganizationArn": st.just(f"arn:aws:workmail:eu-west-1:{ACCOUNT}:organization/m-68755160c4cb4e29a2b2f8fb58f359d7")},
        {"TopicArn": TOPICS})}),
    st.fixed_dictionaries({"ConnectAction": fields(
        {"InstanceARN": st.just(f"arn:aws:connect:eu-west-1:{ACCOUNT}:instance/01234567-89ab-cdef-0123-456789abcdef"),
         "IAMRoleARN": st.just(f"arn:aws:iam::{ACCOUNT}:role/service-role/connect")}, {})}),
)


def rules(actions: st.SearchStrategy[dict[str, Any]], enabled: st.SearchStrategy[bool]) -> st.SearchStrategy[dict[str, Any]]:
    return fields({"Name": NAMES, "Enabled": enabled}, {
        "TlsPolicy": st.sampled_from(["Optional", "Require"]), "ScanEnabled": st.booleans(), "Recipients": RECIPIENTS,
        "Actions": st.lists(actions, max_size=10)})


RULE_SETS = st.fixed_dictionaries(
    {"Metadata": st.fixed_dictionaries({"Name": NAMES}),
     "Rules": st.lists(st.one_of(rules(SUPPORTED, st.booleans()), rules(st.one_of(SUPPORTED, UNSUPPORTED), st.just(False))),
                       max_size=8, unique_by=lambda rule: rule["Name"])},
    optional={"Filters": st.lists(st.fixed_dictionaries({"Name": NAMES, "IpFilter": st.fixed_dictionaries({
        "Policy": st.sampled_from(["Allow", "Block"]), "Cidr": st.sampled_from(["10.0.0.1/24", "192.0.2.1", "0.0.0.0/0", "2001:db8::/32"])})}),
        min_size=1, max_size=3, unique_by=lambda each: each["Name"])},
)
