"""`nas search` and what else takes its settings: Hydra composes them, the study room does it."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import re
import shlex
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nas.cli.parser import settings_parser
from nas.core.errors import ConfigError, HwnasError
from nas.core.output import output_is_optional, tell
from nas.core.registry import Registry, nested_registries

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nas.results.study import StudyResults

COMPLETION = """\
_nas_search() {
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="${COMP_LINE:0:COMP_POINT}" nas search -sc query=bash 2> /dev/null))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _nas_search nas
"""


def search_command(arguments: Sequence[str]) -> int:
    """Run one study, or several with `--multirun`; return the exit status.

    Raises:
        HwnasError: The configuration cannot be composed.
    """
    parsed = settings_parser("search").parse_intermixed_args(arguments)
    return composed(parsed, _print_check if parsed.check else _run_study)


def compress_command(arguments: Sequence[str]) -> int:
    """Run the study that makes a network smaller; return the exit status.

    Raises:
        ConfigError: There is no network, or another experiment.
        HwnasError: The configuration cannot be composed.
    """
    parsed = settings_parser("compress").parse_intermixed_args(arguments)
    if "=" in parsed.base:
        raise ConfigError("BASE", parsed.base, "the network, before all settings")
    for override in parsed.overrides:
        if override.startswith("experiment="):
            chosen = override.partition("=")[2]
            raise ConfigError("experiment", chosen, "none, as `nas compress` has its own")
    from nas.study.composition import quoted

    given = {"search_space.base": parsed.base, "search_space.base_weights": parsed.weights}
    named = [f"{name}={quoted(value)}" for name, value in given.items() if value is not None]
    parsed.overrides = ["experiment=compression", *named, *parsed.overrides]
    return composed(parsed, _print_check if parsed.check else _run_study)


def composed(parsed: argparse.Namespace, run: Callable[[DictConfig], None]) -> int:
    """Compose one configuration or several, and hand each to `run`; return the exit status.

    Raises:
        HwnasError: A configuration cannot be composed.
    """
    from nas.study.composition import compose, options, sweep

    if parsed.shell_completion == "install=bash":
        sys.stdout.write(COMPLETION)
        return 0
    if parsed.shell_completion:
        words = os.environ.get("COMP_LINE", "").split(" ")
        sys.stdout.write("".join(f"{text}\n" for text in _completions(words, parsed.config_dir)))
        return 0
    if parsed.info:
        for group, names in options(parsed.config_dir).items():
            sys.stdout.write(f"{group}: {', '.join(names)}\n")
        return 0
    jobs = sweep(parsed.overrides, multirun=parsed.multirun)
    configs = [compose(job, config_dir=parsed.config_dir) for job in jobs]
    status = 0
    for config in configs:
        try:
            if parsed.cfg:
                sys.stdout.write(explained(config))
            else:
                run(config)
        except HwnasError as error:
            tell(error)
            status = 2
    return status


def explained(config: DictConfig) -> str:
    """Return every setting as YAML, each with its meaning as a comment; see `every_setting`."""
    from nas.study.reading import COMPONENTS, SECTIONS, every_setting
    from nas.study.settings import GeneralSettings

    lines: list[str] = []
    for name, value in every_setting(config).items():
        if name in COMPONENTS:
            lines += [f"{name}:", *_explained_component(COMPONENTS[name], value, "  ")]
        elif name in SECTIONS:
            lines += [f"{name}:", *_explained(SECTIONS[name], value, "  ")]
        else:
            lines += _explained(GeneralSettings, {name: value}, "")
    return "\n".join(lines) + "\n"


def _explained(cls: type, values: Mapping[str, Any], indent: str) -> Iterator[str]:
    import yaml

    meaning, registries = meanings(cls), nested_registries(cls)
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        comment = f"  # {meaning[name].partition('. ')[0].rstrip('.')}" if name in meaning else ""
        if name in registries:
            yield f"{indent}{name}:{comment}"
            yield from _explained_component(registries[name], value, indent + "  ")
        elif dataclasses.is_dataclass(hints.get(name)) and value is not None:
            yield f"{indent}{name}:{comment}"
            yield from _explained(cast("type", hints[name]), value, indent + "  ")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20).splitlines()[0]
            yield f"{indent}{name}: {text}{comment}"


def _explained_component(
    registry: Registry[Any], values: Mapping[str, Any], indent: str
) -> Iterator[str]:
    cls = registry.component(values["name"])
    summary = (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")
    yield f"{indent}name: {values['name']}  # {summary}"
    fields = {name: value for name, value in values.items() if name != "name"}
    yield from _explained(cls, fields, indent)


def meanings(cls: type) -> dict[str, str]:
    """Return what the fields of a dataclass mean, by the `Attributes:` of its docstrings."""
    found = {}
    for base in reversed(cls.__mro__):
        attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def _completions(words: Sequence[str], config_dir: Path | None) -> list[str]:
    """Return what the last word of a command line may become: options, or names of settings."""
    from nas.study.checking import resolved
    from nas.study.composition import compose, options
    from nas.study.reading import COMPONENTS, SECTIONS, completed_section, with_presets

    *before, last = words
    groups, sections = options(config_dir), (*COMPONENTS, *SECTIONS)
    name, equals, _ = last.partition("=")
    section, dot, _ = name.partition(".")
    if equals:
        found = [f"{name}={option}" for option in groups.get(name, [])]
    elif dot and section in sections:
        chosen = compose([word for word in before if "=" in word], config_dir=config_dir)
        found = _dotted(completed_section(with_presets(resolved(chosen)), section), section)
    else:
        found = [f"{group}=" for group in groups] + [f"{section}." for section in sections]
    return [text for text in found if text.startswith(last)]


def _dotted(values: Mapping[str, Any], path: str) -> list[str]:
    return [
        text
        for name, value in values.items()
        for text in (
            _dotted(value, f"{path}.{name}") if isinstance(value, Mapping) else [f"{path}.{name}="]
        )
    ]


def _run_study(config: DictConfig) -> None:
    from nas.cli.console import print_front
    from nas.study.reading import read

    settings = read(config)
    output_is_optional()
    # Ray and torch take seconds to load, so a setting that cannot be used is refused before.
    from nas.results.plot import plot_pareto
    from nas.results.report import write_pareto_csv
    from nas.study.run import run

    study = run(settings)
    write_pareto_csv(study, study.path / "pareto.csv")
    plot_pareto(study, study.path / "pareto.png")
    print_front(study)
    if settings.finalise.limit and study.status != "finalised":
        line = "not every network could be verified; the lines above say why"
        raise HwnasError(f"{study.path}: {line}; run the same command again to go on")
    following = next_command(study)
    sys.stdout.write(f"{study.path}: pareto.csv, pareto.png; next: {following}\n")


def next_command(study: StudyResults) -> str:
    """Return what to do with a study that has ended, as a shell reads it."""
    what = ["pareto", study.name]
    if study.status == "finalised" and not study.pareto().empty:
        what = ["export", study.name, "--pick", "knee"]
    runs = str(study.path.parent)
    return shlex.join(["nas", *what, *([] if runs == "runs" else ["--runs", runs])])


def _print_check(config: DictConfig) -> None:
    from nas.study.reading import read

    settings = read(config)
    from nas.study.run import check

    check(settings)
