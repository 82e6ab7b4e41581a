"""Rule sets, receipt rules, actions and IP filters in SES's own shapes, names and limits.

SES API 2010-12-01 (ReceiptRule, ReceiptAction, ReceiptFilter) and "Quotas related to email receiving". One difference: `Enabled`
defaults to true, since a rule that someone writes into a file is meant.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictBool,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from inbound.decide.problem import shown
from inbound.decide.recipients import InvalidRecipient, Lookup, canonical_entry, split

RULES_PER_SET = 200
ACTIONS_PER_RULE = 10
RECIPIENTS_PER_RULE = 500
RULE_SETS = 40
FILTERS = 100
IDENTITIES = 10_000
OBJECT_KEY_OCTETS = 1024  # S3's own limit on a key
MESSAGE_ID_OCTETS = 40

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


class Strict(BaseModel):
    """Frozen, with PascalCase names; unknown keys are errors; an optional key without a value counts as not written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    null_has_meaning: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or not cls._may_be_absent(key)}

    @classmethod
    def _may_be_absent(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        return field is not None and not field.is_required() and key not in cls.null_has_meaning


class Model(Strict):
    """A part of the rule file, with SES's names."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form a text must have: a regular expression that editors understand too, and what to say of a text without it."""

    pattern: str
    says: str

    def check(self, value: str) -> str:
        """The value as it is. Raises ValueError."""
        if not re.fullmatch(self.pattern, value, re.ASCII):
            raise ValueError(f"{shown(value)} {self.says}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def _address(value: str) -> str:
    split(value)
    return value


def _recipient(value: str) -> str:
    canonical_entry(value)
    return value


def _identity(value: str) -> str:
    if value.startswith("."):
        raise InvalidRecipient(f"{shown(value)}: a domain covers its subdomains, write {shown(value.lstrip('.'))}")
    canonical_entry(value)
    return value


def _no_control_character(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not hold a line break or another control character")
    return value


def _prefix(value: str) -> str:
    room = OBJECT_KEY_OCTETS - MESSAGE_ID_OCTETS - 1
    octets = len(value.encode())
    if octets > room:
        raise ValueError(f"has {octets} octets in UTF-8; an S3 key has room for {room} before the message id")
    return value


def _standard(value: str) -> str:
    if value.startswith("arn:") and value.endswith(".fifo"):
        raise ValueError(f"{shown(value)} is a FIFO topic; SES publishes to standard topics only")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value if "%" not in value else "", strict=False)
    except ValueError:
        raise ValueError(f"{shown(value)} is neither an IP address nor a network (192.0.2.0/24, 2001:db8::/32)") from None
    return value


Name = Annotated[str, Form(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?",
                           "is not a name: 1 to 64 letters, digits, '.', '_' or '-', the first and the last a letter or digit")]
RuleSetName = Name
RuleName = Name
FilterName = Name
Address = Annotated[str, AfterValidator(_address)]
Recipient = Annotated[str, AfterValidator(_recipient)]
Identity = Annotated[str, AfterValidator(_identity)]
Bucket = Annotated[str, Form(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]",
                             "is not a bucket name: 3 to 255 letters, digits, '.', '_' or '-', the first and the last a letter or digit")]
Topic = Annotated[str, AfterValidator(_standard), Form(
    r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}",
    "is not the ARN of an SNS topic (arn:aws:sns:REGION:ACCOUNT:NAME)")]
Function = Annotated[str, Form(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]{1,140}(:[A-Za-z0-9$_-]{1,128})?",
    "is not the ARN of a Lambda function (arn:aws:lambda:REGION:ACCOUNT:function:NAME[:VERSION])")]
KmsKey = Annotated[str, Form(
    r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+",
    "is not the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/ID or alias/NAME)")]
