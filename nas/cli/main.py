"""The `nas` command.

Rooms load inside the commands that need them, so that `nas --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.cli import device
from nas.cli.device import print_json
from nas.cli.parser import CONFIGURED, parser
from nas.core.ending import Terminated, end_orderly, ignore_interrupts
from nas.core.errors import ConfigError, HwnasError, one_line
from nas.core.output import Output, output_is_optional, tell

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

REPORT = "report.html"

QUICKSTART = (
    ("search", "experiment=quickstart"),
    ("export", "quickstart", "--pick", "knee", "--out", "out/quickstart"),
)
"""Commands that `nas quickstart` runs."""

_SHOWN_PACKAGES = 3
"""Of those that are missing, how many are named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or another one after a one-line error.

    It is 2 where something was wrong, and the shell's where a signal ended the command.

    Args:
        arguments: `None` for those of the process, which then ends with this call.
    """
    if arguments is None:
        end_orderly()
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    out, err = Output(sys.stdout), Output(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = _run_command(given)
        out.flush()
        # `head` and the like close the pipe when they have read enough.
        unread = isinstance(out.error, BrokenPipeError)
        if out.error is not None and out.needed and not unread and status == 0:
            tell(f"standard output: cannot be written ({out.error.strerror})")
            status = 2
        err.flush()
    for output, descriptor in ((out, 1), (err, 2)):
        if output.error is not None:
            # Python writes what is left at its exit, and would fail once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    if arguments is None:
        ignore_interrupts()
    return status


def _open_closed_streams() -> None:
    """Open closed standard streams: a file that is opened next would get their descriptors."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _run_command(given: Sequence[str]) -> int:
    """Run a command; return its exit status, and say why where that is not 0."""
    try:
        if given and given[0] in CONFIGURED:
            module = importlib.import_module(_CONFIGURED.get(given[0], f"nas.cli.{given[0]}"))
            return int(getattr(module, f"{given[0]}_command")(given[1:]))
        parsed = parser().parse_args(given)
        return _COMMANDS[parsed.command](parsed)
    except HwnasError as error:
        tell(error)
        return 2
    except ModuleNotFoundError:
        missing = _missing_packages()
        if not missing:
            raise
        line = f"{given[0]!r} needs packages that are not installed ({missing})"
        tell(f"{line}: pip install 'hwnas[search]'")
        return 2
    except OSError as error:
        if error.errno is None:
            raise
        full = error.errno in _DISK_FULL
        fix = "free space" if full else "check that it exists and what this user may do there"
        where = error.filename or ("disk" if full else Path(sys.argv[0]).name)
        line = f"{where}: {error.strerror}; {fix}, and run the command again"
        tell(f"{line}; what was finished is kept")
        return 2
    except (KeyboardInterrupt, Terminated) as end:
        tell("interrupted; what was finished is kept, run the command again")
        return end.status if isinstance(end, Terminated) else 130
    except SystemExit as ended:  # of argparse, after a help or the version, or of a user's module
        return _exit_status(ended.code)


def _exit_status(code: object) -> int:
    """Return the exit status for the code of a `SystemExit`; a text is printed, as Python does."""
    if code is None or isinstance(code, int):
        return code or 0
    tell(code)
    return 1


def _missing_packages() -> str:
    """Return which packages of the extra `search` are not installed, the first few by name."""
    from importlib import metadata

    def installed(name: str) -> bool:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return False
        return True

    of_search = re.compile(r"""extra\s*==\s*["']search["']""")
    lines = (metadata.requires("hwnas") or []) if installed("hwnas") else []
    required = [line.partition(";")[0] for line in lines if of_search.search(line)]
    names = [re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in required]
    missing = [name for name in names if not installed(name)]
    return ", ".join(missing[:_SHOWN_PACKAGES] + ["..."] * (len(missing) > _SHOWN_PACKAGES))


def _studies(parsed: argparse.Namespace) -> int:
    from nas import results

    records = results.studies(parsed.runs)
    if parsed.json:
        return print_json(records)
    from nas.cli.console import print_records

    shown = ("name", "status", "data", "space", "device", "objectives")
    columns = (*shown, "trials_complete", "trials_failed", "values_of", "error_best")
    print_records([{**r, "objectives": ", ".join(r["objectives"])} for r in records], columns)
    return 0


