"""The search space that search_spaces/README.md writes, in a user's folder, named by `imports`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nas_command import SMALL, Ended, Nas

import search_spaces
from nas.results.study import StudyResults

README = Path(search_spaces.__file__).with_name("README.md").read_text("utf-8")
CLASSES, BANDS, FRAMES = 3, 40, 100


def spectrograms(path: Path) -> None:
    """Write spectrograms of tones whose height is their class."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % CLASSES
    x = rng.integers(0, 100, (len(labels), BANDS, FRAMES))
    for picture, label in zip(x, labels, strict=True):
        picture[10 * label + 5 : 10 * label + 10] += 120
    np.savez(path, x=x.astype(np.uint8), y=labels)


@pytest.mark.slow
def test_a_space_of_the_users_own_is_searched_and_exported(
    nas: Nas, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (nas.folder / "my_keywords.py").write_text(code)
    spectrograms(nas.folder / "keywords.npz")
    (command,) = re.findall(r"^nas (search search_space=my_keywords.*\n.*)$", README, re.MULTILINE)
    told = command.replace("\\\n", " ").replace("'", "").split()
    own = [s for s in SMALL if not s.startswith(("experiment", "search_space", "name="))]
    ended = nas(*told, *own, "evaluation.recipe.epochs=4", "search.evaluations=4")
    assert ended.returncode == 0, ended.stderr
    study = StudyResults(nas.folder / "runs" / "keywords")
    trials = study.trials()
    # Workers found the module: nothing failed.
    assert (trials["status"] == "complete").all(), trials["failure"].tolist()
    assert trials["error"].min() < 40  # two classes of three are wrong by chance

    # This process has not seen the module yet.
    monkeypatch.setattr(sys, "path", list(sys.path))
    elsewhere = nas.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    refused = here("export", str(study.path), "--allow-imports")
    assert refused.returncode == 2
    assert refused.stderr.startswith("nas: imports: got 'my_keywords'")
    assert refused.stderr.count("\n") == 1
    monkeypatch.chdir(nas.folder)
    assert here("export", "keywords").returncode == 2
    exported = here("export", "keywords", "--allow-imports")
    assert exported.returncode == 0, exported.stderr


TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial_components.md"


@pytest.mark.slow
def test_the_tutorial_of_own_components_leads_to_an_export(nas: Nas) -> None:
    text = TUTORIAL.read_text("utf-8")
    files = re.findall(r"`(my_\w+\.py)`:\n\n```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(files) == 3
    for name, code in files:
        (nas.folder / name).write_text(code)
    commands = re.findall(r"^nas (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    for command in commands:
        ended = nas(*shlex.split(command))
        assert ended.returncode == 0, ended.stderr
    front = StudyResults(nas.folder / "runs" / "vibrations").pareto()
    assert front["error_test"].min() < 20  # guessing is wrong in 67 %
    assert {"predict.py", "model.onnx"} <= {
        p.name for p in (nas.folder / "out/vibrations").iterdir()
    }