Role = Annotated[str, Form(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:role/([!-~]{1,511}/)?[A-Za-z0-9_+=,.@-]{1,64}", "is not the ARN of an IAM role (arn:aws:iam::ACCOUNT:role/NAME)")]
ReplyCode = Annotated[str, Form(r"[45][0-9]{2}", "is not the SMTP reply code of a failure (4yz or 5yz, such as 550)")]
EnhancedCode = Annotated[str, Form(
    r"[45]\.[0-9]{1,3}\.[0-9]{1,3}", "is not an enhanced status code of a failure (RFC 3463, such as 5.1.1)")]

NOTIFY = "Topic to notify when the action was done; the notification is without the content."


class S3(Model):
    """Store the message as one object. SES API S3Action."""

    kind: ClassVar[str] = "S3"
    BucketName: Bucket = Field(description="Bucket to store the message in; it must exist.")
    ObjectKeyPrefix: Annotated[str, AfterValidator(_no_control_character), AfterValidator(_prefix)] = Field(
        "", description="What the object's key begins with, before the message id; a '/' is added when it lacks one.")
    TopicArn: Topic | None = Field(None, description=NOTIFY)
    KmsKeyArn: KmsKey | None = Field(None, description="KMS key to encrypt the message with before it is stored.")
    IamRoleArn: Role | None = Field(None, description="IAM role to assume for bucket, key and topic.")

    def key(self, message_id: str) -> str:
        """The object key: a `/` is inserted when the prefix lacks one, as SES does."""
        prefix = self.ObjectKeyPrefix
        return f"{prefix}{'' if not prefix or prefix.endswith('/') else '/'}{message_id}"


class Sns(Model):
    """Publish the message, content included, to a topic; at most 150 KB. SES API SNSAction."""

    kind: ClassVar[str] = "SNS"
    TopicArn: Topic = Field(description="Topic to publish the message to.")
    Encoding: Literal["UTF-8", "Base64"] = Field("UTF-8", description="How the content is written into the JSON; Base64 keeps every octet.")


class Lambda(Model):
    """Invoke a function with the event, without the content. SES API LambdaAction."""

    kind: ClassVar[str] = "Lambda"
    FunctionArn: Function = Field(description="Function to invoke; the ARN of a version or alias is passed on as it is.")
    InvocationType: Literal["Event", "RequestResponse"] = Field(
        "Event", description="RequestResponse waits for the answer, whose disposition may stop the rule or the rule set.")
    TopicArn: Topic | None = Field(None, description=NOTIFY)


class Bounce(Model):
    """Send the reverse-path a DSN. SES API BounceAction."""

    kind: ClassVar[str] = "Bounce"
    SmtpReplyCode: ReplyCode = Field(description="RFC 5321 reply code, such as 550.")
    Message: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_no_control_character)] = Field(
        description="Text for people, in the diagnostic code.")
    Sender: Address = Field(description="Address the bounce comes from.")
    StatusCode: EnhancedCode | None = Field(None, description="RFC 3463 enhanced status code, such as 5.1.1.")
    TopicArn: Topic | None = Field(None, description=NOTIFY)


class AddHeader(Model):
    """Put a header field on top of the message, for the actions that follow. SES API AddHeaderAction."""

    kind: ClassVar[str] = "AddHeader"
    HeaderName: Annotated[str, Form(r"[A-Za-z0-9-]{1,50}", "is not a header name: 1 to 50 letters, digits or '-'")] = Field(
        description="Name of the header field.")
    HeaderValue: Annotated[str, Field(max_length=2048), AfterValidator(_no_control_character)] = Field(
        description="Value of the header field, at most 2048 characters.")
    TopicArn: ClassVar[None] = None


class Stop(Model):
    """End the evaluation of the rule set. SES API StopAction."""

    kind: ClassVar[str] = "Stop"
    Scope: Literal["RuleSet"] = Field(description="What to stop; RuleSet is the only value there is.")
    TopicArn: Topic | None = Field(None, description=NOTIFY)


class Workmail(Model):
    """Deliver to Amazon WorkMail. SES API WorkmailAction."""

    kind: ClassVar[str] = "WorkMail"
    OrganizationArn: Annotated[str, Form(
        r"arn:aws[a-z-]*:workmail:[a-z0-9-]+:[0-9]{12}:organization/m-[a-z0-9]+",
        "is not the ARN of a WorkMail organization (arn:aws:workmail:REGION:ACCOUNT:organization/m-ID)")] = Field(
        description="WorkMail organization to deliver to.")
    TopicArn: Topic | None = Field(None, description=NOTIFY)


class Connect(Model):
    """Start an Amazon Connect email contact. SES API ConnectAction."""

    kind: ClassVar[str] = "Connect"
    InstanceARN: Annotated[str, Form(
        r"arn:(aws|aws-us-gov):connect:[a-z0-9-]+:[0-9]{12}:instance/[a-f0-9-]{36}",
        "is not the ARN of a Connect instance (arn:aws:connect:REGION:ACCOUNT:instance/UUID)")] = Field(
        description="Connect instance to start the contact in.")
    IAMRoleARN: Role = Field(description="IAM role to assume for it.")
    TopicArn: ClassVar[None] = None


AnyAction = S3 | Sns | Lambda | Bounce | AddHeader | Stop | Workmail | Connect


