"""Attention heads of a traced module: which linear layers compute them, and what reads them.

Attention is written in many ways. In all of them some functions lie between the linear layers of
queries, keys and values and the one tensor in which the heads are concatenated. Which channels
belong to a head is found by running these functions: without the channels of some heads they must
return what they returned before, without these heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nas.compression.functions import run_calls
from nas.compression.tracing import Traced

SCORES = frozenset({"softmax", "scaled_dot_product_attention", "Softmax"})
"""Functions and layers whose outputs are `(heads, ...)`."""

SIZED = frozenset({"reshape", "view", "unflatten"})
"""Functions that are given the sizes of axes."""

_BATCH, _TRIES = 2, 256
_SAME = 1e-4


@dataclass(frozen=True)
class Heads:
    """The heads of one attention.

    Attributes:
        number: How many they are.
        width: Values of a head in the output.
        makers: How the outputs of each linear layer are divided, by its name: `(parts, repeat)`.
            Each part has `repeat` values of every head, one head after the other.
        output: Name of the function whose last axis has `number * width` values.
        functions: All functions in between, by name, rewritten for any number of heads.
    """

    number: int
    width: int
    makers: Mapping[str, tuple[int, int]]
    output: str
    functions: Mapping[str, Traced]


def attention_heads(layers: Sequence[Traced]) -> list[Heads]:
    """Return the heads of every attention whose heads can be removed."""
    known = {layer.name: layer for layer in layers}
    found: list[Heads] = []
    for layer in layers:
        kind = layer.target or str(layer.calls[-1]["target"]).rpartition(".")[2]
        seen = any(layer.name in heads.functions for heads in found)
        if kind in SCORES and len(layer.shape) == 3 and layer.shape[0] > 1 and not seen:
            heads = _of_attention(layer, known)
            found += [heads] if heads is not None else []
    return found


def _of_attention(anchor: Traced, known: Mapping[str, Traced]) -> Heads | None:
    """Return the heads of the attention that a function of `SCORES` belongs to."""
    region = _region(anchor, known)
    if region is None:
        return None
    functions, output = region
    number = anchor.shape[0]
    width, left_over = divmod(known[output].shape[-1], number)
    if left_over:
        return None
    read = [name for each in functions.values() for name in each.inputs]
    makers = [known[name] for name in dict.fromkeys(read) if name not in functions]
    readers = {
        name for each in known.values() if each.name not in functions for name in each.inputs
    }
    inside = {*functions, *(maker.name for maker in makers)} - {output}
    if inside & readers or any(each.tensors for each in functions.values()):
        return None
    if any(maker.target != "Linear" or maker.shape[-1] % (number * width) for maker in makers):
        return None
    layouts = []
    for maker in makers:
        parts = maker.shape[-1] // (number * width)
        layouts.append(dict.fromkeys([(parts, width), (1, parts * width)]))
    for divided in itertools.product(*layouts):
        for rewritten in itertools.islice(_rewritten(functions, number, width), _TRIES):
            division = dict(zip((maker.name for maker in makers), divided, strict=True))
            heads = Heads(number, width, division, output, rewritten)
            if _removes_heads(heads, functions, makers):
                return heads
    return None


def _region(anchor: Traced, known: Mapping[str, Traced]) -> tuple[dict[str, Traced], str] | None:
    """Return the functions from the linear layers to the output, in order, and its name.

    `None` where there is not one output.
    """
    inside, left, outputs = set[str](), [anchor], set[str]()
    while left:
        layer = left.pop()
        if layer.name in inside:
            continue
        if layer.has_weights or (layer.path and layer.target not in SCORES):
            return None
        inside.add(layer.name)
        if any(name not in known for name in layer.inputs):  # the images
            return None
        before = [known[name] for name in layer.inputs]
        left += [each for each in before if not each.has_weights]
        if len(layer.shape) == 2 and any(len(each.shape) > 2 for each in before):
            outputs.add(layer.name)
        else:
            left += [each for each in known.values() if layer.name in each.inputs]
    functions = {name: layer for name, layer in known.items() if name in inside}
    return (functions, outputs.pop()) if len(outputs) == 1 else None


def _rewritten(
    functions: Mapping[str, Traced], number: int, width: int
) -> Iterator[dict[str, Traced]]:
    """Yield the functions with sizes that depend on the number of heads left open, as -1."""
    sizes = (number, number * width)
    places = [
        (name, position)
        for name, layer in functions.items()
        for position, call in enumerate(layer.calls)
        if str(call["target"]).rpartition(".")[2] in SIZED
    ]
    options = [
        list(_with_open_size(functions[name].calls[position]["arguments"], sizes))
        for name, position in places
    ]
    for chosen in itertools.product(*options):
        calls = {name: list(layer.calls) for name, layer in functions.items()}
        for (name, position), arguments in zip(places, chosen, strict=True):
            calls[name][position] = {**calls[name][position], "arguments": arguments}
        yield {name: replace(layer, calls=tuple(calls[name])) for name, layer in functions.items()}


def _with_open_size(
    arguments: Mapping[str, Any], sizes: Sequence[int]
) -> Iterator[Mapping[str, Any]]:
    """Yield the arguments of a function of `SIZED` with one of `sizes` as -1, then as they are."""
    for size in sizes:
        for key, value in arguments.items():
            if key != "0" and value == size:
                yield {**arguments, key: -1}
            if isinstance(value, list):
                for i, each in enumerate(value):
                    if each == size:
                        yield {**arguments, key: [*value[:i], -1, *value[i + 1 :]]}
    yield arguments


def _removes_heads(heads: Heads, functions: Mapping[str, Traced], makers: Sequence[Traced]) -> bool:
    """Whether functions without some heads return what they returned before, without these."""
    generator = torch.Generator().manual_seed(0)
    whole = {m.name: torch.randn(_BATCH, *m.shape, generator=generator) for m in makers}
    expected = _run(functions, whole, heads.output)
    order = torch.randperm(heads.number, generator=generator)
    some = [order[:n].sort().values for n in range(1, heads.number + 1)]
    ones = [torch.tensor([head]) for head in range(heads.number)]
    for left in (*some, *ones):
        values = {
            name: whole[name][..., _positions(left, parts, heads, repeat)]
            for name, (parts, repeat) in heads.makers.items()
        }
        try:
            got = _run(heads.functions, values, heads.output)
        except (RuntimeError, IndexError, TypeError, ValueError):  # sizes that fit no more
            return False
        same = expected[..., _positions(left, 1, heads)]
        if got.shape != same.shape or not torch.allclose(got, same, atol=_SAME):
            return False
    return True


def _positions(
    kept: torch.Tensor, parts: int, heads: Heads, repeat: int | None = None
) -> torch.Tensor:
    """Return where the values of some heads are on an axis of `parts`; see `Heads.makers`."""
    repeat = repeat or heads.width
    axis = torch.arange(parts * heads.number * repeat).view(parts, heads.number, repeat)
    return axis[:, kept].flatten()


def _run(
    functions: Mapping[str, Traced], values: Mapping[str, torch.Tensor], output: str
) -> torch.Tensor:
    found = dict(values)
    for name, layer in functions.items():
        inputs = [found[each] for each in layer.inputs]
        if layer.path:
            found[name] = nn.Softmax(**layer.arguments)(inputs[0])
        else:
            found[name] = run_calls(layer.calls, inputs, {})
    return found[output]
