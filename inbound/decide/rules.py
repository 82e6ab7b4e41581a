"""Rule sets, receipt rules, actions and IP filters in SES's own shapes, names and limits.

SES API 2010-12-01 (ReceiptRule, ReceiptAction, ReceiptFilter) and "Quotas related to email receiving". One difference: `Enabled`
defaults to true, since a rule that someone writes into a file is meant.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator

from inbound.decide.recipients import Lookup, canonical_entry

RULES_PER_SET = 200
ACTIONS_PER_RULE = 10
RECIPIENTS_PER_RULE = 500
RULE_SETS = 40
FILTERS = 100


class Model(BaseModel):
    """Frozen, with SES's PascalCase names; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _matching(pattern: str, says: str) -> Any:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(says)
        return value

    return check


def _name(characters: str, words: str) -> Any:
    says = f"a name has 1 to 64 of: letters, digits, {words}; it starts and ends with a letter or digit"
    return _matching(rf"[A-Za-z0-9]([A-Za-z0-9{characters}]{{0,62}}[A-Za-z0-9])?", says)


def _address(value: str) -> str:
    local, at, domain = value.rpartition("@")
    if not at or not re.fullmatch(r"[^\s<>\x00-\x1f\x7f]+", local):
        raise ValueError("is not an address")
    canonical_entry(domain)
    return value


def _no_line_break(value: str) -> str:
    if re.search(r"[\r\n\0]", value):
        raise ValueError("must not hold a line break")
    return value


def _topic(value: str) -> str:
    if not re.fullmatch(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?", value):
        raise ValueError("is not the ARN of an SNS topic (arn:aws:sns:REGION:ACCOUNT:NAME)")
    if value.endswith(".fifo"):
        raise ValueError("is a FIFO topic; SES publishes to standard topics only")
    return value


RuleSetName = Annotated[str, AfterValidator(_name("._-", "'.', '_', '-'"))]
RuleName = RuleSetName
FilterName = RuleSetName
Topic = Annotated[str, AfterValidator(_topic)]
Address = Annotated[str, AfterValidator(_address)]
Function = Annotated[str, AfterValidator(_matching(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]{1,140}(:[A-Za-z0-9$_-]{1,128})?",
    "is not the ARN of a Lambda function (arn:aws:lambda:REGION:ACCOUNT:function:NAME[:VERSION])"))]
KmsKey = Annotated[str, AfterValidator(_matching(
    r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+",
    "is not the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/ID or alias/NAME)"))]
