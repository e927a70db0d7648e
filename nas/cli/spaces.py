"""The commands about search spaces: which there are, and what one network looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas.core.errors import ConfigError, UnknownNameError, did_you_mean
from nas.core.space import Genotype, Preset
from nas.network.space import SearchSpace

UNNAMED = Preset("default", {"input_shape": [3, 32, 32], "num_classes": 10})
"""For spaces that name no settings."""


def list_spaces() -> list[dict[str, Any]]:
    """Return a record for every preset of every registered space."""
    import search_spaces

    records = []
    for name in search_spaces.names():
        if search_spaces.component(name).pretrained:
            unknown = ("input_shape", "num_classes", "genes", "size", "published_size", "source")
            of_base = {"preset": "of a trained network", **dict.fromkeys(unknown)}
            records.append({"space": name, **of_base, "references": ["base"]})
            continue
        for preset in _presets(name):
            space = search_spaces.get(name, **preset.settings)
            records.append(
                {
                    "space": name,
                    "preset": preset.name,
                    "input_shape": list(space.input_shape),
                    "num_classes": space.num_classes,
                    "genes": sum(n > 1 for n in space.cardinalities),
                    "size": space.size,
                    "published_size": preset.published_size,
                    "source": preset.source,
                    "references": sorted(space.references()),
                }
            )
    return records


def find(
    name: str, which: str, preset: str | None, overrides: Sequence[str]
) -> tuple[SearchSpace, Genotype]:
    """Return a space and the genotype that the command line names.

    Args:
        name: Of the space.
        which: Name of a reference, or a genotype as integers between commas.
        preset: Name of a preset; without one, the first that holds the reference or has as many
            genes as the genotype.
        overrides: Further settings of the space as `NAME=VALUE`, with values in YAML.

    Raises:
        HwnasError: The space, preset, reference, setting or genotype is not known.
    """
    import search_spaces
    from nas.study.checking import component

    given = parse_settings(overrides)
    presets = {p.name: p for p in _presets(name)}
    if preset is not None and preset not in presets:
        raise UnknownNameError(f"preset of {name}", preset, presets)
    chosen = presets.values() if preset is None else [presets[preset]]
    spaces = [
        component(search_spaces.registry, {"name": name, **p.settings, **given}, "search_space")
        for p in chosen
    ]
    genotype = _genotype_in(which)
    if genotype is not None:
        fitting = [space for space in spaces if len(space.genes) == len(genotype)]
        space = (fitting or spaces)[0]
        return space, space.check(genotype)
    for space in spaces:
        if which in space.references():
            return space, space.references()[which]
    known = dict.fromkeys(reference for space in spaces for reference in space.references())
    expected = f"a reference ({', '.join(known) or 'none'}) or integers between commas"
    raise ConfigError(f"network of {name}", which, expected, did_you_mean(which, known))


def _presets(name: str) -> Sequence[Preset]:
    import search_spaces

    return search_spaces.component(name).presets() or [UNNAMED]


def _genotype_in(text: str) -> list[int] | None:
    parts = text.strip("[]() ").split(",")
    try:
        return [int(part) for part in parts if part.strip()]
    except ValueError:
        return None


def parse_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Return settings that were given as `NAME=VALUE`, values in YAML.

    Raises:
        HwnasError: One is not of that form.
    """
    import yaml
    from omegaconf import OmegaConf

    from nas.study.checking import resolved

    for override in overrides:
        name, equals, _ = override.partition("=")
        if not (name and equals):
            raise ConfigError("setting", override, "NAME=VALUE")
    try:
        return resolved(OmegaConf.from_dotlist(list(overrides)))
    except yaml.YAMLError as error:
        got = " ".join(overrides)
        raise ConfigError("setting", got, "NAME=VALUE with a value in YAML") from error


def description(space: SearchSpace, genotype: Genotype) -> dict[str, Any]:
    """Return one network as a record: its choices, its costs and a record for every block."""
    costs = {str(name): cost for name, cost in space.costs([genotype]).iloc[0].items()}
    return {
        "arch_id": space.architecture(genotype).arch_id,
        "genotype": list(space.canonical(genotype)),
        "choices": space.decode(genotype),
        **costs,
        "blocks": space.describe(genotype),
    }


def print_spaces(records: Sequence[dict[str, Any]]) -> None:
    """Print the records of `list_spaces` as a table."""
    from nas.cli.console import print_records

    rows = [
        {
            **record,
            "input": " x ".join(map(str, record["input_shape"] or [])) or None,
            "architectures": _written(record["size"]),
            "published": record["published_size"] or None,
            "references": ", ".join(record["references"]) or None,
        }
        for record in records
    ]
    columns = ("space", "preset", "input", "genes", "architectures", "published", "references")
    print_records(rows, columns)


def _written(size: int | None) -> str | None:
    if size is None:
        return None
    return f"{size:,}" if size < 10**7 else f"{size:.2e}"


def print_network(record: dict[str, Any]) -> None:
    """Print what `description` returns as a table of blocks."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from nas.core.errors import printable
    from nas.results.terminal import console

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("block", "module", "reads", "output"):
        table.add_column(heading, overflow="fold")
    for heading in ("parameters", "MACs"):
        table.add_column(heading, justify="right")
    for block in record["blocks"]:
        shape = " x ".join(map(str, block["output_shape"]))
        counts = (f"{block['params']:,}", f"{block['macs']:,}")
        texts = (block["name"], block["module"], ", ".join(block["inputs"]))
        table.add_row(*(escape(printable(text)) for text in texts), shape, *counts)
    table.add_section()
    totals = (sum(block[key] for block in record["blocks"]) for key in ("params", "macs"))
    table.add_row(record["arch_id"], "", "", "", *(f"{total:,}" for total in totals))
    screen = console()
    screen.print(table)
    screen.print(
        f"peak activations {record['peak_activation_mb']:.4g} MB, "
        f"model {record['model_size_mb']:.4g} MB (32-bit floating point, one image)",
        highlight=False,
    )
