"""A network of one's own made smaller by the command, on real workers and a real device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bases import Net
from nas_command import Finished, Nas
from safetensors.torch import load_file, save_file

from nas import data, results
from nas.core.recipe import Recipe
from nas.network.trained import Preprocessing
from nas.training.trainer import evaluate, train

pytestmark = pytest.mark.slow

SETTINGS = (
    "data=digits",
    "name=small",
    "search.evaluations=40",
    "search_space.channels=[1,0.5]",
    "search_space.precisions=[fp32,int8]",
    "finalise.limit=3",
    "finalise.recipe.epochs=2",
    "latency_predictor.samples=20",
)


@pytest.fixture(scope="module")
def base_error() -> list[float]:
    return []


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory, base_error: list[float]) -> Nas:
    """The folder of a study that has compressed a network of a module beside it."""
    nas = Nas(tmp_path_factory.mktemp("compressed"))
    splits = data.get("digits").search_splits()
    torch.manual_seed(0)
    network, preprocessing = Net(1, 10), Preprocessing.of(splits.train)
    train(network, splits.train, Recipe.of("fast", epochs=10), preprocessing)
    base_error.append(evaluate(network.eval(), splits.validation, preprocessing)["error"])
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, nas.folder / "weights.safetensors")
    source = Path(__file__).resolve().parent.parent / "bases.py"
    (nas.folder / "my_models.py").write_text(
        source.read_text() + "\n\ndef net():\n    return Net(1, 10)\n"
    )
    ended = nas("compress", "my_models:net", "--weights", "weights.safetensors", *SETTINGS)
    assert ended.returncode == 0, ended.stderr
    return nas


def test_the_base_is_judged_first_and_its_neighbours_next(
    compressed: Nas, base_error: list[float]
) -> None:
    trials = results.open_study("small", compressed.folder / "runs").trials()
    assert (trials["status"] == "complete").all()
    first = trials.sort_values("number").iloc[0]
    assert set(first["genotype"]) == {0}
    assert first["error"] == pytest.approx(base_error[0])
    changed = trials["genotype"].map(np.count_nonzero)
    assert (changed == 1).sum() >= 10


def test_the_base_adds_hypervolume_and_the_most_accurate_network_is_verified(
    compressed: Nas,
) -> None:
    study = results.open_study("small", compressed.folder / "runs")
    trials = study.trials().sort_values("number")
    columns = list(study.columns.values())
    assert (trials.iloc[0][columns].to_numpy(float) < np.array(study.reference_point)).all()
    found = study.pareto(objectives=columns)
    least = found.loc[found["error"].idxmin(), "error"]
    assert trials.loc[trials["verified"].astype(bool), "error"].min() == least


def test_the_front_is_smaller_and_deployed_as_it_is_judged(compressed: Nas) -> None:
    study = results.open_study("small", compressed.folder / "runs")
    front = study.pareto()
    assert front["verified"].all()
    whole = study.trials().sort_values("number").iloc[0]["model_size_mb_predicted"]
    assert front["model_size_mb"].min() < 0.5 * whole
    # The file is its tensors and its graph, of some kilobytes.
    apart = (front["model_size_mb"] - front["model_size_mb_predicted"]).abs()
    assert (apart < 0.04).all()
    for arch_id in front["arch_id"]:
        [folder] = study.path.glob(f"*/{arch_id}")
        deployment = json.loads((folder / "deployment.json").read_text())
        nodes = [node.op_type for node in onnx.load(folder / deployment["file"]).graph.node]
        choices = json.loads((folder / "network.json").read_text())["provenance"]["choices"]
        assert ("QuantizeLinear" in nodes) == ("int8" in choices.values())


def test_what_single_choices_change_is_printed_and_drawn(compressed: Nas) -> None:
    # The network is kept without the code that it comes from.
    (compressed.folder / "my_models.py").rename(compressed.folder / "elsewhere.py")
    printed = compressed("sensitivity", "small", "--json")
    assert printed.returncode == 0, printed.stderr
    records = json.loads(printed.stdout)
    assert {record["gene"].rpartition(".")[2] for record in records} == {"keep", "precision"}
    assert all(record["model_size_mb_predicted_change"] < 0 for record in records)
    drawn = compressed("sensitivity", "small", "--out", "there.png")
    assert drawn.returncode == 0, drawn.stderr
    (compressed.folder / "elsewhere.py").rename(compressed.folder / "my_models.py")
    assert (compressed.folder / "there.png").stat().st_size > 10_000


def test_a_base_that_has_changed_is_refused(compressed: Nas) -> None:
    file = compressed.folder / "weights.safetensors"
    before = file.read_bytes()
    weights = load_file(file)
    weights["linear.bias"] += 1
    save_file(weights, file)
    more = [f"{s}1" if s.startswith("search.evaluations") else s for s in SETTINGS]
    with_weights = ("my_models:net", "--weights", "weights.safetensors")
    ended = compressed("compress", *with_weights, *more)
    assert ended.returncode == 2
    assert "have changed" in ended.stderr
    file.write_bytes(before)


def test_a_compressed_network_is_exported_and_runs_alone(compressed: Nas) -> None:
    ended = compressed("export", "small", "--pick", "fastest")
    assert ended.returncode == 0, ended.stderr
    source = (compressed.folder / "out" / "model.py").read_text()
    assert "import nas" not in source
    assert "my_models" not in source


def test_a_network_of_a_study_is_a_base(finished: Finished, nas: Nas) -> None:
    runs = finished.folder.parent
    pick = f"{finished.folder.name}:best"
    settings = ("data=digits", f"runs={runs}", "name=again", "search.objectives=[error,params_m]")
    checked = nas("compress", pick, *settings, "--check")
    assert checked.returncode == 0, checked.stderr
    unknown = nas("compress", f"{finished.folder.name}:nothing", *settings, "--check")
    assert unknown.returncode == 2
    assert "search_space.base" in unknown.stderr
