"""What an operator is told of the rules, by whichever process watches their file: the revision in force, what was refused, what is lacking."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType

from inbound.decide.load import Loaded, RulesError
from inbound.decide.rules import RuleSet
from inbound.decide.unsigned import unsigned
from inbound.deliver.alerts import Kind, Tell
from inbound.log import Event, Log
from inbound.metrics import RELOADS, RULES_GOOD, Metrics
from inbound.settings import Settings

SCANNER_SETTINGS = MappingProxyType({"spam": "INBOUND_RSPAMD", "virus": "INBOUND_CLAMD"})

WARNINGS = 20  # of a rule file that are logged; a large one can have thousands


class Bulletin:
    """Tells the log, the metrics and the alerts of the process. In `production` what would only harm there is told of, too."""

    def __init__(self, settings: Settings, log: Log, metrics: Metrics, tell: Tell, *, production: bool, scanners: Collection[str]) -> None:
        self._settings = settings
        self._log = log
        self._metrics = metrics
        self._tell = tell
        self._production = production
        self._scanners = scanners
        metrics.count(RELOADS, "rejected", by=0)  # an increase needs a beginning

    def loaded(self, loaded: Loaded) -> None:
        """A revision is about to take effect."""
        rule_set = loaded.rule_set
        self._metrics.count(RELOADS, "loaded")
        self._metrics.put(RULES_GOOD, 1)
        self._tell(Kind.RULES_REJECTED, f"revision {rule_set.revision} is in force", str(self._settings.rules), over=True)
        self._log.info(Event.RULES_LOADED, file=str(self._settings.rules), rule_set=rule_set.name or "", rules=len(rule_set.rules),
                       revision=rule_set.revision)
        unsigned_bounces = unsigned(loaded, self._settings.dkim_domain) if self._production else ()
        warnings = (*unsigned_bounces, *loaded.warnings)
        for warning in warnings[:WARNINGS]:
            self._log.warning(Event.SERVICE_WARNING, warning=f"{warning} [{warning.code}]")
        if len(warnings) > WARNINGS:
            self._log.warning(Event.SERVICE_WARNING, warning=f"{self._settings.rules} has {len(warnings) - WARNINGS} more warnings: inbound check")

    def rejected(self, error: RulesError, kept: str) -> None:
        """The file is broken; the revision `kept` stays in force."""
        self._metrics.count(RELOADS, "rejected")
        self._metrics.put(RULES_GOOD, 0)
        self._tell(Kind.RULES_REJECTED, str(error).splitlines()[0], str(self._settings.rules))
        self._log.error(Event.RULES_REJECTED, file=str(self._settings.rules), errors=str(error).splitlines(), kept=kept)

    def started(self, rule_set: RuleSet) -> None:
        """Mail is accepted from now on, and these rules lack something."""
        if rule_set.name is None:
            self._log.warning(Event.SERVICE_WARNING, warning="no rule set is active: every recipient is refused")
        elif self._production and any(rule.Enabled and rule.ScanEnabled for rule in rule_set.rules):
            for kind, setting in SCANNER_SETTINGS.items():
                if kind not in self._scanners:
                    self._log.warning(Event.SERVICE_WARNING, warning=f"ScanEnabled is set, but no {kind} scanner is configured ({setting}): "
                                                                     f"the {kind} verdict is GRAY")