class Action(Model):
    """Exactly one action, under SES's name for its type."""

    S3Action: S3 | None = Field(None, description="Store the message in a bucket.")
    SNSAction: Sns | None = Field(None, description="Publish the message to a topic.")
    LambdaAction: Lambda | None = Field(None, description="Invoke a function.")
    BounceAction: Bounce | None = Field(None, description="Bounce the message.")
    AddHeaderAction: AddHeader | None = Field(None, description="Add a header field for the actions that follow.")
    StopAction: Stop | None = Field(None, description="End the evaluation of the rule set.")
    WorkmailAction: Workmail | None = Field(None, description="Deliver to Amazon WorkMail.")
    ConnectAction: Connect | None = Field(None, description="Start an Amazon Connect contact.")

    null_has_meaning = frozenset({"S3Action", "SNSAction", "LambdaAction", "BounceAction", "AddHeaderAction", "StopAction",
                                  "WorkmailAction", "ConnectAction"})

    @model_validator(mode="after")
    def _exactly_one(self) -> Action:
        given = sorted(self.model_fields_set)
        if len(given) != 1:
            instead = f", not {' and '.join(given)} together: begin each with its own '-'" if given else ""
            raise ValueError(f"an action is exactly one of {', '.join(type(self).model_fields)}{instead}")
        if getattr(self, given[0]) is None:
            raise ValueError(f"{given[0]} has no parameters; write them below it, indented")
        return self

    @property
    def only(self) -> AnyAction:
        """The one action that is set."""
        found: AnyAction = getattr(self, next(iter(self.model_fields_set)))
        return found


class ReceiptRule(Model):
    """One receipt rule. SES API ReceiptRule."""

    Name: RuleName = Field(description="Name of the rule, unique in its set.")
    Enabled: StrictBool = Field(True, description="Whether the rule takes part; true unless written.")
    TlsPolicy: Literal["Require", "Optional"] = Field("Optional", description="Require takes mail over TLS only.")
    Recipients: Annotated[tuple[Recipient, ...], Field(max_length=RECIPIENTS_PER_RULE)] = Field(
        (), description="Addresses (labels included), domains, or '.domain' for its subdomains; without it, every address of Identities.")
    Actions: Annotated[tuple[Action, ...], Field(max_length=ACTIONS_PER_RULE)] = Field((), description="What to do, in order.")
    ScanEnabled: StrictBool = Field(False, description="Whether to scan for spam and viruses.")

    null_has_meaning = frozenset({"Recipients"})


class IpFilterValue(Model):
    """Allow or block a network. Host bits may be set, as in SES."""

    Policy: Literal["Allow", "Block"] = Field(description="Allow beats Block.")
    Cidr: Annotated[str, AfterValidator(_network)] = Field(description="IP address or network, such as 192.0.2.0/24.")


class ReceiptFilter(Model):
    """One IP filter. SES API ReceiptFilter."""

    Name: FilterName = Field(description="Name of the filter, unique.")
    IpFilter: IpFilterValue = Field(description="Which clients, and whether they may connect.")


def _no_rules(value: Any) -> Any:
    return () if value is None else value


Rules = Annotated[tuple[ReceiptRule, ...], Field(max_length=RULES_PER_SET), BeforeValidator(_no_rules)]


class RuleFile(Model):
    """The whole of rules.yaml."""

    Identities: Annotated[tuple[Identity, ...], Field(max_length=IDENTITIES)] = Field(
        (), description="Domains (with their subdomains) and addresses that mail is received for.")
    ActiveRuleSet: str | None = Field(None, description="Rule set in use; not needed when there is one; null receives nothing.")
    RuleSets: Annotated[dict[RuleSetName, Rules], Field(max_length=RULE_SETS)] = Field({}, description="Rule sets by name.")
    Filters: Annotated[tuple[ReceiptFilter, ...], Field(max_length=FILTERS)] = Field((), description="IP filters, applied at connect.")

    null_has_meaning = frozenset({"ActiveRuleSet"})

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

    @classmethod
    def kept(cls, text: str | None) -> RuleSet | None:
        """The set that `text` is of; None where there is no text, or none that this version of inbound reads."""
        try:
            return None if text is None else cls.model_validate_json(text)
        except ValueError:
            return None

    @cached_property
    def revision(self) -> str:
        """12 hexadecimal digits of the SHA-256 of `text`: the name of this revision."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def ready(self) -> RuleSet:
        """The set itself, with everything computed that is computed once: work for a thread, not for the first message."""
        _ = self.lookup, self.revision, self._networks
        return self

    @cached_property
    def _networks(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        def networks(policy: str) -> tuple[Any, ...]:
            return tuple(_peer_network(f.IpFilter.Cidr) for f in self.filters if f.IpFilter.Policy == policy)

        return networks("Allow"), networks("Block")

    def admits(self, address: str) -> bool:
        """Do the IP filters let this client in? Allow beats Block; without a matching filter it may come in."""
        allow, block = self._networks
        if not block:
            return True
        ip = ipaddress.ip_address(address)
        return not any(ip in n for n in block) or any(ip in n for n in allow)

    def allows(self, address: str) -> bool:
        """Does an IP filter name this client as allowed?"""
        allow, _ = self._networks
        return bool(allow) and any(ipaddress.ip_address(address) in network for network in allow)


def _peer_network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network as peers are written: an IPv4-mapped IPv6 network is the IPv4 one."""
    network = ipaddress.ip_network(cidr, strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96 else None
    return ipaddress.ip_network((mapped, network.prefixlen - 96)) if mapped is not None else network
