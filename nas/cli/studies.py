"""The commands that read studies: what was found, pictures, pages, archives, exports.

Rooms load inside the commands that need them, so that `nas --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.device import print_json
from nas.core.errors import ConfigError, HwnasError, one_line
from nas.core.output import output_is_optional, tell

if TYPE_CHECKING:
    import pandas as pd

    from nas.results.study import StudyResults

REPORT = "report.html"


def studies_command(parsed: argparse.Namespace) -> int:
    """Print a list of the studies of a folder."""
    from nas import results

    records = results.studies(parsed.runs)
    if parsed.json:
        return print_json(records)
    from nas.cli.console import print_records

    shown = ("name", "status", "data", "space", "device", "objectives")
    columns = (*shown, "trials_complete", "trials_failed", "values_of", "error_best")
    print_records([{**r, "objectives": ", ".join(r["objectives"])} for r in records], columns)
    return 0


def pareto_command(parsed: argparse.Namespace) -> int:
    """Print the fronts of studies, and draw them where that is asked for."""
    from nas import results
    from nas.results.frame import records
    from nas.results.study import distinct_names

    studies = [results.open_study(name, parsed.runs) for name in parsed.studies]
    objectives = None if parsed.objectives is None else parsed.objectives.split(",")
    fronts = [s.pareto(parsed.where, objectives, parsed.sort, parsed.fidelity) for s in studies]
    names = distinct_names(studies)
    if parsed.out is not None:
        output_is_optional()
        _write_fronts(studies, names, fronts, parsed.out, objectives)
    if parsed.json:
        named = zip(names, map(records, fronts), strict=True)
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


def _write_fronts(
    studies: Sequence[StudyResults],
    names: Sequence[str],
    fronts: Sequence[pd.DataFrame],
    path: Path,
    objectives: Sequence[str] | None,
) -> None:
    """Write fronts as a table or as a picture, by the file's suffix."""
    from nas.results.pictures import FORMATS
    from nas.results.report import TABLES, write_table

    if path.suffix.lower() in TABLES:
        import pandas as pd

        pairs = zip(names, fronts, strict=True)
        rows = [front.assign(study=name) for name, front in pairs]
        whole = pd.concat(rows, ignore_index=True)
        write_table(whole[["study", *whole.columns.drop("study")]], path)
        return
    from nas.results.plot import plot_fronts

    if path.suffix.lower() not in FORMATS:
        expected = f"a file that ends with {', '.join((*TABLES, *FORMATS))}"
        raise ConfigError("--out", str(path), expected)
    if objectives is not None:
        expected = "no --objectives, as the studies' own are drawn"
        raise ConfigError("--out", str(path), expected)
    plot_fronts(studies, fronts, path)


def compare_command(parsed: argparse.Namespace) -> int:
    """Print in what studies differ."""
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


def report_command(parsed: argparse.Namespace) -> int:
    """Write studies as a page."""
    from nas import results
    from nas.study.page import report

    studies = [results.open_study(name, parsed.runs) for name in parsed.studies]
    path = parsed.out or (studies[0].path / REPORT if len(studies) == 1 else Path(REPORT))
    output_is_optional()
    report(studies, path, allow_imports=parsed.allow_imports)
    sys.stdout.write(f"{path}\n")
    return 0


def ui_command(parsed: argparse.Namespace) -> int:
    """Serve the page of studies until Ctrl-C."""
    from nas import results
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


def plot_command(parsed: argparse.Namespace) -> int:
    """Draw a picture of a study."""
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


def pack_command(parsed: argparse.Namespace) -> int:
    """Write a study into one file."""
    from nas import results
    from nas.results.archive import pack

    study = results.open_study(parsed.study, parsed.runs)
    path = parsed.out or Path(f"{study.name}.tar.gz")
    output_is_optional()
    pack(study, path)
    sys.stdout.write(f"{path}\n")
    return 0


def unpack_command(parsed: argparse.Namespace) -> int:
    """Unpack a study."""
    from nas.results.archive import unpack

    output_is_optional()
    folder = unpack(parsed.archive, Path(parsed.runs), largest_mb=parsed.largest_mb)
    sys.stdout.write(f"{folder}\n")
    return 0


def sensitivity_command(parsed: argparse.Namespace) -> int:
    """Print and draw what each choice alone changes."""
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


def reproduce_command(parsed: argparse.Namespace) -> int:
    """Print the command that searches again."""
    from nas import results
    from nas.study.reproduction import changed_versions, command, folder_of

    study = results.open_study(parsed.study, parsed.runs)
    name = parsed.name or f"{study.name}_again"
    words = command(study, name, allow_imports=parsed.allow_imports)
    changed = changed_versions(study)
    if parsed.json:
        return print_json({"command": words, "changed_versions": changed})
    compare = ["nas", "compare", str(study.path), str(folder_of(study, name))]
    sys.stdout.write(f"{shlex.join(words)}\n{shlex.join(compare)}\n")
    for package, (then, now) in changed.items():
        tell(f"{package} was {then} and is {now} here: the outcome may differ")
    return 0


def explain_command(parsed: argparse.Namespace) -> int:
    """Print what each change of one gene would do."""
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
            row[name] = f"{row[name]:.4g}{around} ({row[f'{name}_change']:+.3g})"
    print_records(rows, ["gene", "choice", *columns, "tried", "on_front"])
    sys.stdout.write(f"{place(study, parsed.pick)}\n")
    return 0


def export_command(parsed: argparse.Namespace) -> int:
    """Write a network for use."""
    from nas import results
    from nas.study.export import export

    output_is_optional()
    study = results.open_study(parsed.study, parsed.runs)
    folder, difference = export(
        study,
        parsed.pick,
        parsed.out,
        refit=parsed.refit,
        pixels=parsed.pixels,
        dynamic_batch=parsed.dynamic_batch,
        allow_imports=parsed.allow_imports,
    )
    sys.stdout.write(
        f"{folder}: runs without this project; PyTorch and ONNX Runtime differ by "
        f"{difference:.1e} at most\n"
    )
    return 0


def predict_command(parsed: argparse.Namespace) -> int:
    """Print what a network sees in images."""
    from nas import results
    from nas.core.files import temporary_folder
    from nas.export.predict import listed, predict, read_record
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
            record = read_record(folder)
        except ValueError as error:
            raise HwnasError(one_line(error)) from error
        except (AttributeError, KeyError, TypeError) as error:
            line = f"{parsed.network}: architecture.json is damaged ({one_line(error)})"
            raise HwnasError(f"{line}; export the network again") from error
    if parsed.json:
        return print_json([{"image": image, "outputs": found[image]} for image in images])
    from nas.cli.console import print_records

    shown = {image: listed(record, outputs) for image, outputs in found.items()}
    numbers = [str(number + 1) for number in range(len(next(iter(shown.values()))))]
    print_records(
        [
            {"image": image}
            | {n: f"{name} {value:.3f}" for n, (name, value) in zip(numbers, outputs, strict=True)}
            for image, outputs in shown.items()
        ],
        ["image", *numbers],
    )
    return 0
