"""What every search space must keep; a new one is tested because it is registered."""

from __future__ import annotations

import json
import math
import pickle
import random
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from bases import required
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from whole_costs import costs_of, count

import search_spaces
from nas.core.errors import GenotypeError
from nas.core.space import Genotype
from nas.network.compact import compact_layers, without_quantisation
from nas.network.onnx import INPUT_NAME, export_onnx
from nas.network.space import SearchSpace

SHAPE, CLASSES = (3, 24, 16), 5
SAMPLES = 20


@pytest.fixture(scope="module", params=search_spaces.names())
def space(request: pytest.FixtureRequest) -> SearchSpace:
    images = {"input_shape": SHAPE, "num_classes": CLASSES}
    return search_spaces.get(request.param, **images, **required(request.param, SHAPE, CLASSES))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def corners(space: SearchSpace) -> list[Genotype]:
    """Return the genotypes of all first and of all last choices."""
    first, last = [0] * len(space.genes), [n - 1 for n in space.cardinalities]
    return [space.canonical(first), space.canonical(last)]


def trained(space: SearchSpace, genotype: Genotype) -> nn.Module:
    """Build a network whose statistics are not the initial ones."""
    torch.manual_seed(0)
    network = space.build(genotype)
    with torch.no_grad():
        for _ in range(3):
            network(1 + 2 * torch.randn(8, *space.input_shape))
    return network.eval()


def logits(network: nn.Module, weights: nn.Module) -> torch.Tensor:
    network.load_state_dict(weights.state_dict())
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network.eval()(images)


def mutations(space: SearchSpace, genotype: Genotype) -> list[tuple[str, Genotype]]:
    """Return, for every gene, the genotype with the gene's next choice."""
    changed = []
    for i, gene in enumerate(space.genes):
        choice = (genotype[i] + 1) % len(gene.choices)
        changed.append((gene.name, (*genotype[:i], choice, *genotype[i + 1 :])))
    return changed


def neighbours(space: SearchSpace, genotype: Genotype) -> list[Genotype]:
    """Return all genotypes that differ in one gene, and the genotype."""
    ends = [(genotype[:i], genotype[i + 1 :]) for i in range(len(genotype))]
    every = zip(ends, space.cardinalities, strict=True)
    return [(*start, choice, *end) for (start, end), n in every for choice in range(n)]


def test_genes_are_named_once_and_have_distinct_choices(space: SearchSpace):
    names = [gene.name for gene in space.genes]
    assert len(set(names)) == len(names)
    assert all(len(set(gene.choices)) == len(gene.choices) >= 1 for gene in space.genes)
    assert space.cardinalities == tuple(len(gene.choices) for gene in space.genes)


def test_samples_are_in_range_and_canonical(space: SearchSpace, rng: np.random.Generator):
    samples = [space.sample(rng) for _ in range(SAMPLES)]
    assert len(set(samples)) > SAMPLES / 2
    for genotype in samples:
        assert space.canonical(genotype) == genotype == space.check(genotype)
        assert all(type(choice) is int for choice in genotype)


def test_one_sample_is_drawn_as_several_are(space: SearchSpace):
    one, several = (
        space.sample(np.random.default_rng(1)),
        space.samples(1, np.random.default_rng(1)),
    )
    assert several.tolist() == [list(one)]


def test_samples_are_uniform_over_genotypes(space: SearchSpace):
    """As `samples` says: every gene is drawn uniformly, then the canonical form is taken."""
    if type(space).samples is not SearchSpace.samples:
        pytest.skip("the space draws by a rule of its own, which its own tests check")
    drawn = space.samples(2000, np.random.default_rng(0))
    raw = np.random.default_rng(0).integers(0, space.cardinalities, drawn.shape)
    np.testing.assert_array_equal(drawn, space.canonicalise(raw))
    for column, n in zip(raw.T, space.cardinalities, strict=True):
        counts = np.bincount(column, minlength=n)
        assert np.abs(counts - 2000 / n).max() < 6 * np.sqrt(2000 / n)


def test_networks_train_on_smaller_images_when_told(space: SearchSpace, rng: np.random.Generator):
    for genotype in [*corners(space), space.sample(rng)]:
        torch.manual_seed(0)
        network = space.build(genotype, auxiliary=True)
        own = torch.randn(2, *SHAPE)
        network.take_any_size(False)
        as_built = network.eval()(own)
        network.take_any_size()
        assert torch.equal(network(own), as_built)
        smaller = torch.randn(8, SHAPE[0], *(round(0.7 * side) for side in SHAPE[1:]))
        every = network.train().all_outputs(smaller)
        assert {logits.shape for logits in every} == {(8, CLASSES)}
        loss = torch.stack([logits.square().sum() for logits in every]).sum()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_samples_repeat_with_their_seed(space: SearchSpace):
    first, again = (space.sample(np.random.default_rng(3)) for _ in range(2))
    assert first == again


