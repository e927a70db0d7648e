"""Pretrained weights from a local folder, as a network of a search space.

A folder is one that `save_pretrained` of Hugging Face transformers has written, of a MobileNetV2,
ViT or DeiT for classification, an export of `nas export`, or a verified network of a study. Tensors
are mapped by the names that they have in these files.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nas.core.errors import HwnasError, one_line
from nas.core.records import decoding, read_json
from nas.core.registry import tuples
from nas.core.space import Genotype
from nas.network.module import PlacedBlock
from nas.network.space import SearchSpace
from nas.network.trainable import TrainableNetwork
from nas.network.trained import FACTS, WEIGHTS, check_digest
from search_spaces import component, get
from search_spaces import names as spaces

CONFIG, MODEL, EXPORT = "config.json", "model.safetensors", "architecture.json"

RESOLUTION, RESIZE = "resolution", "resize"
"""Gene and block that choose the images' size, on which no weight depends."""

_State: TypeAlias = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A network with pretrained weights.

    Attributes:
        space: In which it was built: for the images and the classes that it was trained with.
        genotype: In that space.
        network: In evaluation mode.
        outputs: Names of its outputs; empty where the file has none or has no layer for them.
        sha256: Of the file with the weights, in hexadecimal digits.
        notes: What is not as it was where the weights come from.
    """

    space: SearchSpace
    genotype: Genotype
    network: TrainableNetwork
    outputs: tuple[str, ...]
    sha256: str
    notes: tuple[str, ...] = ()


def load_member(folder: Path, space: SearchSpace) -> Pretrained:
    """Return the pretrained network in a folder, which must be one of those in `space`.

    The images and the number of classes may be others than the space's.

    Raises:
        HwnasError: As of `load`, or its network is not one of the space.
    """
    found = load(folder)
    _check_member(folder, found, space)
    return found


def load(folder: Path) -> Pretrained:
    """Return the pretrained network in a folder.

    Raises:
        HwnasError: Nothing that can be read lies there, or a network of no known search space.
    """
    if (folder / CONFIG).is_file():
        found = _from_transformers(folder)
    elif (record := folder / EXPORT).is_file():
        found = _from_record(record, read_json(record), folder / MODEL)
    elif (record := folder / FACTS).is_file():
        facts = read_json(record, {"provenance": dict, "outputs": list})
        merged = {**facts["provenance"], "outputs": facts["outputs"]}
        found = _from_record(record, merged, folder / WEIGHTS)
        check_digest(folder, facts, found.sha256, "restore it from a copy")
    else:
        files = f"{CONFIG} and {MODEL} of transformers, {EXPORT} of an export or {FACTS} of a study"
        raise HwnasError(f"{folder}: got no pretrained network, expected a folder with {files}")
    return found


def _from_transformers(folder: Path) -> Pretrained:
    path = folder / CONFIG
    config = read_json(path, {"model_type": str})
    kind = config["model_type"]
    if kind not in _READERS:
        known = ", ".join(_READERS)
        raise HwnasError(f"{path}: model_type: got {kind!r}, expected one of {known}")
    for name in config.get("architectures") or ():
        if not str(name).endswith(("ForImageClassification", "WithTeacher", "Model")):
            line = f"architectures: got {name!r}, expected a network for image classification"
            raise HwnasError(f"{path}: {line}")
    state = _tensors(folder / MODEL)
    with decoding(folder, "save the network again by save_pretrained"):
        return _READERS[kind](path, config, state)


def _mobilenet_v2(path: Path, config: Mapping[str, Any], state: _State) -> Pretrained:
    fixed = {"expand_ratio": 6, "output_stride": 32, "hidden_act": "relu6", "depth_divisible_by": 8}
    _expect(path, config, {**fixed, "first_layer_is_expansion": True})
    width = float(config["depth_multiplier"])
    # Below width 1 the last convolution keeps its 1280 channels, as in the paper.
    head = round(1280 / width) if width < 1 and config["finegrained_output"] else 0
    side, names = int(config["image_size"]), _labels(config)
    space = get(
        "mobilenet",
        input_shape=(config["num_channels"], side, side),
        num_classes=max(len(names), 2),
        layout="mobilenet_v2",
        widths=(width,),
        kinds=("mbconv",),
        kernels=(3,),
        expansions=(6,),
        squeeze_excite=(False,),
        activations=("relu6",),
        resolutions=(side,),
        head_channels=head,
    )
    chosen = {f"stage{stage}.depth": depth for stage, depth in enumerate((2, 3, 4, 3, 3, 1), 2)}
    genotype = space.canonical(
        [g.choices.index(chosen.get(g.name, g.choices[0])) for g in space.genes]
    )
    own = _without_prefix(state, "mobilenet_v2.")
    parts = ("expand_1x1", "conv_3x3", "reduce_1x1")
    order = [
        *(f"conv_stem.{part}" for part in ("first_conv", "conv_3x3", "reduce_1x1")),
        *(f"layer.{i}.{part}" for i in range(16) for part in parts),
        "conv_1x1",
    ]
    names_in_file = [
        f"{name}.{part}" for name in order for part in ("convolution", "normalization")
    ]
    modules = space.build(genotype).named_modules()
    layers = [name for name, module in modules if isinstance(module, _WEIGHTED)]
    mapped = _moved(own, dict(zip([*names_in_file, "classifier"], layers, strict=True)))
    # Another constant is added to the variances, which are given the difference.
    epsilon = float(config["layer_norm_eps"]) - nn.BatchNorm2d(1).eps
    for name in mapped:
        if name.endswith("running_var"):
            mapped[name] = mapped[name] + epsilon
    padding = "padding is symmetric instead of TensorFlow's"
    notes = [padding] if config["tf_padding"] else []
    return _filled(path.with_name(MODEL), space, genotype, mapped, names, notes)


_WEIGHTED = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def _vision_transformer(path: Path, config: Mapping[str, Any], state: _State) -> Pretrained:
    _expect(path, config, {"hidden_act": "gelu", "qkv_bias": True})
    width, heads, depth = (
        int(config[name]) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    side, patch, names = int(config["image_size"]), int(config["patch_size"]), _labels(config)
    space = get(
        "vit",
        input_shape=(config["num_channels"], side, side),
        num_classes=max(len(names), 2),
        resolutions=(side,),
        patches=(patch,),
        stems=("patch",),
        widths=(width,),
        depths=(depth,),
        heads=(heads,),
        mlp_ratios=(config["intermediate_size"] / width,),
        poolings=("token",),
        relative_position=(False,),
        head_width=width // heads,
    )
    genotype = space.canonical([0] * len(space.genes))
    own = {
        name: tensor
        for name, tensor in _without_prefix(_without_prefix(state, "vit."), "deit.").items()
        if not name.startswith(("pooler.", "distillation_classifier."))
    }
    token, positions = own.pop("embeddings.cls_token"), own.pop("embeddings.position_embeddings")
    notes = []
    if own.pop("embeddings.distillation_token", None) is not None:
        positions = torch.cat([positions[:, :1], positions[:, 2:]], 1)
        notes.append("the distillation token and its classifier are left out")
    joint = {}
    for i, kind in itertools.product(range(depth), ("weight", "bias")):
        parts = (f"encoder.layer.{i}.attention.attention.{p}.{kind}" for p in _QKV)
        joint[f"block{i + 1}_attention.inputs.{kind}"] = torch.cat([own.pop(n) for n in parts])
    moved = {
        "embeddings.patch_embeddings.projection": "stem.projection",
        "layernorm": "classifier.norm",
        "classifier": "classifier.linear",
        "cls_classifier": "classifier.linear",
    }
    for i in range(depth):
        theirs, block = f"encoder.layer.{i}", f"block{i + 1}"
        moved |= {
            f"{theirs}.layernorm_before": f"{block}_attention.norm",
            f"{theirs}.attention.output.dense": f"{block}_attention.output",
            f"{theirs}.layernorm_after": f"{block}_feed_forward.norm",
            f"{theirs}.intermediate.dense": f"{block}_feed_forward.expand",
            f"{theirs}.output.dense": f"{block}_feed_forward.project",
        }
    mapped = {"tokens.token": token, "tokens.positions": positions, **joint, **_moved(own, moved)}
    return _filled(path.with_name(MODEL), space, genotype, mapped, names, notes)


_QKV = ("query", "key", "value")

_READERS: dict[str, Callable[[Path, Mapping[str, Any], _State], Pretrained]] = {
    "mobilenet_v2": _mobilenet_v2,
    "vit": _vision_transformer,
    "deit": _vision_transformer,
}


def _from_record(path: Path, record: Mapping[str, Any], weights: Path) -> Pretrained:
    """Return a network of the platform, of which a record tells space and genotype."""
    known = {f"{cls.__module__}.{cls.__name__}": cls for cls in map(component, spaces())}
    with decoding(path):
        if (got := record["space"]["class"]) not in known:
            expected = f"one of {', '.join(known)}"
            fix = "name the module of another space in imports"
            raise HwnasError(f"{path}: space: got {got}, expected {expected}; {fix}")
        settings = {name: tuples(value) for name, value in record["space"]["settings"].items()}
        former = known[got](**settings)
        genotype = former.canonical(record["genotype"])
        outputs = tuple(record["outputs"])
    return _filled(weights, former, genotype, _tensors(weights), outputs)


def _filled(
    weights: Path,
    space: SearchSpace,
    genotype: Genotype,
    state: _State,
    outputs: tuple[str, ...],
    notes: Sequence[str] = (),
) -> Pretrained:
    """Return a network with the tensors of a file; one for its outputs may be missing there."""
    network = space.build(genotype)
    own = network.state_dict()
    *_, last = [name.rpartition(".")[0] for name in own]
    missing = {name for name in own.keys() - state.keys() if not name.startswith(f"{last}.")}
    wrong = [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if missing or wrong or state.keys() - own.keys():
        name = sorted([*missing, *wrong, *(state.keys() - own.keys())])[0]
        shapes = [tuple(each[name].shape) if name in each else "none" for each in (state, own)]
        line = f"tensor {name}: got shape {shapes[0]}, expected {shapes[1]}"
        raise HwnasError(f"{weights}: {line}; save the network again")
    complete = own.keys() == state.keys()
    network.load_state_dict({**own, **state})
    return Pretrained(
        space=space,
        genotype=genotype,
        network=network.eval(),
        outputs=outputs if complete else (),
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        notes=tuple(notes),
    )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes; empty for a network that has none."""
    named = config.get("id2label") or {}
    return tuple(str(named[i]) for i in sorted(named, key=int))


