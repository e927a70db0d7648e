"""Pictures of how a study went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_studies import GENES, finalise, make_trial
from PIL import Image

from nas.core.errors import ConfigError, HwnasError
from nas.results.figures import genes_figure, predictor_figure, progress_figure
from nas.results.page.contents import progress
from nas.results.pictures import FORMATS, write_picture
from nas.results.study import StudyResults


@pytest.fixture
def study(study_folder: Callable[..., Path]) -> StudyResults:
    """A study with a verified front of two."""
    values = ((30.0, 2.0), (9.0, 3.0), (20.0, 1.0))
    trials = [make_trial(k, error, ms) for k, (error, ms) in enumerate(values)]
    folder = study_folder(trials, status="finalised")
    finalise(folder, trials[1], measured_ms=3.1)
    finalise(folder, trials[2], measured_ms=0.9)
    return StudyResults(folder)


def test_progress_is_drawn_over_trials_and_time(study: StudyResults) -> None:
    found = progress(study, study.trials())
    assert len(found) >= 2
    over_trials, over_time = progress_figure(study).axes
    shares = [row["hypervolume"] for row in found]
    for axes, xs in (
        (over_trials, [row["trials"] for row in found]),
        (over_time, [row["seconds"] / 60 for row in found]),
    ):
        assert axes.lines[0].get_xydata().tolist() == np.transpose([xs, shares]).tolist()


def test_predictions_stand_over_what_was_measured(study: StudyResults) -> None:
    [axes] = predictor_figure(study).axes
    [points] = [c for c in axes.containers if c.get_label() == "not seen by the predictor before"]
    assert sorted(points.lines[0].get_xydata().tolist()) == [[0.9, 1.0], [3.1, 3.0]]


def test_without_measurements_there_is_no_picture_of_the_predictor(
    study_folder: Callable[..., Path],
) -> None:
    alone = StudyResults(study_folder([make_trial(0, 20.0, 1.0)]))
    with pytest.raises(HwnasError, match="no architecture was both predicted and measured"):
        predictor_figure(alone)


def test_shares_of_each_gene_sum_to_a_hundred(study: StudyResults) -> None:
    [axes] = genes_figure(study, GENES).axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    genes = [label.partition(" = ")[0] for label in labels]
    assert set(genes) == {gene.name for gene in GENES}
    for bars in axes.containers:
        widths = np.array([bar.get_width() for bar in bars])
        for gene in set(genes):
            assert widths[np.array(genes) == gene].sum() == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("suffix", FORMATS)
def test_equal_figures_give_equal_files(study: StudyResults, tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        write_picture(progress_figure(study), file)
    first, second = (file.read_bytes() for file in files)
    assert first == second
    if suffix == ".png":
        assert min(Image.open(files[0]).size) > 300
    elif suffix == ".svg":
        texts = [node.text for node in ElementTree.parse(files[0]).iter() if node.text]
        assert "minutes of search" in texts
    else:
        assert first.startswith(b"%PDF")


def test_a_file_of_another_kind_is_refused(study: StudyResults, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.bmp.*\.png, \.svg, \.pdf"):
        write_picture(progress_figure(study), tmp_path / "a.bmp")
    assert not list(tmp_path.glob("*.bmp"))
