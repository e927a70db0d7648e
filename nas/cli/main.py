"""The `nas` command.

Rooms load inside the commands that need them, so that `nas --help` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nas
from nas.cli import device
from nas.cli.extras import missing_packages
from nas.core.errors import HwnasError

ABOUT = "Search the network that is most accurate at the latency and memory of a device."
SEARCH_HELP = """\
Settings are Hydra overrides, NAME=VALUE; `nas search --cfg job` prints all of them.

  nas search experiment=quickstart
  nas search experiment=fashion_mnist search.evaluations=96 'search.constraints=["latency_ms <= 1"]'
  nas search data=image_folder data.path=photos data.image_size=64 name=photos
  nas search --config-dir my_configs experiment=mine
  nas search --multirun seed=0,1,2 'name=digits_${seed}'

The same command again goes on where an interrupted one stopped.
"""

CALIBRATE_HELP = """\
Measure some networks of a search space on a device and fit a latency predictor to them.
Settings are those of `nas search`; images are as the data set's, unless both settings of the
second line say what they are.

  nas calibrate search_space=vit device=cpu data=image_folder data.path=photos
  nas calibrate search_space=vit search_space.input_shape=[3,64,64] search_space.num_classes=10
  nas calibrate latency_predictor=kernels latency_predictor.samples=100 device.threads=2 out=there