def test_canonical_is_idempotent(space: SearchSpace, rng: np.random.Generator):
    for _ in range(SAMPLES):
        folded = space.canonical(rng.integers(0, space.cardinalities))
        assert space.canonical(folded) == folded


def test_no_gene_is_dead(space: SearchSpace):
    """A gene that the canonical form keeps changes the network, one that it folds does not."""
    unseen = {gene.name for gene in space.genes if len(gene.choices) > 1}
    for base in corners(space):
        network = trained(space, base)
        expected = logits(space.build(base), network)
        for name, genotype in mutations(space, base):
            canonical = space.canonical(genotype)
            assert space.architecture(genotype).arch_id == space.architecture(canonical).arch_id
            other = space.build(genotype)
            shapes = {key: value.shape for key, value in other.state_dict().items()}
            alike = shapes == {k: v.shape for k, v in network.state_dict().items()}
            same = alike and torch.equal(logits(other, network), expected)
            assert same == (canonical == base), name
            if canonical != base:
                unseen.discard(name)
    assert not unseen


def test_mutation_changes_as_many_active_genes_as_it_says(
    space: SearchSpace, rng: np.random.Generator
):
    for genes in (1, 3):
        for _ in range(SAMPLES):
            old = space.sample(rng)
            new = space.mutate(old, rng, genes)
            assert new == space.canonical(new)
            pairs = zip(old, new, space.active(old), space.active(new), strict=True)
            # Genes that were inactive, or are now, follow from those that were changed.
            changed = [a != b for a, b, before, after in pairs if before and after]
            # Where one network has several genotypes, the canonical one may look quite different.
            if type(space).canonicalise is SearchSpace.canonicalise:
                assert sum(changed) <= genes
            elif genes == 1:
                assert new in {space.canonical(other) for other in neighbours(space, old)}
    assert any(space.mutate(old, rng) != old for _ in range(SAMPLES))


def test_crossover_stays_in_the_space(space: SearchSpace, rng: np.random.Generator):
    for _ in range(SAMPLES):
        first, second = space.sample(rng), space.sample(rng)
        child = space.crossover(first, second, rng)
        assert child == space.canonical(child)
        assert space.crossover(first, first, rng) == first


def test_the_size_bounds_the_canonical_genotypes(space: SearchSpace, rng: np.random.Generator):
    assert 1 < space.size <= math.prod(space.cardinalities)
    if space.size < 10**6:
        every = np.indices(space.cardinalities).reshape(len(space.genes), -1).T
        assert len(np.unique(space.canonicalise(every), axis=0)) == space.size


def test_equal_architectures_are_equal_networks(space: SearchSpace, rng: np.random.Generator):
    for _ in range(2):
        raw = rng.integers(0, space.cardinalities)
        network = trained(space, space.canonical(raw))
        expected = logits(space.build(space.canonical(raw)), network)
        assert torch.equal(logits(space.build(raw), network), expected)


@pytest.mark.parametrize("corner", [0, 1])
def test_corners_train(space: SearchSpace, corner: int):
    network = space.build(corners(space)[corner])
    output = network(torch.randn(4, *SHAPE))
    assert output.shape == (4, CLASSES)
    nn.functional.cross_entropy(output, torch.tensor([0, 1, 2, 3])).backward()
    for name, parameter in network.named_parameters():
        # Of the smallest choices it may be that nothing of the image reaches the classifier.
        assert parameter.grad is not None or corner == 0, name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("corner", [0, 1])
