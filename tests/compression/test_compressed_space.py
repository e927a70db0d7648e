"""Networks whose channels and ranks are genes, against the network that they come from."""

from __future__ import annotations

import sys
import types
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bases import Residual
from torch import nn

import search_spaces
from nas.compression.base import Base
from nas.compression.channels import Channels
from nas.compression.importance import importance
from nas.compression.layers import CompressedConvolution
from nas.core.errors import ConfigError
from nas.network.compact import compact_layers
from nas.network.recalibration import recalibrate
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing, TrainedNetwork

IMAGES = {"input_shape": (1, 28, 28), "num_classes": 10}


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.layers = nn.Sequential(Residual(8, 8, 1, projected=False), Residual(8, 16, 2))
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(16 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.adaptive_avg_pool2d(self.layers(self.stem(x)), 2)
        return self.fc(self.drop(x.view(x.size(0), -1)))


class Mixed(nn.Module):
    """Depthwise and grouped convolutions, attention to channels, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Conv2d(1, 12, 3, 2)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.other = nn.Conv2d(12, 6, 1)
        self.grouped = nn.Conv2d(18, 8, 1, groups=2)
        self.twofold = nn.Conv2d(8, 16, 3, groups=8)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.depth(self.point(x)))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.cat([x, self.other(x)], dim=1)
        return self.head(self.twofold(self.grouped(x)).mean([2, 3]))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 16, 7, 7)
        self.position = nn.Parameter(0.1 * torch.randn(1, 16, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        n, tokens, width = x.shape
        heads = self.qkv(self.norm1(x)).reshape(n, tokens, 3, 2, width // 2)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(seen)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class ChannelsLast(nn.Module):
    """Linear layers on images whose channels are the last axis, as in ConvNeXt; 12 and 5 differ."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 6, 5)
        self.norm, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 24), nn.Linear(24, 12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.down(F.gelu(self.up(self.norm(x.permute(0, 2, 3, 1)))))
        return self.head((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


class WithBuffers(nn.Module):
    """Reads an index and a constant, neither of which is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(784, 20)
        self.head = nn.Linear(20, 10)
        self.register_buffer("order", torch.arange(20).flip(0))
        self.register_buffer("shift", torch.linspace(-1, 1, 20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x.flatten(1))
        return self.head(torch.relu(x[:, self.order] + self.shift))


class Upsampled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(1, 8, 3), nn.ConvTranspose2d(8, 8, 2, 2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.up(self.stem(x)).mean((2, 3)))


class InPlace(nn.Module):
    """Goes on with a tensor that an operation has changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(784, 20), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x.flatten(1))
        x.relu_()
        return self.head(x)


class ReadTwice(nn.Module):
    """Reads one parameter in two functions."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(20))
        self.fc, self.head = nn.Linear(784, 20), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.fc(x.flatten(1)) * self.scale) * self.scale)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(784, 784), nn.Linear(784, 784)
        self.second.weight = self.first.weight
        self.head = nn.Linear(784, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(torch.relu(self.first(x.flatten(1)))))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x.flatten(1))
        return x if x.sum() > 0 else -x


class Twice(Branching):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.fc(x) + self.fc(-x)


CLASSES = (
    *(ResNet, Mixed, Transformer, ChannelsLast, WithBuffers, Upsampled),
    *(InPlace, ReadTwice, Tied, Branching, Twice),
)


def made(cls: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = cls()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("models_of_tests")
    for cls in CLASSES:
        setattr(module, cls.__name__, lambda cls=cls: made(cls))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def space_of(cls: type[nn.Module], **settings: object) -> SearchSpace:
    base = f"models_of_tests:{cls.__name__}"
    chosen = {"precisions": ("fp32",), **settings}
    return search_spaces.get("compressed", **IMAGES, base=base, **chosen)


@pytest.mark.parametrize("cls", [ResNet, Mixed, Transformer, ChannelsLast, WithBuffers])
def test_unchanged_it_is_the_base(cls: type[nn.Module]) -> None:
    space = space_of(cls, ranks=(1.0, 0.5))
    base, images = made(cls).eval(), torch.randn(5, 1, 28, 28)
    network = space.build(space.references()["base"]).eval()
    torch.testing.assert_close(network(images), base(images), rtol=1e-6, atol=1e-6)
    parameters = sum(p.numel() for p in base.parameters())
    assert space.costs([space.references()["base"]])["params_m"][0] == parameters / 1e6
    for genotype in space.samples(5, np.random.default_rng(0)).tolist():
        smaller = space.build(genotype).eval()
        assert smaller(images).shape == (5, 10)
        counted = space.costs([genotype])["params_m"][0]
        assert counted == sum(p.numel() for p in smaller.parameters()) / 1e6


@pytest.mark.parametrize(
    ("cls", "groups"),
    [
        # A residual sum and what leads to it have the same channels; classes all stay.
        (
            ResNet,
            {
                frozenset({"stem_0", "layers_0_second"}),
                frozenset({"layers_0_first"}),
                frozenset({"layers_1_first"}),
                frozenset({"layers_1_second", "layers_1_shortcut"}),
            },
        ),
        # What a grouped convolution reads stays.
        (Mixed, {frozenset({"squeeze"})}),
        # What normalisations of tokens read stays.
        (Transformer, {frozenset({"qkv"}), frozenset({"up"})}),
    ],
)
def test_channels_that_belong_together_are_one_gene(
    cls: type[nn.Module], groups: set[frozenset[str]]
) -> None:
    space = space_of(cls)
    found = {frozenset(group.makers) for group in space._channels.removable().values()}
    assert found == groups
    assert len(space.genes) == len(groups)


def test_layers_that_stay_are_listed() -> None:
    whole, left = space_of(Mixed).remarks, space_of(Upsampled).remarks
    assert [line.rpartition(": ")[2] for line in whole] == [
        "point, depth, excite, other, grouped, twofold"
    ]
    assert [line.rpartition(": ")[2] for line in left] == ["up (ConvTranspose2d)", "stem"]
    assert not space_of(ResNet).remarks


def test_buffers_stay_what_they_are() -> None:
    base = made(WithBuffers)
    network = space_of(WithBuffers).build(space_of(WithBuffers).references()["base"])
    assert len(list(network.parameters())) == len(list(base.parameters()))
    kinds = {tensor.dtype for tensor in network.buffers()}
    assert kinds == {torch.int64, torch.float32}


def test_removed_channels_are_as_if_they_were_zero() -> None:
    space, images = space_of(ResNet), torch.randn(5, 1, 28, 28)
    for position, gene in enumerate(space.genes):
        base = made(ResNet).eval()
        genotype = list(space.references()["base"])
        genotype[position] = gene.choices.index(0.5)
        kept = space._indices(tuple(genotype))
        [number] = [n for n, order in space._orders.items() if len(kept[n]) < len(order)]
        gone = torch.ones(len(space._orders[number]), dtype=torch.bool)
        gone[kept[number]] = False
        paths = {layer.name: layer.path for layer in space._layers}
        names = [paths[maker] for maker in space._channels._groups[number].makers]
        for path in names:
            layer = base.get_submodule(path)
            layer.weight.data[gone] = 0
            if layer.bias is not None:
                layer.bias.data[gone] = 0
        for norm in (m for m in base.modules() if isinstance(m, nn.BatchNorm2d)):
            follows = {"stem.0": base.stem[1], "layers.0.second": base.layers[0].norm2}
            follows |= {f"layers.{i}.first": base.layers[i].norm1 for i in (0, 1)}
            follows |= {
                "layers.1.second": base.layers[1].norm2,
            }
            if any(follows.get(path) is norm for path in names):
                norm.weight.data[gone] = 0
                norm.bias.data[gone] = 0
        network = space.build(genotype).eval()
        torch.testing.assert_close(network(images), base(images), rtol=1e-5, atol=1e-5)


CHANGES = {
    "channels": {"channels": (1.0, 0.5)},
    "zeros": {"sparsities": (0.0, 0.7)},
    "values": {"clusters": (0, 4)},
    "bits": {"precisions": ("fp32", "int4_weights")},
    "rank": {"ranks": (1.0, 0.5)},
}


@pytest.mark.parametrize("settings", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("cls", [ResNet, Transformer, ChannelsLast])
def test_biases_are_corrected_for_what_is_lost(cls: type[nn.Module], settings: dict) -> None:
    space = space_of(cls, **{"channels": (1.0,), **settings})
    images, genotype = torch.randn(64, 1, 28, 28), [1 for _ in space.genes]
    base, network = made(cls).eval(), space.build(genotype).eval()
    with torch.no_grad():
        expected = base(images).mean(0)
        recalibrate(network, [images])
        assert (network(images).mean(0) - expected).abs().max() > 1e-3
        space.calibrate(network, genotype, [images])
        torch.testing.assert_close(network(images).mean(0), expected, rtol=1e-4, atol=1e-4)


def test_the_base_keeps_its_statistics_and_biases() -> None:
    space = space_of(ResNet)
    genotype = space.references()["base"]
    network, images = space.build(genotype).eval(), torch.randn(64, 1, 28, 28)
    with torch.no_grad():
        before = network(images)
        space.calibrate(network, genotype, [images])
        assert torch.equal(network(images), before)


def test_networks_with_one_choice_in_all_layers_are_references() -> None:
    several = {"channels": (1.0, 0.5), "precisions": ("fp32", "int8_weights", "int4_weights")}
    found = space_of(ResNet, **several).references()
    names = {"channels=0.5", "precisions=int8_weights", "precisions=int4_weights"}
    assert found.keys() == {"base", *names}
    for name in names:
        setting, _, choice = name.partition("=")
        alone = space_of(
            ResNet,
            **{"channels": (1.0,), "precisions": ("fp32",)}
            | {setting: (type(several[setting][0])(choice),)},
        )
        costs = [
            space.costs([genotype])["model_size_mb"][0]
            for space, genotype in ((space_of(ResNet, **several), found[name]), (alone, ()))
        ]
        assert costs[0] == costs[1]


def test_samples_change_between_none_and_all_of_the_genes() -> None:
    space = space_of(ResNet, ranks=(1.0, 0.75, 0.5))
    drawn, base = space.samples(2000, np.random.default_rng(0)), space.references()["base"]
    changed = (drawn != np.array(base)).mean(axis=1)
    # A gene that is drawn has one choice of n that changes nothing.
    most = np.mean([1 - 1 / n for n in space.cardinalities])
    assert changed.mean() == pytest.approx(most / 2, abs=0.02)
    counts, _ = np.histogram(changed / most, bins=4, range=(0, 1))
    assert counts.min() > 2000 / 4 / 2
    for column, n in zip(drawn.T, space.cardinalities, strict=True):
        assert set(column) == set(range(n))
    without_base = space_of(ResNet, channels=(0.75, 0.5), precisions=("int8", "int8_weights"))
    drawn = without_base.samples(2000, np.random.default_rng(0))
    raw = np.random.default_rng(0).integers(0, without_base.cardinalities, drawn.shape)
    np.testing.assert_array_equal(drawn, without_base.canonicalise(raw))


def test_a_single_choice_holds_for_all_layers() -> None:
    whole = space_of(ResNet).references()["base"]
    before = space_of(ResNet).costs([whole]).iloc[0]
    for name, choice in {"channels": 0.5, "ranks": 0.5, "precisions": "int8"}.items():
        space = space_of(ResNet, **{"channels": (1.0,), name: (choice,)})
        assert not space.genes
        assert not space.references()
        assert space.costs([()])["model_size_mb"][0] < 0.8 * before["model_size_mb"]
        assert space.build(()).eval()(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    sparse = space_of(ResNet, channels=(1.0,), sparsities=(0.5,)).build(())
    layers = list(compact_layers(sparse))
    assert layers
    assert all((layer.deployed_weight() == 0).float().mean() >= 0.49 for layer in layers)


def test_a_sparse_network_is_a_base_whose_zeros_stay(tmp_path: Path) -> None:
    shape = IMAGES["input_shape"]
    folder = Base.of(made(ResNet), shape).save(tmp_path)
    settings = {**IMAGES, "channels": (1.0,), "precisions": ("fp32",)}
    half = search_spaces.get("compressed", **settings, base=str(folder), sparsities=(0.5,))
    first = half.build(()).eval()
    (saved := tmp_path / "half").mkdir()
    recorded = {"class": f"{type(half).__module__}.{type(half).__name__}"}
    TrainedNetwork(
        module=first,
        preprocessing=Preprocessing(mean=(0.5,), std=(0.5,), image_size=shape[1:]),
        outputs=tuple("abcdefghij"),
        provenance={"space": {**recorded, "settings": asdict(half)}, "genotype": ()},
        metrics={},
    ).save(saved)
    space = search_spaces.get("compressed", **settings, base=str(saved), sparsities=(0.0, 0.7))
    seen, same = torch.randn(2, 1, 28, 28), space.build(space.references()["base"]).eval()
    torch.testing.assert_close(same(seen), first(seen))
    sparser = space.build([1 for _ in space.genes])
    before, after = compact_layers(first), compact_layers(sparser)
    for one, other in zip(before, after, strict=True):
        zeros, more = one.deployed_weight() == 0, other.deployed_weight() == 0
        assert more[zeros].all()
        assert more.float().mean() >= 0.69


def test_channels_that_nothing_reads_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    network = made(ResNet)
    gone = torch.arange(0, 16, 2)
    with torch.no_grad():
        network.layers[1].second.weight[:, gone] = 0
        network.fc.weight.view(10, 16, 4)[:, gone] = 0
    monkeypatch.setattr(sys.modules["models_of_tests"], "Unread", lambda: network, raising=False)
    space = search_spaces.get(
        "compressed", **IMAGES, base="models_of_tests:Unread", precisions=("fp32",)
    )
    names = [gene.name for gene in space.genes]
    halved = [2 if n in ("layers_1_first.keep", "layers_1_second.keep") else 0 for n in names]
    assert sum(halved) == 4
    x = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(
            space.build(halved).eval()(x), network.eval()(x), rtol=0, atol=1e-5
        )


def test_channels_that_are_zero_go_first_where_nothing_is_normalised() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )
    with torch.no_grad():
        for layer in (network[0], network[2]):
            layer.weight[::2] = 0
            layer.bias[::2] = 0
    base = Base.of(network, IMAGES["input_shape"])
    found = importance(base, Channels(base.layers, IMAGES["input_shape"])).values()
    assert [bool(each[::2].any()) for each in found] == [False, False]
    assert all((each[1::2] > 0).all() for each in found)


def test_rectified_channels_that_vary_more_stay() -> None:
    network = made(ResNet)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.ones_(layer.weight)
    own = network.layers[1].norm1
    nn.init.normal_(own.weight)
    nn.init.normal_(own.bias)
    base = Base.of(network, IMAGES["input_shape"])
    channels = Channels(base.layers, IMAGES["input_shape"])
    [number] = [n for n, g in channels.removable().items() if g.makers == ["layers_1_first"]]
    drawn = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    variance = (own.bias + own.weight * drawn).clamp(min=0).var(0).detach()
    found = importance(base, channels)[number]
    torch.testing.assert_close(found / found.sum(), variance / variance.sum(), rtol=0.03, atol=1e-4)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("kernel", [(3, 5), (1, 1)])
def test_a_factorised_convolution_is_the_nearest_of_its_rank(
    kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    padding = (kernel[0] // 2, kernel[1] // 2)
    base = nn.Conv2d(8, 16, kernel, stride, padding)
    weight = base.weight.detach()
    block = CompressedConvolution((8, 9, 9), 16, kernel, stride, padding, (1, 1), rank=0.5)
    with torch.no_grad():
        block.fill(weight, base.bias)
    first, second = block.first.weight, block.second.weight
    assert first.numel() + second.numel() <= 0.5 * weight.numel()
    split = stride[1] == 1
    rows = weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1) if split else weight.flatten(1)
    rest = torch.linalg.svdvals(rows)[second.shape[1] :]
    product = torch.einsum("rikl,orxm->oiklm", first, second).flatten(3)
    torch.testing.assert_close((weight - product).norm(), rest.norm(), rtol=1e-4, atol=1e-5)
    x = torch.randn(2, 8, 9, 9)
    expected = F.conv2d(x, product, base.bias, base.stride, base.padding)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_a_factorised_linear_layer_is_the_nearest_of_its_rank() -> None:
    space = space_of(Transformer, channels=(1.0,), ranks=(1.0, 0.5))
    names = [gene.name for gene in space.genes]
    block = space.build([1 if name == "up.rank" else 0 for name in names]).up
    weight, rank = made(Transformer).up.weight.detach(), block.first.out_features
    product = block.second.weight @ block.first.weight
    rest = torch.linalg.svdvals(weight)[rank:]
    torch.testing.assert_close((weight - product).norm(), rest.norm(), rtol=1e-4, atol=1e-5)
    assert rank * (16 + 32) <= 0.5 * weight.numel()


@pytest.mark.parametrize(
    "base",
    [
        "",
        "models_of_tests",
        "models_of_tests:Nothing",
        "models_of_tests:Branching",
        "models_of_tests:Twice",
        "models_of_tests:Tied",
        "models_of_tests:InPlace",
        "models_of_tests:ReadTwice",
        "mobilenet:nothing",
        "not_imported:net",
    ],
)
def test_what_cannot_be_a_base_is_refused(base: str) -> None:
    with pytest.raises(ConfigError, match=r"search_space\.base"):
        search_spaces.get("compressed", **IMAGES, base=base)


def test_a_base_for_other_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="outputs of shape"):
        search_spaces.get(
            "compressed", input_shape=(1, 28, 28), num_classes=5, base="models_of_tests:ResNet"
        )
    with pytest.raises(ConfigError, match=r"search_space\.base.*images"):
        search_spaces.get(
            "compressed", input_shape=(3, 28, 28), num_classes=10, base="models_of_tests:ResNet"
        )