def _pareto(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.results.frame import records
    from nas.results.study import distinct_names

    studies = [results.open_study(name, parsed.runs) for name in parsed.studies]
    objectives = None if parsed.objectives is None else parsed.objectives.split(",")
    fronts = [s.pareto(parsed.where, objectives, parsed.sort, parsed.fidelity) for s in studies]
    if parsed.out is not None:
        from nas.results.plot import plot_fronts

        if objectives is not None:
            expected = "no --objectives, as the studies' own are drawn"
            raise ConfigError("--out", str(parsed.out), expected)
        output_is_optional()
        plot_fronts(studies, fronts, parsed.out)
    if parsed.json:
        named = zip(distinct_names(studies), map(records, fronts), strict=True)
        return print_json([{"study": name, **row} for name, rows in named for row in rows])
    from nas.cli.console import print_front

    for study, front in zip(studies, fronts, strict=True):
        why = ""
        if front.empty and parsed.where:
            reach = study.reach(parsed.where, objectives, parsed.fidelity)
            ends = (f"{name} is {low:.4g} to {high:.4g}" for name, (low, high) in reach.items())
            why = "; ".join([f"no architecture meets {parsed.where}", *ends])
        print_front(study, front, why)
    if parsed.out is not None:
        sys.stdout.write(f"{parsed.out}\n")
    return 0


def _compare(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.results.comparison import outcomes, settings_that_differ
    from nas.results.frame import records

    studies = [results.open_study(name, parsed.runs) for name in parsed.studies]
    if len(studies) < 2:
        raise ConfigError("STUDY", ", ".join(parsed.studies), "two studies or more")
    found = {"settings": settings_that_differ(studies), "outcomes": outcomes(studies)}
    rows = {what: records(table.rename_axis(what).reset_index()) for what, table in found.items()}
    if parsed.json:
        return print_json(rows)
    from nas.cli.console import print_records

    for what, table in found.items():
        print_records(rows[what], [what, *table.columns])
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.study.page import report

    studies = [results.open_study(name, parsed.runs) for name in parsed.studies]
    path = parsed.out or (studies[0].path / REPORT if len(studies) == 1 else Path(REPORT))
    output_is_optional()
    report(studies, path, allow_imports=parsed.allow_imports)
    sys.stdout.write(f"{path}\n")
    return 0


def _ui(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.results.study import StudyResults
    from nas.study.page import serve

    def opened() -> list[StudyResults]:
        return [results.open_study(name, parsed.runs) for name in parsed.studies]

    opened()
    with serve(opened, parsed.port, allow_imports=parsed.allow_imports) as server:
        address = f"http://{server.server_name}:{server.server_port}/"
        sys.stdout.write(f"{address} shows {', '.join(parsed.studies)}; Ctrl-C ends\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _plot(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.results import figures
    from nas.results.drawing import draw_graphs
    from nas.results.pictures import write_picture
    from nas.results.plot import pareto_figure
    from nas.study.page import Drawer
    from nas.study.recorded_space import recorded_space

    study, what = results.open_study(parsed.study, parsed.runs), parsed.what
    path = parsed.out or Path(f"{study.name}_{what}.png")
    output_is_optional()
    if what == "architecture":
        row = study.pick(parsed.pick)
        graphs = recorded_space(study, parsed.allow_imports).graphs(row["genotype"])
        draw_graphs(graphs, f"{study.name} {row['arch_id']}", path)
    elif what == "genes":
        genes = Drawer(parsed.allow_imports).networks(study).genes
        write_picture(figures.genes_figure(study, genes), path)
    else:
        draw = {"front": pareto_figure, "progress": figures.progress_figure}
        write_picture(draw.get(what, figures.predictor_figure)(study), path)
    sys.stdout.write(f"{path}\n")
    return 0


def _pack(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.results.archive import pack

    study = results.open_study(parsed.study, parsed.runs)
    path = parsed.out or Path(f"{study.name}.tar.gz")
    output_is_optional()
    pack(study, path)
    sys.stdout.write(f"{path}\n")
    return 0


def _unpack(parsed: argparse.Namespace) -> int:
    from nas.results.archive import unpack

    output_is_optional()
    folder = unpack(parsed.archive, Path(parsed.runs), largest_mb=parsed.largest_mb)
    sys.stdout.write(f"{folder}\n")
    return 0


def _sensitivity(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.results.frame import records
    from nas.study.sensitivity import plot_sensitivity, sensitivity

    study = results.open_study(parsed.study, parsed.runs)
    found = sensitivity(study, parsed.of, allow_imports=parsed.allow_imports)
    if parsed.json:
        return print_json(records(found))
    from nas.cli.console import print_records

    output_is_optional()
    metric = next(iter(study.columns.values()))
    path = parsed.out or study.path / "sensitivity.png"
    plot_sensitivity(found, metric, f"{study.name}: change of {metric}", path)
    rows = found.sort_values(f"{metric}_change", ascending=False)
    print_records(records(rows), list(rows.columns))
    sys.stdout.write(f"{path}\n")
    return 0


def _reproduce(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.study.reproduction import changed_versions, command

    study = results.open_study(parsed.study, parsed.runs)
    name = parsed.name or f"{study.name}_again"
    words = command(study, name, allow_imports=parsed.allow_imports)
    changed = changed_versions(study)
    if parsed.json:
        return print_json({"command": words, "changed_versions": changed})
    compare = ["nas", "compare", str(study.path), str(study.path.with_name(name))]
    sys.stdout.write(f"{shlex.join(words)}\n{shlex.join(compare)}\n")
    for package, (then, now) in changed.items():
        tell(f"{package} was {then} and is {now} here: the outcome may differ")
    return 0


def _explain(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.results.frame import records
    from nas.study.explanation import explain, place

    study = results.open_study(parsed.study, parsed.runs)
    found = explain(study, parsed.pick, allow_imports=parsed.allow_imports)
    columns = list(study.columns.values())
    rows = records(found.sort_values(f"{columns[0]}_change"))
    if parsed.json:
        return print_json(rows)
    from nas.cli.console import print_records

    for row in rows:
        for name in columns:
            around = f" ± {row[f'{name}_std']:.2g}" if row[f"{name}_std"] else ""
            row[f"change of {name}"] = f"{row[f'{name}_change']:+.3g}{around}"
    changes = [f"change of {name}" for name in columns]
    print_records(rows, ["gene", "choice", *changes, "tried", "on_front"])
    sys.stdout.write(f"{place(study, parsed.pick)}\n")
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.study.export import export

    output_is_optional()
    study = results.open_study(parsed.study, parsed.runs)
    folder, difference = export(
        study, parsed.pick, parsed.out, refit=parsed.refit, allow_imports=parsed.allow_imports
    )
    sys.stdout.write(
        f"{folder}: runs without this project; PyTorch and ONNX Runtime differ by "
        f"{difference:.1e} at most\n"
    )
    return 0


def _predict(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.core.files import temporary_folder
    from nas.export.predict import SHOWN, predict
    from nas.study.export import export

    images = parsed.images
    with temporary_folder() as beside:
        folder = Path(parsed.network)
        if not (folder / "architecture.json").is_file():
            study = results.open_study(parsed.network, parsed.runs)
            folder = beside / "export"
            export(study, parsed.pick, folder, allow_imports=parsed.allow_imports)
        try:
            found = dict(zip(images, predict(folder, images), strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise HwnasError(f"{parsed.network}: {one_line(error)}") from error
    if parsed.json:
        return print_json([{"image": image, "outputs": found[image]} for image in images])
    from nas.cli.console import print_records

    ranked = {image: sorted(each.items(), key=lambda o: -o[1]) for image, each in found.items()}
    numbers = [str(number + 1) for number in range(min(SHOWN, len(next(iter(ranked.values())))))]
    print_records(
        [
            {"image": image}
            | {n: f"{name} {value:.3f}" for n, (name, value) in zip(numbers, best, strict=False)}
            for image, best in ranked.items()
        ],
        ["image", *numbers],
    )
    return 0


def _spaces(parsed: argparse.Namespace) -> int:
    from nas.cli import spaces

    records = spaces.list_spaces()
    if parsed.json:
        return print_json(records)
    spaces.print_spaces(records)
    return 0


def _show(parsed: argparse.Namespace) -> int:
    from nas.cli import spaces
    from nas.results.drawing import draw_graphs
    from nas.study.checking import import_modules

    import_modules(parsed.imports)
    space, genotype = spaces.find(parsed.space, parsed.network, parsed.preset, parsed.settings)
    record = spaces.description(space, genotype)
    if parsed.json:
        return print_json(record)
    output_is_optional()
    path = parsed.out or Path(f"{record['arch_id']}.png")
    draw_graphs(space.graphs(genotype), f"{parsed.space} {record['arch_id']}", path)
    spaces.print_network(record)
    sys.stdout.write(f"{path}\n")
    return 0


def _fetch(parsed: argparse.Namespace) -> int:
    del parsed
    output_is_optional()
    from nas.data import fashion_mnist as data

    cached, installed = (
        all((folder / name).is_file() for name in data.MD5)
        for folder in (data.cache_folder(), data.SYSTEM_FOLDER)
    )
    # `fetch` also repairs what is in the cache, so it is left out only where nothing is.
    folder = data.SYSTEM_FOLDER if installed and not cached else data.fetch()
    sys.stdout.write(f"{folder}\n")
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    from nas.cli.doctor import doctor_command

    return doctor_command(parsed)


def _quickstart(parsed: argparse.Namespace) -> int:
    del parsed
    for command in QUICKSTART:
        sys.stdout.write(f"$ {shlex.join(['nas', *command])}\n")
        sys.stdout.flush()
        if status := _run_command(command):
            return status
    return 0


_CONFIGURED = {"compress": "nas.cli.search"}
"""Modules of the commands whose settings Hydra composes, where they are not named like these."""

_COMMANDS = {
    "studies": _studies,
    "pareto": _pareto,
    "compare": _compare,
    "report": _report,
    "ui": _ui,
    "plot": _plot,
    "pack": _pack,
    "unpack": _unpack,
    "sensitivity": _sensitivity,
    "explain": _explain,
    "reproduce": _reproduce,
    "export": _export,
    "predict": _predict,
    "spaces": _spaces,
    "show": _show,
    "fetch": _fetch,
    "device": device.device_command,
    "doctor": _doctor,
    "quickstart": _quickstart,
}

if __name__ == "__main__":
    sys.exit(main())
