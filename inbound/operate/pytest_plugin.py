"""pytest runs the cases of `inbound test` as well, where a project asks for it in its ini file: `inbound_cases = tests/rules`.

Everywhere else it does nothing, and imports nothing: it is loaded wherever inbound is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from inbound.operate.cases import CaseFile


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two settings, both from the folder of the ini file."""
    parser.addini("inbound_cases", "folders whose *.yaml are cases of `inbound test`", type="paths", default=[])
    parser.addini("inbound_rules", "the rule file, for case files that name none (default: rules.yaml)", type="paths", default=[])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """Take what lies in such a folder."""
    folders: list[Path] = parent.config.getini("inbound_cases")
    if not folders or file_path.suffix not in (".yaml", ".yml") or not any(file_path.is_relative_to(folder) for folder in folders):
        return None
    found: pytest.File = CasesOfFile.from_parent(parent, path=file_path)
    return found


class CasesOfFile(pytest.File):
    """One case file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Its cases."""
        from inbound.decide.problem import RulesError  # noqa: PLC0415  # only where a project has cases
        from inbound.operate.cases import CaseFile  # noqa: PLC0415
        from inbound.settings import SettingsError, read  # noqa: PLC0415

        named: list[Path] = self.config.getini("inbound_rules")
        try:
            file = CaseFile(self.path, named[0] if named else self.config.rootpath / "rules.yaml", read())
        except (RulesError, SettingsError) as error:
            raise self.CollectError(str(error)) from None
        for number, case in file:
            yield CaseItem.from_parent(self, name=case.Name, file=file, number=number)


class CaseDiffers(Exception):
    """Something else happens than the case expects; str() tells the difference."""


class CaseItem(pytest.Item):
    """One case."""

    def __init__(self, *, file: CaseFile, number: int, **more: Any) -> None:
        super().__init__(**more)
        self._file = file
        self._number = number

    def runtest(self) -> None:
        """Suppose that the message was sent. Raises CaseDiffers, RulesError."""
        found = self._file.run(self._number)
        if found.difference:
            raise CaseDiffers("\n".join(found.difference))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The difference without a traceback, for what is no fault of ours."""
        from inbound.decide.problem import RulesError  # noqa: PLC0415  # only where a project has cases

        if isinstance(excinfo.value, CaseDiffers | RulesError):
            return f"{self.path}:{self._file.line(self._number)}: {self.name}\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it stands."""
        return self.path, self._file.line(self._number) - 1, self.name
