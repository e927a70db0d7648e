"""Who may write a study's folder, and when what lies in it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nas.core.errors import ConfigError, HwnasError
from nas.study.folder import StudyFolder

CONFIG = {
    "seed": 0,
    "search_space": {"name": "mobilenet", "widths": [0.5, 1.0]},
    "search": {"evaluations": 6, "objectives": ["error"], "algorithm": {"name": "nsga2"}},
    "finalise": {"limit": 2, "recipe": {"epochs": 3}},
    "ledger": {"url": None},
}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "runs" / "digits")


def begun(folder: StudyFolder) -> None:
    """Leave what a study leaves that has begun to search."""
    folder.path.mkdir(parents=True)
    folder.save(CONFIG)
    folder.record_path.write_text("{}")


def verified(folder: StudyFolder) -> None:
    begun(folder)
    part = folder.finalised / "abc"
    part.mkdir(parents=True)
    (part / "network.json").write_text("{}")


def calibrated(folder: StudyFolder) -> None:
    folder.predictor.mkdir(parents=True)
    folder.save(CONFIG)


def test_a_refused_run_leaves_no_folder(folder: StudyFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError), folder.locked():
        raise ConfigError("x", 1, "2")
    assert not list(tmp_path.iterdir())


def test_a_refused_run_leaves_other_studies(folder: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "runs" / "other").mkdir(parents=True)
    with folder.locked():
        pass
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


def test_a_run_leaves_its_configuration_once_something_depends_on_it(folder: StudyFolder) -> None:
    with folder.locked():
        folder.save(CONFIG)
    assert not folder.path.exists()
    with folder.locked():
        folder.save(CONFIG)
        folder.predictor.mkdir()
    assert folder.saved() == CONFIG


def test_one_process_at_a_time(folder: StudyFolder) -> None:
    with folder.locked():
        with pytest.raises(HwnasError, match="another process runs this study"), folder.locked():
            pass
        folder.save(CONFIG)
    with folder.locked():
        pass


def test_a_lock_file_that_was_removed_locks_nothing(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = StudyFolder._take

    def remove_and_take(self: StudyFolder, file: object) -> None:
        (self.path / ".lock").unlink()
        take(self, file)  # type: ignore[arg-type]

    monkeypatch.setattr(StudyFolder, "_take", remove_and_take)
    with pytest.raises(HwnasError, match="another process"), folder.locked():
        pass


@pytest.mark.parametrize(
    ("state", "change", "setting"),
    [
        (begun, {"seed": 1}, "seed"),
        (begun, {"search_space": {"name": "mobilenet", "widths": [1.0]}}, "search_space.widths"),
        (begun, {"search": {**CONFIG["search"], "objectives": ["macs_m"]}}, "search.objectives"),
        (begun, {"ledger": {"url": "sqlite:////x.db"}}, "ledger.url"),
        (calibrated, {"search_space": {"name": "other"}}, "search_space.name"),
        (verified, {"finalise": {"limit": 2, "recipe": {"epochs": 9}}}, "finalise.recipe.epochs"),
    ],
)
def test_what_something_depends_on_cannot_change(
    folder: StudyFolder,
    state: Callable[[StudyFolder], None],
    change: dict[str, object],
    setting: str,
) -> None:
    state(folder)
    folder.check(CONFIG)
    with pytest.raises(ConfigError, match="give the new study another name") as refused:
        folder.check({**CONFIG, **change})
    assert refused.value.argument == setting


@pytest.mark.parametrize(
    ("state", "change"),
    [
        (begun, {"search": {**CONFIG["search"], "evaluations": 12}}),
        (begun, {"finalise": {"limit": 2, "recipe": {"epochs": 9}}}),
        (begun, {"runs": "elsewhere"}),
        (verified, {"finalise": {"limit": 9, "recipe": {"epochs": 3}}}),
        (calibrated, {"search": {**CONFIG["search"], "objectives": ["macs_m"]}}),
    ],
)
def test_what_nothing_depends_on_may_change(
    folder: StudyFolder, state: Callable[[StudyFolder], None], change: dict[str, object]
) -> None:
    state(folder)
    folder.check({**CONFIG, **change})
