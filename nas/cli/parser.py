"""What the `nas` command understands, noun by noun."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import nas
from nas.cli import device
from nas.core.errors import HwnasError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

ABOUT = "Search the network that is most accurate at the latency and memory of a device."
SEARCH_HELP = """\
Settings are Hydra overrides, NAME=VALUE; `nas search --cfg job` prints all of them.

  nas search experiment=quickstart
  nas search experiment=fashion_mnist search.evaluations=96 'search.constraints=["latency_ms <= 1"]'
  nas search data=image_folder data.path=photos data.image_size=64 name=photos
  nas search --check experiment=fashion_mnist 'search.constraints=["latency_ms <= 1"]'
  nas search --config-dir my_configs experiment=mine
  nas search --multirun seed=0,1,2 'name=digits_${seed}'

The same command again goes on where an interrupted one stopped. With --check nothing is searched:
it says what share of the space keeps the limits, what is reachable, and how long a search takes.
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

COMPRESS_HELP = """\
Make a trained network smaller and faster: channels, bits, zero weights and ranks of its layers are
searched for, judged by the data, timed on the device, and verified as by `nas search`.

  nas compress my_models:resnet18 --weights resnet18.safetensors data=image_folder data.path=photos
  nas compress photos:knee data=image_folder data.path=photos 'search.constraints=["latency_ms<=2"]'
  nas compress my_models:net 'search_space.sparsities=[0,0.5,0.9]' evaluation.recipe.epochs=1

BASE is MODULE:FUNCTION, whose function returns a torch.nn.Module; STUDY:PICK, a verified network of
a study; or a folder with an export or a checkpoint of Hugging Face transformers. Settings are those
of `nas search experiment=compression`.
"""