def test_corners_export_to_onnx(space: SearchSpace, corner: int, tmp_path: Path):
    network = trained(space, corners(space)[corner])
    path = export_onnx(network, SHAPE, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((4, *SHAPE), dtype=np.float32)
    got = np.concatenate([session.run(None, {INPUT_NAME: image[None]})[0] for image in images])
    with torch.inference_mode(), without_quantisation(network):  # of which the file has nothing
        expected = network(torch.from_numpy(images)).numpy()
    assert np.abs(got - expected).max() <= 1e-4


@pytest.mark.slow
def test_largest_networks_export_to_onnx_with_a_dynamic_batch(space: SearchSpace, tmp_path: Path):
    network = trained(space, corners(space)[1])
    path = export_onnx(network, SHAPE, tmp_path / "model.onnx", dynamic_batch=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for number in (1, 2, 5):
        images = torch.randn(number, *SHAPE, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode(), without_quantisation(network):
            expected = network(images).numpy()
        [found] = session.run(None, {INPUT_NAME: images.numpy()})
        assert np.abs(found - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1)


def test_costs_are_those_of_the_network(space: SearchSpace, rng: np.random.Generator):
    for genotype in (*corners(space), space.sample(rng)):
        costs = costs_of(space, genotype)
        network = space.build(genotype).eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(torch.zeros(1, *SHAPE))
        assert costs.params == sum(p.numel() for p in network.parameters())
        if not any(True for _ in compact_layers(network)):
            tensors = [*network.parameters(), *network.buffers()]
            assert costs.model_bytes == sum(t.numel() * t.element_size() for t in tensors)
        assert 2 * costs.macs == counter.get_total_flops()
        assert costs.peak_activation_bytes >= 4 * np.prod(SHAPE)
        assert sum(layer.macs for layer in costs.layers) == costs.macs
        assert sum(layer.params for layer in costs.layers) == costs.params


def test_looked_up_costs_are_those_of_a_trace_of_the_whole_network(
    space: SearchSpace, rng: np.random.Generator
):
    genotypes = [*corners(space), *space.samples(SAMPLES, rng).tolist()]
    table = space.costs(genotypes)
    for genotype, (_, row) in zip(genotypes, table.iterrows(), strict=True):
        with torch.device("meta"):
            network = space.build(genotype)
        whole = count(network, space.input_shape)
        assert costs_of(space, genotype) == whole
        assert row["params_m"] == whole.params / 1e6
        assert row["macs_m"] == whole.macs / 1e6
        assert row["activations_m"] == whole.activations / 1e6
        assert row["peak_activation_mb"] == whole.peak_activation_bytes / 1e6
        assert row["model_size_mb"] == whole.model_bytes / 1e6
        described = space.describe(genotype)
        assert sum(block["params"] for block in described) == whole.params
        assert sum(block["macs"] for block in described) == whole.macs


def test_encodings_tell_architectures_apart(space: SearchSpace, rng: np.random.Generator):
    genotypes = sorted({space.sample(rng) for _ in range(SAMPLES)} | set(corners(space)))
    one_hot = space.one_hot(genotypes)
    assert one_hot.shape == (len(genotypes), sum(space.cardinalities))
    assert len(np.unique(one_hot, axis=0)) == len(genotypes)
    graphs = space.encode_graphs(genotypes)
    n, m = graphs.operations.shape
    assert n == len(genotypes)
    assert graphs.adjacency.shape == (n, m, m)
    assert not np.tril(graphs.adjacency).any()  # operations come in an order in which they run
    assert graphs.operations.max() < len(space.operations)


def test_presets_are_spaces(space: SearchSpace):
    for preset in type(space).presets():
        settings = json.loads(json.dumps(preset.settings))
        other = search_spaces.get(search_spaces.registry.settings(space)["name"], **settings)
        assert other.size > 1
        for genotype in other.references().values():
            assert other.canonical(genotype) == genotype
        assert not preset.published_size or preset.source


def test_global_random_state_is_left_alone(space: SearchSpace, rng: np.random.Generator):
    def states() -> tuple[object, ...]:
        legacy = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one is the point
        return torch.get_rng_state().tolist(), legacy, random.getstate()

    before = states()
    genotype = space.sample(rng)
    space.build(genotype)
    costs_of(space, genotype)
    space.references()
    assert states() == before


def test_references_lie_in_the_space(space: SearchSpace):
    for genotype in space.references().values():
        assert space.canonical(genotype) == genotype


def test_wrong_genotypes_are_refused_by_gene(space: SearchSpace):
    first, last = space.genes[0], space.genes[-1]
    rest = [0] * (len(space.genes) - 1)
    for wrong in (len(first.choices), -1, 0.5, "0", None, True):
        with pytest.raises(GenotypeError, match=f"gene {first.name}: got {wrong!r}"):
            space.build([wrong, *rest])
    with pytest.raises(GenotypeError, match=f"gene {last.name}: got {len(last.choices)}"):
        space.build([*rest, len(last.choices)])
    with pytest.raises(GenotypeError, match=f"got {len(rest)} genes, expected {len(rest) + 1}"):
        space.build(rest)


def test_settings_lead_back_to_the_space(space: SearchSpace):
    settings = json.loads(json.dumps(search_spaces.registry.settings(space)))
    again = search_spaces.get(**settings)
    assert again == space
    assert again.space_id == space.space_id
    assert pickle.loads(pickle.dumps(space)) == space  # noqa: S301 - as Ray sends it


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 20, 33), (2, 64, 40)])
def test_images_of_other_shapes(space: SearchSpace, shape: tuple[int, int, int]):
    settings = search_spaces.registry.settings(space)
    name = settings["name"]
    given = required(name, shape, 2)
    other = search_spaces.get(name, input_shape=shape, num_classes=2, **given)
    for genotype in corners(other):
        assert other.build(genotype).eval()(torch.zeros(2, *shape)).shape == (2, 2)