def _expect(path: Path, config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if config.get(name, value) != value:
            line = f"{name}: got {config[name]!r}, expected {value!r}"
            raise HwnasError(f"{path}: {line}, as in the networks of the search space")


def _tensors(path: Path) -> _State:
    """Return the tensors of a safetensors file."""
    if not path.is_file() and any(path.parent.glob("*.bin")):
        fix = "write it by save_pretrained, which makes model.safetensors"
        raise HwnasError(f"{path.parent}: got a pickle (.bin), expected {path.name}; {fix}")
    try:
        with decoding(path):
            tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        line = f"is damaged ({one_line(error)})"
        raise HwnasError(f"{path}: {line}; restore it from a copy") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            line = f"tensor {name}: got values that are not finite, expected numbers"
            raise HwnasError(f"{path}: {line}; restore it from a copy")
    return tensors


def _without_prefix(state: _State, prefix: str) -> _State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _moved(state: _State, layers: Mapping[str, str]) -> _State:
    """Return the tensors of layers under the layers' other names."""
    split = [(*name.rpartition("."), tensor) for name, tensor in state.items()]
    if unknown := sorted({layer for layer, *_ in split}.difference(layers)):
        raise ValueError(f"its networks have no layer {unknown[0]}")
    return {f"{layers[layer]}.{own}": tensor for layer, _, own, tensor in split}


def _check_member(folder: Path, found: Pretrained, space: SearchSpace) -> None:
    """Check that the network is one of the space, for whatever images and classes.

    Raises:
        HwnasError: It is not; the line says in what it differs.
    """
    if type(found.space) is not type(space):
        got, expected = (type(each).__name__ for each in (found.space, space))
        line = f"got a network of {got}, expected one of {expected}, which is searched"
        raise HwnasError(f"{folder}: {line}; choose another search_space or folder")
    chosen = found.space.decode(found.genotype)
    genotype = []
    for gene in space.genes:
        value = gene.choices[0] if gene.name == RESOLUTION else chosen.get(gene.name)
        if value is not None and value not in gene.choices:
            line = f"{gene.name} of its network is {value!r}, which is none of the search space's"
            fix = "widen the choices of search_space"
            raise HwnasError(f"{folder}: {line}: {list(gene.choices)}; {fix}")
        genotype.append(0 if value is None else gene.choices.index(value))
    placed = replace(
        space, input_shape=found.space.input_shape, num_classes=found.space.num_classes
    ).place(genotype)
    own, others = (_structure(blocks) for blocks in (placed, found.network.placed_blocks))
    for name in [*others, *own]:
        if own.get(name) != others.get(name):
            line = f"block {name} is {others.get(name)}, in the search space {own.get(name)}"
            raise HwnasError(f"{folder}: {line}; let search_space hold the network that is there")


def _structure(blocks: Sequence[PlacedBlock]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return class and arguments of the blocks but those that depend on the images' size."""
    return {
        block.name: (
            block.module.__name__,
            {n: isinstance(v, Mapping) or v for n, v in block.arguments.items()},
        )
        for block in blocks
        if block.name != RESIZE
    }