CONFIGURED = {
    "search": ("run a study, or go on with one", SEARCH_HELP),
    "compress": ("make a trained network smaller and faster", COMPRESS_HELP),
    "calibrate": ("fit a latency predictor to a device", CALIBRATE_HELP),
}
"""Help and description of the commands whose settings Hydra composes."""


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments as a `HwnasError`."""

    def error(self, message: str) -> NoReturn:
        raise HwnasError(f"{message}; see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands.

    Parsing raises a `HwnasError` where arguments are wrong.
    """
    whole: argparse.ArgumentParser = _Parser(prog="nas", description=ABOUT)
    whole.add_argument("--version", action="version", version=f"%(prog)s {nas.__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (about, _) in CONFIGURED.items():
        # Its arguments are read by `settings_parser`.
        commands.add_parser(name, help=about)
    _add_studies(commands)
    _add_spaces(commands)
    commands.add_parser("quickstart", help="search on embedded images, and export a network")
    doctor = commands.add_parser("doctor", help="say what this machine has and lacks")
    doctor.add_argument("--runs", default="runs", help="folder of studies (default: runs)")
    doctor.add_argument("--json", action="store_true", help="print a JSON list of records")
    fetch = commands.add_parser("fetch", help="download a data set, unless it is here already")
    fetch.add_argument("data", choices=["fashion_mnist"])
    device.add_parser(commands)
    return whole


def settings_parser(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command whose settings Hydra composes.

    Settings may stand before, between and behind the options: use `parse_intermixed_args`.
    """
    own = _Parser(
        prog=f"nas {command}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=CONFIGURED[command][1],
    )
    if command == "compress":
        own.add_argument("base", metavar="BASE", help="the network")
        own.add_argument("--weights", metavar="FILE", help="a safetensors file with its weights")
    own.add_argument("overrides", metavar="NAME=VALUE", nargs="*", help="a setting")
    own.add_argument(
        "--config-dir", "-cd", type=Path, metavar="FOLDER", help="your own configurations"
    )
    own.add_argument("--cfg", "-c", choices=["job"], help="print every setting, and end")
    own.add_argument(
        "--info", action="store_true", help="print the options of every group, and end"
    )
    own.add_argument(
        "--multirun", "-m", action="store_true", help="one run for each of the values in NAME=A,B"
    )
    own.add_argument(
        "--shell-completion",
        "-sc",
        choices=["install=bash", "query=bash"],
        help=f'completion in the shell: eval "$(nas {command} -sc install=bash)"',
    )
    if command != "calibrate":
        own.add_argument(
            "--check", action="store_true", help="say what a search would look for, and end"
        )
    return own


def _add_studies(commands: Commands) -> None:
    """Add the commands that read studies."""
    studies = commands.add_parser("studies", help="list studies, newest first")
    pareto = commands.add_parser("pareto", help="print the Pareto fronts of studies")
    compare = commands.add_parser("compare", help="what differs between studies")
    report = commands.add_parser("report", help="write studies as a page for the browser")
    ui = commands.add_parser("ui", help="show the page of studies while they go on")
    plot = commands.add_parser("plot", help="draw a picture of a study")
    sensitivity = commands.add_parser(
        "sensitivity", help="what each choice alone changes in a network"
    )
    pack = commands.add_parser("pack", help="write a study into one file")
    unpack = commands.add_parser("unpack", help="unpack a study that somebody has packed")
    reproduce = commands.add_parser("reproduce", help="print the command that searches again")
    explain = commands.add_parser("explain", help="what a change of one gene would do")
    export = commands.add_parser("export", help="write one network for use")
    predict = commands.add_parser("predict", help="what a network sees in images")
    for command in (pareto, compare, report, ui):
        command.add_argument(
            "studies", metavar="STUDY", nargs="+", help="names of studies, or folders"
        )
    unpack.add_argument("archive", metavar="FILE", type=Path, help="of `nas pack`")
    unpack.add_argument(
        "--largest-mb",
        type=float,
        default=4096.0,
        help="refuse what unpacks to more (default: 4096)",
    )
    for command in (plot, sensitivity, explain, reproduce, pack, export):
        command.add_argument("study", metavar="STUDY", help="name of a study, or its folder")
    predict.add_argument("network", metavar="STUDY|FOLDER", help="a study, or an exported network")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="an image file")
    one = (plot, sensitivity, explain, reproduce, pack, unpack, export, predict)
    for command in (studies, pareto, compare, report, ui, *one):
        command.add_argument("--runs", default="runs", help="folder of studies (default: runs)")
    for command in (studies, pareto, compare, sensitivity, explain, reproduce, predict):
        command.add_argument("--json", action="store_true", help="print a JSON list of records")
    pareto.add_argument("--where", help='such as "latency_ms_measured < 1 and params_m < 0.5"')
    pareto.add_argument("--sort", metavar="COLUMN", help="smallest first (default: error)")
    pareto.add_argument(
        "--objectives", metavar="A,B", help="columns in place of the study's objectives"
    )
    pareto.add_argument(
        "--fidelity", type=float, default=1.0, help="share of the full training (default: 1)"
    )
    pareto.add_argument(
        "--out",
        type=Path,
        help="a table (.csv, .md, .parquet) or a picture (.png, .svg, .pdf) of the fronts",
    )
    report.add_argument(
        "--out",
        type=Path,
        help="HTML file (default: report.html, in the study's folder where there is one study)",
    )
    pack.add_argument("--out", type=Path, help="the file (default: STUDY.tar.gz)")
    ui.add_argument("--port", type=int, default=8000, help="of 127.0.0.1 (default: 8000)")
    for command in (report, ui, plot, sensitivity, explain, reproduce, export, predict):
        command.add_argument(
            "--allow-imports",
            action="store_true",
            help="import the modules that the study names, which runs their code",
        )
    sensitivity.add_argument(
        "--of", default="base", help="a published network of the space (default: base)"
    )
    sensitivity.add_argument("--out", type=Path, help="picture (default: in the study's folder)")
    reproduce.add_argument("--name", help="of the new study (default: STUDY_again)")
    plot.add_argument("what", choices=["front", "progress", "genes", "predictor", "architecture"])
    plot.add_argument("--out", type=Path, help="PNG, SVG or PDF file (default: STUDY_WHAT.png)")
    for command in (plot, explain, export, predict):
        command.add_argument(
            "--pick",
            default="knee",
            help="knee, best, fastest, an arch_id, the best with a condition: 'params_m < 1', or "
            "what is to be smallest or largest: 'error_final < 10, min latency_ms'",
        )
    export.add_argument(
        "--pixels",
        action="store_true",
        help="also an ONNX file that takes uint8 pixels and names its outputs: pixels.onnx",
    )
    export.add_argument(
        "--dynamic-batch",
        action="store_true",
        help="also an ONNX file that takes any number of images at a time, in fp32: batches.onnx",
    )
    export.add_argument(
        "--refit",
        action="store_true",
        help="the network that finalise.refit trained on train and validation images together",
    )
    export.add_argument("--out", default="out", type=Path, help="folder (default: out)")


def _add_spaces(commands: Commands) -> None:
    """Add the commands about search spaces and their networks."""
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
        "settings",
        metavar="NAME=VALUE",
        nargs="*",
        default=[],
        help="such as input_shape=[1,28,28]",
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