Role = Annotated[str, AfterValidator(_matching(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", "is not the ARN of an IAM role (arn:aws:iam::ACCOUNT:role/NAME)"))]


class S3(Model):
    """Store the message as one object. SES API S3Action."""

    kind: ClassVar[str] = "S3"
    BucketName: Annotated[str, AfterValidator(_matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", "is not a bucket name (3 to 255 letters, digits, '.', '_', '-')"))]
    ObjectKeyPrefix: Annotated[str, Field(max_length=900), AfterValidator(_no_line_break)] = ""
    TopicArn: Topic | None = None
    KmsKeyArn: KmsKey | None = None
    IamRoleArn: Role | None = None

    def key(self, message_id: str) -> str:
        """The object key: a `/` is inserted when the prefix lacks one, as SES does."""
        prefix = self.ObjectKeyPrefix
        return f"{prefix}{'' if not prefix or prefix.endswith('/') else '/'}{message_id}"


class Sns(Model):
    """Publish the message, content included, to a topic; at most 150 KB. SES API SNSAction."""

    kind: ClassVar[str] = "SNS"
    TopicArn: Topic
    Encoding: Literal["UTF-8", "Base64"] = "UTF-8"


class Lambda(Model):
    """Invoke a function with the event, without the content. SES API LambdaAction."""

    kind: ClassVar[str] = "Lambda"
    FunctionArn: Function
    InvocationType: Literal["Event", "RequestResponse"] = "Event"
    TopicArn: Topic | None = None


class Bounce(Model):
    """Send the reverse-path a DSN. SES API BounceAction."""

    kind: ClassVar[str] = "Bounce"
    SmtpReplyCode: Annotated[str, AfterValidator(_matching(r"[45][0-9]{2}", "is not an SMTP reply code of a failure (4yz or 5yz)"))]
    Message: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_no_line_break)]
    Sender: Address
    StatusCode: Annotated[str, AfterValidator(_matching(
        r"[45]\.[0-9]{1,3}\.[0-9]{1,3}", "is not an enhanced status code (RFC 3463: 4.x.y or 5.x.y)"))] | None = None
    TopicArn: Topic | None = None


class AddHeader(Model):
    """Put a header field on top of the message, for the actions that follow. SES API AddHeaderAction."""

    kind: ClassVar[str] = "AddHeader"
    HeaderName: Annotated[str, AfterValidator(_matching(r"[A-Za-z0-9-]{1,50}", "a header name has 1 to 50 letters, digits or '-'"))]
    HeaderValue: Annotated[str, Field(max_length=2048), AfterValidator(_no_line_break)]
    TopicArn: ClassVar[None] = None


class Stop(Model):
    """End the evaluation of the rule set. SES API StopAction."""

    kind: ClassVar[str] = "Stop"
    Scope: Literal["RuleSet"]
    TopicArn: Topic | None = None


class Workmail(Model):
    """Deliver to Amazon WorkMail. SES API WorkmailAction."""

    kind: ClassVar[str] = "WorkMail"
    OrganizationArn: Annotated[str, AfterValidator(_matching(
        r"arn:aws[a-z-]*:workmail:[a-z0-9-]+:[0-9]{12}:organization/m-[a-z0-9]+",
        "is not the ARN of a WorkMail organization (arn:aws:workmail:REGION:ACCOUNT:organization/m-ID)"))]
    TopicArn: Topic | None = None


class Connect(Model):
    """Start an Amazon Connect email contact. SES API ConnectAction."""

    kind: ClassVar[str] = "Connect"
    InstanceARN: Annotated[str, AfterValidator(_matching(
        r"arn:(aws|aws-us-gov):connect:[a-z0-9-]+:[0-9]{12}:instance/[a-f0-9-]{36}",
        "is not the ARN of a Connect instance (arn:aws:connect:REGION:ACCOUNT:instance/UUID)"))]
    IAMRoleARN: Role
    TopicArn: ClassVar[None] = None


AnyAction = S3 | Sns | Lambda | Bounce | AddHeader | Stop | Workmail | Connect


class Action(Model):
    """Exactly one action, under SES's name for its type."""

    S3Action: S3 | None = None
    SNSAction: Sns | None = None
    LambdaAction: Lambda | None = None
    BounceAction: Bounce | None = None
    AddHeaderAction: AddHeader | None = None
    StopAction: Stop | None = None
    WorkmailAction: Workmail | None = None
    ConnectAction: Connect | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Action:
        if len(self.model_fields_set) != 1:
            raise ValueError("an action is exactly one of " + ", ".join(type(self).model_fields))
        return self

    @property
    def only(self) -> AnyAction:
        """The one action that is set."""
        found: AnyAction = getattr(self, next(iter(self.model_fields_set)))
        return found


class ReceiptRule(Model):
    """One receipt rule. SES API ReceiptRule."""

    Name: RuleName
    Enabled: StrictBool = True
    TlsPolicy: Literal["Require", "Optional"] = "Optional"
    Recipients: Annotated[tuple[str, ...], Field(max_length=RECIPIENTS_PER_RULE)] = ()
    Actions: Annotated[tuple[Action, ...], Field(max_length=ACTIONS_PER_RULE)] = ()
    ScanEnabled: StrictBool = False

    @field_validator("Recipients")
    @classmethod
    def _grammar(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            canonical_entry(entry)
        return entries


class IpFilterValue(Model):
    """Allow or block a network. Host bits may be set, as in SES."""

    Policy: Literal["Allow", "Block"]
    Cidr: str

    @field_validator("Cidr")
    @classmethod
    def _network(cls, value: str) -> str:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError(f"{value!r} is neither an IP address nor a network (192.0.2.0/24, 2001:db8::/32)") from None
        return value


class ReceiptFilter(Model):
    """One IP filter. SES API ReceiptFilter."""

    Name: FilterName
    IpFilter: IpFilterValue


class RuleFile(Model):
    """The whole of rules.yaml."""

    Identities: tuple[str, ...] = ()
    ActiveRuleSet: str | None = None
    RuleSets: Annotated[dict[RuleSetName, Annotated[tuple[ReceiptRule, ...], Field(max_length=RULES_PER_SET)]],
                        Field(max_length=RULE_SETS)] = {}
    Filters: Annotated[tuple[ReceiptFilter, ...], Field(max_length=FILTERS)] = ()

    @property
    def active_name(self) -> str | None:
        """The active rule set's name: as given; the only one when none is given; None when receiving is off."""
        if "ActiveRuleSet" in self.model_fields_set:
            return self.ActiveRuleSet
        return next(iter(self.RuleSets)) if len(self.RuleSets) == 1 else None

    def active(self) -> RuleSet:
        """What receiving runs on: the active set's rules, the identities, the filters."""
        name = self.active_name
        return RuleSet(name=name, rules=self.RuleSets[name] if name is not None else (), identities=self.Identities,
                       filters=self.Filters)


class RuleSet(BaseModel):
    """One revision of what receiving runs on: the active rule set, the identities and the filters; immutable, with a digest."""

    model_config = ConfigDict(frozen=True)

    name: str | None
    rules: tuple[ReceiptRule, ...]
    identities: tuple[str, ...] = ()
    filters: tuple[ReceiptFilter, ...] = ()

    @cached_property
    def lookup(self) -> Lookup:
        """Recipient -> positions of rules; disabled rules are in it, the engine tells them apart."""
        return Lookup([rule.Recipients for rule in self.rules], self.identities)

    @cached_property
    def text(self) -> str:
        """Canonical JSON; `RuleSet.model_validate_json` gives the set back."""
        data = self.model_dump(mode="json", exclude_unset=True)
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def revision(self) -> str:
        """12 hexadecimal digits of the SHA-256 of `text`: the name of this revision."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @cached_property
    def _networks(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        def networks(policy: str) -> tuple[Any, ...]:
            return tuple(ipaddress.ip_network(f.IpFilter.Cidr, strict=False) for f in self.filters if f.IpFilter.Policy == policy)

        return networks("Allow"), networks("Block")

    def admits(self, address: str) -> bool:
        """Do the IP filters let this client in? Allow beats Block; without a matching filter it may come in."""
        allow, block = self._networks
        if not block:
            return True
        ip = ipaddress.ip_address(address)
        return not any(ip in n for n in block) or any(ip in n for n in allow)
