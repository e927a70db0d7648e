"""The command that searches again as a study did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from nas.core.errors import HwnasError
from nas.results.study import StudyResults
from nas.study.composition import compose
from nas.study.reading import every_setting
from nas.study.reproduction import changed_versions, command, folder_of

EXPERIMENTS = ("quickstart", "compression", "nasbench201")
OTHERS = (
    "name='null'",
    "search_space=vit",
    "device=remote",
    'device.command="ssh \'pi@board\' \\"x\\" $HOME"',
    "device.threads=4",
    "device.runtime=openvino",
    "search=nsga2",
    "search.reference_point={error: 50.0, latency_ms: 2}",
    'search.constraints=["latency_ms <= 1e-1", "params_m < 2"]',
    "evaluation=supernet",
    "evaluation.recipe.preset=full",
    "finalise.recipe.optimizer.learning_rate=1e-4",
    "logging=tensorboard",
    "budget=15min",
)


def study_of(folder: Path, overrides: list[str]) -> StudyResults:
    """Return a study as far as its settings go."""
    settings = every_setting(compose(overrides))
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    record = {"name": "old", "versions": {"python": "2.7", "torch": "1.0"}}
    (folder / "study.json").write_text(json.dumps(record))
    study = StudyResults.__new__(StudyResults)
    study.path, study.record = folder, record
    return study


@pytest.mark.parametrize("chosen", [*([f"experiment={name}"] for name in EXPERIMENTS), OTHERS])
def test_the_command_has_the_settings_of_the_study(tmp_path: Path, chosen: list[str]) -> None:
    given = [*chosen]
    if "compression" in chosen[0]:
        given.append(f"search_space.base={tmp_path}")
    study = study_of(tmp_path / "old", given)
    words = command(study, "again")
    assert words[:2] == ["nas", "search"]
    expected = every_setting(compose(given)) | {"name": "again"}
    assert every_setting(compose(words[2:])) == expected
    for i in range(2, len(words)):
        less = [word for j, word in enumerate(words) if j != i]
        try:
            assert every_setting(compose(less[2:])) != expected, words[i]
        except HwnasError:
            continue


def test_newer_settings_keep_their_defaults_and_lost_ones_are_named(tmp_path: Path) -> None:
    study = study_of(tmp_path / "old", ["experiment=quickstart"])
    file = study.path / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    del settings["finalise"]["seeds"]
    file.write_text(yaml.safe_dump(settings))
    assert "seeds" not in " ".join(command(study, "again"))
    settings["finalise"]["speed"] = 3
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(HwnasError, match="speed"):
        command(study, "again")


def test_code_of_others_is_not_imported_unasked(tmp_path: Path) -> None:
    study = study_of(tmp_path / "old", ["experiment=quickstart"])
    file = study.path / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    own = tmp_path / "evil.py"
    own.write_text("raise SystemExit(3)")
    for changed in (
        {"imports": ["evil"]},
        {"search_space": {**settings["search_space"], "name": "compressed", "base": "evil:net"}},
    ):
        file.write_text(yaml.safe_dump(settings | changed))
        with pytest.raises(HwnasError, match=r"evil.*--allow-imports"):
            command(study, "again")


def test_versions_that_changed_are_told(tmp_path: Path) -> None:
    study = study_of(tmp_path / "old", ["experiment=quickstart"])
    changed = changed_versions(study)
    assert changed["torch"][0] == "1.0"
    assert changed["python"][0] == "2.7"
    del study.record["versions"]
    assert changed_versions(study)["torch"][0] == "-"


def test_the_new_study_lies_where_its_command_puts_it(tmp_path: Path) -> None:
    given = ["experiment=quickstart", f"runs={tmp_path / 'runs'}"]
    study = study_of(tmp_path / "moved", given)
    assert f"runs={tmp_path / 'runs'}" in " ".join(command(study, "again")).replace('"', "")
    assert folder_of(study, "again") == tmp_path / "runs" / "again"
