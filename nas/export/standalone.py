"""A network as one plain PyTorch file that imports nothing of this project."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from string import Template
from typing import Any

from nas.core.errors import ExportError
from nas.core.files import json_values
from nas.export.closure import collect
from nas.export.exported import Preprocessing
from nas.export.source import ImportedName
from nas.network.blocks import INPUT
from nas.network.module import PlacedBlock

LINE_LENGTH = 100
ANYWHERE = -(10**6)
"""The column of a text that is wrapped later, if at all."""

_IMPORTS = (
    ImportedName("pathlib", "Path", "Path"),
    ImportedName("safetensors", "SafetensorError", "SafetensorError"),
    ImportedName("safetensors.torch", "load_file", "load_file"),
    ImportedName("torch", "", "torch"),
    ImportedName("torch", "nn", "nn"),
    ImportedName("typing", "Any", "Any"),
)
NETWORK_CLASS = "ChosenNetwork"
"""Name of the class that runs the chosen blocks."""

_RESERVED = (NETWORK_CLASS, "PIXEL_SCALE", "PIXEL_MEAN", "PIXEL_STD", "load", "preprocess")

_FUNCTIONS = Template('''\
def load(path: str | Path | None = None) -> nn.Module:
    """Build the network and load its weights.

    Args:
        path: The weights; `model.safetensors` beside this file by default.

    Returns:
        The network in evaluation mode: float32 (N, $channels, H, W) to logits.

    Raises:
        FileNotFoundError: There are no weights at `path`.
        ValueError: The file is damaged.
        RuntimeError: The weights are those of another network.
    """
    path = Path(path) if path is not None else Path(__file__).with_name("model.safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the weights of this network")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        message = f"{path}: damaged ({error}); expected safetensors; copy the file again"
        raise ValueError(message) from error
    network = $network()
    network.load_state_dict(weights, strict=True)
    return network.eval()


def preprocess(pixels: torch.Tensor) -> torch.Tensor:
    """Turn pixels, uint8 (N, $channels, H, W), into the network's input, float32 of that shape.

    Raises:
        ValueError: The tensor has another type or shape.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != len(PIXEL_MEAN):
        got = f"{pixels.dtype} {tuple(pixels.shape)}"
        raise ValueError(f"pixels: got {got}, expected torch.uint8 (N, $channels, H, W)")
    mean = torch.tensor(PIXEL_MEAN, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(PIXEL_STD, device=pixels.device).view(1, -1, 1, 1)
    return (pixels.float() / PIXEL_SCALE - mean) / std
''')


def module_source(
    blocks: Sequence[PlacedBlock], *, header: str, preprocessing: Preprocessing
) -> str:
    """Return the text of a Python module that rebuilds a network.

    It imports torch, safetensors and the standard library only, holds the source of exactly the
    definitions that the blocks need, the network written out block by block, and offers
    `load(path=None)` and `preprocess(pixels)`.

    Args:
        blocks: Of the network, in execution order; see `SearchSpace.place`.
        header: Text of the comment at the top, of any number of lines.
        preprocessing: What `preprocess` does.

    Raises:
        ExportError: A block needs something that cannot be carried over, or its arguments are
            not plain JSON.
    """
    network = _network(blocks)
    roots = [block.module for block in blocks]
    closure = collect(roots, imports=_IMPORTS, reserved=_RESERVED)
    lines = [part for line in header.splitlines() for part in textwrap.wrap(line, LINE_LENGTH - 2)]
    comment = "\n".join(f"# {line}" for line in lines)
    head = [comment, "from __future__ import annotations", *_import_blocks(closure.imports)]
    body = [_section(module, definitions) for module, definitions in closure.sections]
    functions = _FUNCTIONS.substitute(network=NETWORK_CLASS, channels=len(preprocessing.mean))
    parts = [*body, network, _constants(preprocessing), functions]
    return "\n\n".join(head) + "\n\n" + "\n\n\n".join(parts)


def _network(blocks: Sequence[PlacedBlock]) -> str:
    """Return the class that runs `blocks`, every block on a line of its own."""
    built = [f"        {_statement(block)}" for block in blocks]
    ran = []
    for i, block in enumerate(blocks):
        target = "return" if i + 1 == len(blocks) else f"{block.name} ="
        read = ", ".join("images" if name == INPUT else name for name in block.inputs)
        ran.append(_wrapped(f"        {target} self.{block.name}(", read, ")"))
    return "\n".join(
        [
            f"class {NETWORK_CLASS}(nn.Module):",
            '    """The chosen architecture, block by block."""',
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *built,
            "",
            "    def forward(self, images: torch.Tensor) -> torch.Tensor:",
            '        """Map images `(N, C, H, W)` to logits `(N, num_classes)`."""',
            *ran,
        ]
    )


def _statement(block: PlacedBlock) -> str:
    """Return the statement that builds a block, as it is formatted eight columns in."""
    arguments = _plain(block)
    opening = f"self.{block.name} = {block.module.__name__}("
    flat = [_literal(list(shape), column=ANYWHERE) for shape in block.input_shapes]
    flat += [f"{name}={_literal(value, column=ANYWHERE)}" for name, value in arguments.items()]
    statement = _wrapped(" " * 8 + opening, ", ".join(flat), ")")
    fits = max(map(len, statement.splitlines())) <= LINE_LENGTH
    if fits and not any("\n" in part for part in flat):
        return statement[8:]
    parts = [_literal(list(shape), 12, 12) for shape in block.input_shapes]
    parts += [f"{k}={_literal(value, 12, 12 + len(k) + 1)}" for k, value in arguments.items()]
    inner = "".join(f"{' ' * 12}{part},\n" for part in parts)
    return f"{opening}\n{inner}{' ' * 8})"


def _wrapped(opening: str, inner: str, closing: str) -> str:
    """Return a call on one line, or with its arguments on the next where that is too short."""
    line = opening + inner + closing
    indent = len(opening) - len(opening.lstrip())
    if len(line) <= LINE_LENGTH:
        return line
    return f"{opening}\n{' ' * (indent + 4)}{inner}\n{' ' * indent}{closing}"


def _plain(block: PlacedBlock) -> dict[str, Any]:
    what = f"block {block.name}, arguments of {block.module.__name__}"
    try:
        plain: dict[str, Any] = json_values(block.arguments)
    except TypeError as error:
        raise ExportError(f"{what}: {error}; expected plain JSON values") from error
    if plain != block.arguments:
        raise ExportError(
            f"{what}: got {block.arguments!r}, expected plain JSON values, which come back "
            "as they are; use lists for tuples, texts for keys and finite numbers"
        )
    return plain


def _constants(preprocessing: Preprocessing) -> str:
    return (
        f"PIXEL_SCALE = {preprocessing.scale!r}\n"
        f"PIXEL_MEAN = {preprocessing.mean!r}\n"
        f"PIXEL_STD = {preprocessing.std!r}"
    )


def _literal(value: Any, indent: int = 0, column: int = 0) -> str:
    """Return plain JSON values as Python source, one item a line where a line is too short.

    Args:
        value: The value.
        indent: Columns by which its closing bracket is indented.
        column: Where its text begins.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list):
        return repr(value)
    inner = indent + 4
    if isinstance(value, dict):
        keys = [f"{_literal(key)}: " for key in value]
        parts = zip(keys, value.values(), strict=True)
        items = [key + _literal(item, inner, inner + len(key)) for key, item in parts]
    else:
        items = [_literal(item, inner, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    line = opening + ", ".join(items) + closing
    if column + len(line) < LINE_LENGTH and "\n" not in line:
        return line
    lines = "".join(f"{' ' * inner}{item},\n" for item in items)
    return f"{opening}\n{lines}{' ' * indent}{closing}"


def _section(module: str, definitions: Iterable[str]) -> str:
    """Return what is taken from a module, with blank lines as PEP 8 has them."""
    text, after_constant = f"# From {module}\n", True
    for definition in definitions:
        constant = not any(
            line.startswith(("class ", "def ", "async def ")) for line in definition.splitlines()
        )
        text += ("\n" if constant and after_constant else "\n\n") + definition + "\n"
        after_constant = constant
    return text.rstrip()


def _import_blocks(imports: Iterable[ImportedName]) -> list[str]:
    """Return import statements: the standard library's, then torch and safetensors."""
    whole: dict[bool, list[str]] = {True: [], False: []}
    names: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
    for imported in imports:
        library = imported.package not in {"torch", "safetensors"}
        plain = imported.bound == (imported.name or imported.package)
        alias = "" if plain else f" as {imported.bound}"
        if imported.name:
            names[library].setdefault(imported.module, []).append(imported.name + alias)
        else:
            whole[library].append(f"import {imported.module}{alias}")
    blocks = []
    for library in (True, False):
        lines = [f"from {module} import {', '.join(n)}" for module, n in names[library].items()]
        blocks.append("\n".join(whole[library] + lines))
    return blocks