Prints the error of every candidate predictor by cross-validation; writes the predictor and its
samples to OUT (RUNS/predictors/SPACE-DEVICE). Measurements are kept in RUNS/measurements and are
not taken again, by the same command after an interruption or by a search.
"""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 after a one-line error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["search"] and not {"-h", "--help"} & set(given):
            from nas.cli.search import search

            return search(given[1:])
        if given[:1] == ["calibrate"] and not {"-h", "--help"} & set(given):
            from nas.cli.calibrate import calibrate

            return calibrate(given[1:])
        parsed = _parser().parse_args(given)
        status = _COMMANDS[parsed.command](parsed)
        sys.stdout.flush()
        return status
    except HwnasError as error:
        sys.stderr.write(f"nas: {error}\n")
        return 2
    except ModuleNotFoundError:
        missing = missing_packages()
        if not missing:
            raise
        line = f"{given[0]!r} needs packages that are not installed ({missing})"
        sys.stderr.write(f"nas: {line}: pip install 'hwnas[search]'\n")
        return 2
    except BrokenPipeError:
        # Python writes what is left at its exit, to where nobody reads any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        where = error.filename or "disk"
        line = f"{where}: {error.strerror}; free space and run the command again"
        sys.stderr.write(f"nas: {line}; what was finished is kept\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("nas: interrupted; what was finished is kept, run the command again\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nas", description=ABOUT)
    parser.add_argument("--version", action="version", version=f"%(prog)s {nas.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "search",
        help="run a study, or go on with one",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="nas search [NAME=VALUE ...]",
        description=SEARCH_HELP,
    )
    commands.add_parser(
        "calibrate",
        help="fit a latency predictor to a device",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="nas calibrate [NAME=VALUE ...]",
        description=CALIBRATE_HELP,
    )
    studies = commands.add_parser("studies", help="list studies, newest first")
    pareto = commands.add_parser("pareto", help="print a study's Pareto front")
    export = commands.add_parser("export", help="write one network for use")
    for command in (pareto, export):
        command.add_argument("study", metavar="STUDY", help="name of a study, or its folder")
    for command in (studies, pareto, export):
        command.add_argument("--runs", default="runs", help="folder of studies (default: runs)")
    for command in (studies, pareto):
        command.add_argument("--json", action="store_true", help="print a JSON list of records")
    pareto.add_argument("--where", help='such as "latency_ms_measured < 1 and params_m < 0.5"')
    pareto.add_argument("--sort", metavar="COLUMN", help="smallest first (default: error)")
    pareto.add_argument(
        "--objectives", metavar="A,B", help="columns in place of the study's objectives"
    )
    pareto.add_argument(
        "--fidelity", type=float, default=1.0, help="share of the full training (default: 1)"
    )
    export.add_argument("--pick", default="knee", help="knee, best, fastest or an arch_id")
    export.add_argument("--out", default="out", type=Path, help="folder (default: out)")
    spaces = commands.add_parser("spaces", help="list search spaces with their sizes")
    spaces.add_argument("--json", action="store_true", help="print a JSON list of records")
    show = commands.add_parser(
        "show",
        help="print and draw one network of a search space",
        usage="nas show SPACE NETWORK [NAME=VALUE ...] [options]",
    )
    show.add_argument("space", metavar="SPACE", help="see `nas spaces`")
    show.add_argument(
        "network", metavar="NETWORK", help="a reference, such as mobilenet_v2, or 0,1,0,2,..."
    )
    show.add_argument(
        "settings", metavar="NAME=VALUE", nargs="*", help="such as input_shape=[1,28,28]"
    )
    show.add_argument("--preset", help="settings to start from (default: the first that fits)")
    show.add_argument("--out", type=Path, help="file of the drawing (default: ARCH_ID.png)")
    show.add_argument("--json", action="store_true", help="print a JSON record, draw nothing")
    show.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours that registers SPACE",
    )
    fetch = commands.add_parser("fetch", help="download a data set, unless it is here already")
    fetch.add_argument("data", choices=["fashion_mnist"])
    device.add_parser(commands)
    benchmark = commands.add_parser("benchmark", help="measure how good the platform is here")
    kinds = benchmark.add_subparsers(dest="benchmark", required=True, metavar="WHAT")
    for kind, about, out in (
        ("predictor", "accuracy of the latency predictor", "latency_predictors"),
        ("memory", "accuracy of predicted peak memory", "peak_memory"),
    ):
        accuracy = kinds.add_parser(kind, help=about)
        accuracy.add_argument("spaces", metavar="SPACE", nargs="*", help="default: all")
        accuracy.add_argument("--device", default="cpu", help="name of a device (default: cpu)")
        accuracy.add_argument("--out", type=Path, default=Path("experiments") / out, help="folder")
    return parser


def _studies(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.cli.console import print_records

    records = results.studies(parsed.runs)
    if parsed.json:
        return _print_json(records)
    columns = ("name", "status", "trials_complete", "trials_failed", "error_best", "created_utc")
    print_records(records, columns)
    return 0


def _pareto(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.cli.console import print_front
    from nas.results.study import records

    study = results.open(parsed.study, parsed.runs)
    objectives = parsed.objectives.split(",") if parsed.objectives else None
    front = study.pareto(parsed.where, objectives, parsed.sort, parsed.fidelity)
    if parsed.json:
        return _print_json(records(front))
    print_front(study, front)
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from nas import results
    from nas.study.takeaway import export

    folder, difference = export(results.open(parsed.study, parsed.runs), parsed.pick, parsed.out)
    sys.stdout.write(
        f"{folder}: runs without this project; PyTorch and ONNX Runtime differ by "
        f"{difference:.1e} at most\n"
    )
    return 0


def _spaces(parsed: argparse.Namespace) -> int:
    from nas.cli import spaces

    records = spaces.list_spaces()
    if parsed.json:
        return _print_json(records)
    spaces.print_spaces(records)
    return 0


def _show(parsed: argparse.Namespace) -> int:
    from nas.cli import spaces
    from nas.results.drawing import draw_graphs
    from nas.study.imports import import_modules

    import_modules(parsed.imports)
    space, genotype = spaces.find(parsed.space, parsed.network, parsed.preset, parsed.settings)
    record = spaces.description(space, genotype)
    if parsed.json:
        return _print_json(record)
    spaces.print_network(record)
    path = parsed.out or Path(f"{record['arch_id']}.png")
    draw_graphs(space.graphs(genotype), f"{parsed.space} {record['arch_id']}", path)
    sys.stdout.write(f"{path}\n")
    return 0


def _benchmark(parsed: argparse.Namespace) -> int:
    from nas.cli import benchmark

    kinds = {"predictor": benchmark.predictor, "memory": benchmark.memory}
    return kinds[parsed.benchmark](parsed.spaces, parsed.device, parsed.out)


def _fetch(parsed: argparse.Namespace) -> int:
    del parsed
    from nas.data import fashion_mnist as data

    cached, installed = (
        all((folder / name).is_file() for name in data.MD5)
        for folder in (data.cache_folder(), data.SYSTEM_FOLDER)
    )
    # `fetch` also repairs what is in the cache, so it is left out only where nothing is.
    folder = data.SYSTEM_FOLDER if installed and not cached else data.fetch()
    sys.stdout.write(f"{folder}\n")
    return 0


def _print_json(records: list[dict[str, Any]] | dict[str, Any]) -> int:
    sys.stdout.write(json.dumps(records, indent=2) + "\n")
    return 0


_COMMANDS = {
    "studies": _studies,
    "pareto": _pareto,
    "export": _export,
    "spaces": _spaces,
    "show": _show,
    "fetch": _fetch,
    "benchmark": _benchmark,
    "device": device.run,
}

if __name__ == "__main__":
    sys.exit(main())
