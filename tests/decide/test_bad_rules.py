"""One file for each way a rule file can be wrong: `bad/NAME.yaml`, and in `bad/NAME.err` exactly what people are told.

A new way to be wrong is a new .yaml and `--write-golden`; nothing here changes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from inbound.decide.load import RulesError, load

BAD = Path(__file__).parent / "bad"


@pytest.mark.parametrize("name", sorted(path.stem for path in BAD.glob("*.yaml")))
def test_every_error_is_told_with_its_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              request: pytest.FixtureRequest) -> None:
    (tmp_path / "rules.yaml").write_bytes((BAD / f"{name}.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RulesError) as raised:
        load(Path("rules.yaml"))
    if request.config.getoption("--write-golden"):
        (BAD / f"{name}.err").write_text(f"{raised.value}\n", encoding="utf-8")
    assert f"{raised.value}\n" == (BAD / f"{name}.err").read_text(encoding="utf-8")


def test_each_bad_file_has_its_errors_and_the_other_way_round() -> None:
    assert {path.stem for path in BAD.glob("*.yaml")} == {path.stem for path in BAD.glob("*.err")}
