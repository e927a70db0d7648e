"""What cannot work is refused at once, in one line that names it, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from nas_command import SMALL, Ended, Finished

from nas.study.folder import StudyFolder

Here = Callable[..., Ended]

LONG = "x" * 300

# A setting of `nas search`, how the line begins that refuses it, and what else it says.
SETTINGS = {
    "mistyped setting": ("search.evaluation=3", "search.evaluation: got 3", "lookahead"),
    "mistyped section": ("finalize.limit=2", "configuration: got 'finalize'", "finalise"),
    "mistyped setting of a device": ("device.thread=3", "device.thread: got 3", "threads"),
    "unknown space": ("search_space=mobilnet", "search space: got 'mobilnet'", "mobilenet"),
    "unknown experiment": ("experiment=quick", "experiment: got 'quick'", "quickstart"),
    "unknown space by name": ("search_space.name=x", "search space: got 'x'", "mobilenet"),
    "unknown device": ("device.name=foo", "device: got 'foo'", "cpu"),
    "unknown algorithm": ("search.algorithm.name=foo", "search algorithm: got 'foo'", "nsga2"),
    "unknown data": ("data.name=foo", "data set: got 'foo'", "digits"),
    "unknown predictor": ("latency_predictor.name=foo", "latency predictor: got 'foo'", "gaussian"),
    "unknown evaluator": ("evaluation.name=foo", "evaluation: got 'foo'", "training"),
    "no group": ("~data", "name: cannot be resolved", "data.name"),
    "text for a number": ("search.evaluations=many", "search.evaluations: got 'many'", "whole"),
    "share for a count": ("search.evaluations=1.5", "search.evaluations: got 1.5", "whole"),
    "text for a truth": (
        "device.runtime.allow_spinning=3.5",
        "device.runtime.allow_spinning: got 3.5",
        "true",
    ),
    "unknown runtime": ("device.runtime=foo", "device.runtime: got 'foo'", "openvino"),
    "setting of another runtime": (
        "+device.runtime.compiled=true",
        "device.runtime.compiled: got True",
        "allow_spinning",
    ),
    "text for a list": ("search.constraints=foo", "search.constraints: got 'foo'", "a list"),
    "list for a text": ("search.objectives=[[error]]", "search.objectives: got ['error']", "texts"),
    "nothing for a number": ("seed=null", "seed: got None", "a value"),
    "no evaluations": ("search.evaluations=0", "search.evaluations: got 0", "1 or more"),
    "no time for a budget": ("budget=15", "budget: got '15'", "15min"),
    "a budget without time": ("budget=0min", "budget: got '0min'", "core-h"),
    "negative seed": ("seed=-1", "seed: got -1", "0 or more"),
    "too few samples": ("latency_predictor.samples=1", "latency_predictor.samples: got 1", "4"),
    "name of an optimizer": (
        "evaluation.recipe.optimizer=adamw",
        "evaluation.recipe.optimizer: got 'adamw'",
        "evaluation.recipe.optimizer.NAME, one of name",
    ),
    "nothing for settings": ("finalise.recipe.schedule=null", "finalise.recipe.schedule: ", "name"),
    "seconds for settings": ("search.stop=60", "search.stop: got 60", "wall_clock_s"),
    "number for a runtime": ("device.runtime=5", "device.runtime: got 5", "name"),
    "no epochs": ("evaluation.recipe.epochs=0", "evaluation.recipe.epochs: got 0", "1 or more"),
    "images that grow too large": (
        "evaluation.recipe.initial_resolution=2",
        "evaluation.recipe.initial_resolution: got 2",
        "1 at most",
    ),
    "no epochs at the end": ("finalise.recipe.epochs=0", "finalise.recipe.epochs: got 0", "1"),
    "negative limit": ("finalise.limit=-1", "finalise.limit: got -1", "0 or more"),
    "constraint text": ('search.constraints=["error 2"]', "got 'error 2'", "latency_ms <= 2"),
    "constraint name": ('search.constraints=["foo<=2"]', "objective: got 'foo'", "macs_m"),
    "metric by another name": ("search.objectives=[macro_f1]", "'macro_f1'", "'macro_f1_error'?"),
    "unknown objective": ("search.objectives=[foo]", "objective: got 'foo'", "latency_ms"),
    "objective twice": ("search.objectives=[error,error]", "search.objectives: got", "each once"),
    "no objective": ("search.objectives=[]", "search.objectives: got []", "at least one"),
    "bad name": ("name=../x", "name: got '../x'", "letters"),
    "name that reads as a number": ("name=359_0", "name: got 3590", "quote"),
    "name of a folder beside": ("name=measurements", "name: got 'measurements'", "no study"),
    "negative number of measurements": (
        "search.adaptive_measurement.measurements=-1",
        "search.adaptive_measurement.measurements: got -1",
        "0 or more",
    ),
    "certain coverage": (
        "search.adaptive_measurement.coverage=1",
        "search.adaptive_measurement.coverage: got 1",
        "between",
    ),
    "missing path": ("data=npz", "data.path: got None", "a value"),
    "reference of nothing": (
        "search.reference_point={foo: 1}",
        "search.reference_point.foo: got 'foo'",
        "error, latency_ms",
    ),
    "reference at zero": (
        "search.reference_point={error: 0}",
        "search.reference_point.error: got 0.0",
        "above 0",
    ),
    "missing module": ("imports=[no_such_module]", "got 'no_such_module'", "PYTHONPATH"),
    "module as text": ("imports=no_such_module", "imports: got 'no_such_module'", "a list"),
    "unknown database": ("ledger.url=foo", "ledger 'foo'", "postgresql://"),
    "ledger without a file": ("ledger.url=sqlite://", "ledger.url: got 'sqlite://'", "FILE"),
    "ledger without a folder": ("ledger.url=sqlite:////no/x.db", "ledger.url: got", "exists"),
    "unset variable": ("ledger.url=${oc.env:NOT_SET}", "ledger.url: cannot be", "NOT_SET"),
    "exposed password": (
        'ledger.url="postgresql://u@h/d?password=secret"',
        "ledger.url: got",
        "PGPASSWORD",
    ),
    "unreadable override": ("a b", "a b: cannot be read", "NAME=VALUE"),
    "no folder of settings": ("--config-dir=nowhere", "--config-dir: got 'nowhere'", "a folder"),
    "empty number": ("search.evaluations=", "search.evaluations: got ''", "whole"),
    "endless number": ("search.evaluations=1e999", "search.evaluations: got inf", "whole"),
    "list for a number": ("search.evaluations=[1]", "search.evaluations: got [1]", "whole"),
    "settings for a number": ("seed={a: 1}", "seed: got {'a': 1}", "whole"),
    "list for settings": ("search.algorithm=[]", "search.algorithm", "Cannot merge"),
    "list for a component": ("search=[nsga2,tpe]", "search: got ['nsga2', 'tpe']", "one name"),
    "nothing for a component": ("data=null", "data: got None", "one name"),
    "number for a component": ("fidelity=1", "fidelity: got 1", "one name"),
    "empty component": ("data=", "data: got ''", "digits"),
    "no name of a setting": ("=3", "=3", "NAME=VALUE"),
    "nothing to delete": ("~", "~", "NAME=VALUE"),
    "open bracket": ("imports=[a", "imports=[a: cannot be read", """'imports="[a"'"""),
    "open quotation": ("name='a", "name='a: cannot be read", "quote"),
    "equals sign in a value": ("name=a=b", "name=a=b: cannot be read", """'name="a=b"'"""),
    "two dots": ("search..evaluations=3", "search..evaluations=3: cannot be read", "NAME=VALUE"),
    "empty name": ("name=", "name: got ''", "letters"),
    "null name": ("name=null", "name: got None", "a value"),
    "long name": (f"name={LONG}", f"runs/{LONG}: cannot be written", "too long"),
    "name of the folder itself": ("name=.", "name: got '.'", "letters"),
    "name with a null character": ("name=a\0", r"name=a\x00: cannot be read", "quote"),
    "no folder of studies": ("runs=", "runs: got ''", "a folder"),
    "file for a folder of studies": ("runs={files}/text", "runs: got", "/text is no folder"),
    "study in a file": ("runs={files}/text/runs", "runs: got", "/text is no folder"),
    "folder that nobody can make": ("runs=/proc/runs", "/proc/runs/digits: cannot", "`runs`"),
    "file for measurements": ("measurements={files}/text", "measurements: got", "no folder"),
    "module that is no name": ("imports=[.a]", "imports: got '.a'", "names of modules"),
    "module with an error": ("imports=[broken]", "imports: got 'broken'", "line 1"),
    "range of values": ("seed=range(1,3)", "seed: got 'range(1,3)'", "--multirun"),
    "mistyped section with a suggestion": ("serch.mode=async", "got 'serch'", "mean 'search'?"),
    "mistyped mode": ("search.mode=asinc", "search.mode: got 'asinc'", "mean 'async'?"),
    "mistyped field": ("search.stop.failure=1", "search.stop.failure: got 1", "'failures'?"),
    "mistyped component": ("search=guide", "search algorithm: got 'guide'", "mean 'guided'?"),
    "no lookahead": ("search.lookahead=0", "search.lookahead: got 0", "1 or more"),
    "no time": ("search.stop.wall_clock_s=0", "search.stop.wall_clock_s: got 0.0", "more than 0"),
    "unknown start": ("search.warm_start=[a]", "search.warm_start: got 'a'", "study of runs/"),
    "limit that is no number": (
        'search.constraints=["error < nan"]',
        "search.constraints: got 'error < nan'",
        "NUMBER",
    ),
    "share above 1": ("data.validation_share=2", "data.validation_share: got 2.0", "between 0"),
    "negative split": ("data.split_seed=-1", "data.split_seed: got -1", "0 to"),
    "no threads": ("device.threads=0", "device.threads: got 0", "1 or more"),
    "unknown precision": ("device.precision=int3", "device.precision: got 'int3'", "int8"),
    "unknown optimisation": (
        "device.runtime.graph_optimization=most",
        "device.runtime.graph_optimization: got 'most'",
        "extended",
    ),
    "negative block": ("device.block_ms=-1", "device.block_ms: got -1.0", "above 0"),
    "one round": ("device.min_rounds=1", "device.min_rounds: got 1", "36 or more"),
    "no command": ("device=remote", "device.command: got None", "a value"),
    "no node": ("device=ray_node", "device.node: got None", "a value"),
    "device of another space": ("device=table", "search_space: got 'mobilenet'", "nasbench201"),
    "negative width": ("search_space.widths=[-1]", "search_space.widths: got [-1.0]", "positive"),
    "even kernel": ("search_space.kernels=[2]", "search_space.kernels: got [2]", "odd"),
    "too many threads": (
        "evaluation.threads_per_worker=9999",
        "evaluation.threads_per_worker: got 9999",
        "core",
    ),
    "negative rate": (
        "evaluation.recipe.optimizer.learning_rate=-1",
        "evaluation.recipe.optimizer.learning_rate: got -1.0",
        "above 0",
    ),
    "preset for a recipe": ("finalise.recipe=full", "finalise.recipe: got 'full'", ".preset=NAME"),
    "table without its data": ("evaluation=tabular", "data: got 'digits'", "published"),
    "transfer from nothing": (
        "latency_predictor=transfer",
        "latency_predictor.sources: got None",
        "a value",
    ),
    "address without a port": ("ray.address=nowhere", "ray.address: got 'nowhere'", "cluster"),
    "address of nothing": ("ray.address=127.0.0.1:1", "ray.address: got", "ray start --head"),
    "ledger of another kind": ("ledger.url=mysql://u@h/d", "ledger mysql://u@h/d", "postgresql"),
    "ledger that does not answer": (
        "ledger.url=postgresql://u@127.0.0.1:1/d",
        "ledger postgresql://u@127.0.0.1:1/d",
        "refused",
    ),
    "folder for a ledger": ("ledger.url=sqlite:///{files}", "ledger sqlite:///", "unable to open"),
    "several values": ("seed=0,1", "seed: got '0,1'", "--multirun"),
    "what the data say": ("search_space.num_classes=3", "search_space.num_classes: got 3", "data"),
}

# A command, and what the line says that refuses it.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no command": ((), ("COMMAND", "nas --help")),
    "mistyped command": (("paretto",), ("'paretto'", "'pareto'")),
    "mistyped option": (("search", "--chek"), ("--chek", "nas search --help")),
    "value of an option": (("search", "--cfg", "all"), ("--cfg", "'all'", "'job'")),
    "no network to compress": (("compress", "data=digits"), ("BASE: got 'data=digits'", "network")),
    "no module with a network": (
        ("compress", "there_is_none:net"),
        ("search_space.base: got 'there_is_none'", "PYTHONPATH"),
    ),
    "no function that returns a network": (
        ("compress", "bases:there_is_none"),
        ("search_space.base: got 'bases:there_is_none'", "torch.nn.Module"),
    ),
    "another experiment": (
        ("compress", "bases:net_1_8_8_10", "experiment=quickstart"),
        ("experiment: got 'quickstart'", "none"),
    ),
    "precisions of layers in a runtime without": (
        ("compress", "bases:net_1_8_8_10", "device.runtime=mnn"),
        ("search_space.precisions: got ['fp32', 'int8']", "mnn"),
    ),
    "precisions of layers in a runtime with one of all": (
        ("compress", "bases:net_1_8_8_10", "device.runtime=litert"),
        ("search_space.precisions: got ['fp32', 'int8']", "litert"),
    ),
    "precisions of layers beside one of all": (
        ("compress", "bases:net_1_8_8_10", "device.precision=int8"),
        ("device.precision: got 'int8'", "search_space.precisions"),
    ),
    "a supernet of trained networks": (
        ("compress", "bases:net_1_8_8_10", "evaluation=supernet"),
        ("search_space: got 'CompressedSpace'", "evaluation=training"),
    ),
    "compressed size without a training": (
        (
            *("search", "evaluation=proxy", "finalise.limit=1"),
            "search.objectives=[stored_size_mb,params_m]",
        ),
        ("search.objectives: got 'stored_size_mb'", "model_size_mb"),
    ),
    "noise of something else": (
        ("search", "fidelity=mo_asha", "fidelity.noise={errors: 0.5}"),
        ("fidelity.noise.errors: got 'errors'", "error, latency_ms", "'error'?"),
    ),
    "falling rungs": (
        ("search", "fidelity=mo_asha", "fidelity.rungs=[1,0.5]"),
        ("rungs", "rising"),
    ),
    "text instead of a command": (
        ("search", "device=remote", "device.command='\"'"),
        ("device.command: got", "ssh"),
    ),
    "an image that is not there": (
        ("predict", "small", "{runs}", "{files}/none.png"),
        ("{files}/none.png", "No such file"),
    ),
    "a picture of an unknown kind": (
        ("plot", "small", "front", "{runs}", "--out", "{files}/front.bmp"),
        ("--out: got", ".png, .svg, .pdf"),
    ),
    "an architecture that is not there": (
        ("explain", "small", "{runs}", "--pick", "zzz"),
        ("architecture: got 'zzz'", "knee"),
    ),
    "a study to reproduce that is not there": (
        ("reproduce", "smal", "{runs}"),
        ("study: got 'smal'", "small"),
    ),
    "unknown hardware": (
        ("search", "device=table", "device.hardware=pixel33"),
        ("device.hardware: got 'pixel33'", "did you mean 'pixel3'?"),
    ),
    "setting of another space": (
        ("search", "search_space=vit", "search_space.kernels=[3]"),
        ("search_space.kernels: got [3]", "head_width"),
    ),
    "settings in a file": (
        ("search", "--config-dir={files}/text"),
        ("--config-dir: got", "a folder"),
    ),
    "experiment without a package": (
        ("search", "--config-dir={files}/configs", "experiment=unplaced"),
        ("unplaced.yaml", "# @package _global_"),
    ),
    "experiment that is a list": (
        ("search", "--config-dir={files}/configs", "experiment=items"),
        ("experiment/items",),
    ),
    "experiment with a mistyped setting": (
        ("search", "--config-dir={files}/configs", "experiment=mistyped"),
        ("search.evaluation: got 3", "'evaluations'?"),
    ),
    "no arrays": (("search", "data=npz", "data.path={files}/text"), ("/text", "npz file")),
    "missing arrays": (("search", "data=npz", "data.path={files}/no.npz"), ("no.npz", "no such")),
    "vectors": (("search", "data=npz", "data.path={files}/vectors.npz"), ("vectors", "(4, 3)")),
    "other arrays": (
        ("search", "data=npz", "data.path={files}/other.npz"),
        ("other", "found", "a"),
    ),
    "fewer targets": (
        ("search", "data=npz", "data.path={files}/short.npz"),
        ("short", "4 targets"),
    ),
    "no numbers": (("search", "data=npz", "data.path={files}/nan.npz"), ("nan.npz", "[0, 1]")),
    "mistyped layout": (
        ("search", "data=npz", "data.path={files}/nan.npz", "data.layout=nchv"),
        ("data.layout: got 'nchv'", "'nchw'?"),
    ),
    "missing images": (
        ("search", "data=image_folder", "data.path={files}/no"),
        ("/no: no such folder",),
    ),
    "images without classes": (
        ("search", "data=image_folder", "data.path={files}/empty"),
        ("/empty: got 0 class", "2 or more"),
    ),
    "images of no size": (
        ("search", "data=image_folder", "data.path={files}/empty", "data.image_size=0"),
        ("data.image_size: got 0",),
    ),
    "mistyped setting to check": (("search", "--check", "seeds=1"), ("'seeds'", "'seed'?")),
    "unknown setting of a calibration": (("calibrate", "output=x"), ("got 'output'", "device")),
    "calibration into a file": (("calibrate", "out={files}/text"), ("out: got", "no folder")),
    "calibration of a table": (("calibrate", "device=table"), ("device: got 'table'",)),
    "calibration of half an image": (
        ("calibrate", "search_space.num_classes=3"),
        ("search_space.input_shape: got None",),
    ),
    "no study": (("pareto",), ("STUDY", "nas pareto --help")),
    "missing study": (("pareto", "x"), ("study: got 'x'", "runs/: none")),
    "study outside": (("export", "../x"), ("study: got '../x'", "runs/: none")),
    "study of a long name": (("pareto", LONG), (LONG, "too long")),
    "study that is a file": (("pareto", "{files}/text"), ("study: got", "none")),
    "mistyped study": (("pareto", "smal", "{runs}"), ("study: got 'smal'", "mean 'small'?")),
    "studies in a file": (("studies", "--runs={files}/text"), ("runs: got", "a folder")),
    "condition without a comparison": (
        ("pareto", "small", "{runs}", "--where=error"),
        ("where: got 'error'", "comparisons"),
    ),
    "condition on nothing": (
        ("pareto", "small", "{runs}", "--where=eror < 3"),
        ("where: got 'eror'", "mean 'error'?"),
    ),
    "condition that would run": (
        ("pareto", "small", "{runs}", "--where=__import__('os').getcwd() < 3"),
        ("where: got", "comparisons"),
    ),
    "open condition": (("pareto", "small", "{runs}", "--where=error < ("), ("where: got",)),
    "empty condition": (("pareto", "small", "{runs}", "--where="), ("where: got ''",)),
    "long condition": (("pareto", "small", "{runs}", f"--where={LONG * 2}"), ("500 characters",)),
    "text below a text": (("pareto", "small", "{runs}", "--where=error < 'a'"), ("where: got",)),
    "order by nothing": (
        ("pareto", "small", "{runs}", "--sort=params"),
        ("sort: got 'params'", "mean 'params_m'?"),
    ),
    "objective of nothing": (
        ("pareto", "small", "{runs}", "--objectives=error,latency"),
        ("objectives: got 'latency'", "latency_ms"),
    ),
    "objective without a number": (
        ("pareto", "small", "{runs}", "--objectives=status"),
        ("objectives: got 'status'", "numbers"),
    ),
    "empty objective": (("pareto", "small", "{runs}", "--objectives="), ("objectives: got ''",)),
    "unknown fidelity": (("pareto", "small", "{runs}", "--fidelity=0.3"), ("fidelity: got 0.3",)),
    "text for a fidelity": (("pareto", "small", "{runs}", "--fidelity=x"), ("--fidelity", "'x'")),
    "mistyped pick": (
        ("export", "small", "{runs}", "--pick=kneee"),
        ("got 'kneee'", "mean 'knee'?"),
    ),
    "pick of several": (("export", "small", "{runs}", "--pick="), ("got ''", "it fits")),
    "pick of nothing": (("export", "small", "{runs}", "--pick=zz"), ("got 'zz'", "fits none")),
    "nothing refitted": (("export", "small", "{runs}", "--refit"), ("refitted", "none")),
    "export into a file": (("export", "small", "{runs}", "--out={files}/text"), ("is a file",)),
    "export over other files": (
        ("export", "small", "{runs}", "--out={files}"),
        ("vectors.npz", "empty folder"),
    ),
    "export where nobody can write": (
        ("export", "small", "{runs}", "--out=/proc/out"),
        ("/proc/out: cannot be written",),
    ),
    "no network": (("show", "mobilenet"), ("NETWORK",)),
    "mistyped space": (("show", "mobilnet", "x"), ("'mobilnet'", "mean 'mobilenet'?")),
    "mistyped reference": (
        ("show", "mobilenet", "mobilenet_v22"),
        ("'mobilenet_v22'", "mean 'mobilenet_v2'?"),
    ),
    "genes of another space": (("show", "mobilenet", "1,2,3"), ("got 3 genes",)),
    "gene beyond its choices": (
        ("show", "nasbench201", "9,9,9,9,9,9"),
        ("edge1_0: got 9",),
    ),
    "genes that are no numbers": (("show", "mobilenet", "1,x"), ("got '1,x'", "integers")),
    "setting without a value": (("show", "mobilenet", "mobilenet_v2", "a"), ("got 'a'", "VALUE")),
    "unknown setting of a space": (
        ("show", "mobilenet", "mobilenet_v2", "width=[1]"),
        ("search_space.width: got", "mean 'widths'?"),
    ),
    "number for a shape": (
        ("show", "mobilenet", "mobilenet_v2", "input_shape=3"),
        ("input_shape: got 3", "a list"),
    ),
    "negative side": (
        ("show", "mobilenet", "mobilenet_v2", "input_shape=[3,-1,8]"),
        ("input_shape: got", "positive"),
    ),
    "value that is no YAML": (
        ("show", "mobilenet", "mobilenet_v2", "num_classes=["),
        ("num_classes=[", "YAML"),
    ),
    "unknown preset": (
        ("show", "mobilenet", "mobilenet_v2", "--preset=smal"),
        ("preset of mobilenet: got 'smal'", "mean 'small'?"),
    ),
    "drawing in a file": (
        ("show", "nasbench201", "0,0,0,0,0,0", "--out={files}/text/x.png"),
        ("/text/x.png: cannot be written",),
    ),
    "unknown module": (
        ("show", "mobilenet", "mobilenet_v2", "--import=no_such_module"),
        ("'no_such_module'", "PYTHONPATH"),
    ),
    "too many words": (("spaces", "x"), ("unrecognized arguments: x",)),
    "unknown download": (("fetch", "cifar"), ("'cifar'", "fashion_mnist")),
    "no action": (("device",), ("ACTION",)),
    "missing network": (("device", "measure", "{files}/no.onnx"), ("no.onnx", "cannot be read")),
    "text as a network": (("device", "measure", "{files}/text"), ("/text", "no ONNX file")),
    "folder as a network": (("device", "measure", "{files}/empty"), ("/empty", "cannot be read")),
    "empty network": (("device", "measure", "{files}/nothing"), ("/nothing", "0 inputs")),
    "network without threads": (
        ("device", "measure", "{files}/text", "threads=0"),
        ("device.threads: got 0",),
    ),
    "mistyped runtime": (
        ("device", "measure", "{files}/text", "runtime=openvin"),
        ("device.runtime: got 'openvin'", "mean 'openvino'?"),
    ),
    "mistyped device": (
        ("device", "measure", "{files}/text", "--device=cpi"),
        ("device: got 'cpi'", "mean 'cpu'?"),
    ),
}


def assert_refused(ended: Ended, *holds: str) -> None:
    assert ended.returncode == 2, ended
    assert ended.stderr.startswith("nas: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    for part in holds:
        assert part in ended.stderr
    assert "secret" not in ended.stderr
    assert ended.stdout == ""
    assert not list(Path.cwd().iterdir())
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of files that are none of what they are taken for."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "text").write_text("text")
    (folder / "nothing").touch()
    (folder / "empty").mkdir()
    np.savez(folder / "vectors.npz", x=np.zeros((4, 3)), y=np.zeros(4, int))
    np.savez(folder / "other.npz", a=np.zeros(3))
    np.savez(folder / "short.npz", x=np.zeros((9, 8, 8), np.uint8), y=np.arange(4))
    np.savez(folder / "nan.npz", x=np.full((9, 8, 8), np.nan), y=np.arange(9) % 3)
    (folder / "broken.py").write_text("def")
    experiments = folder / "configs" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "unplaced.yaml").write_text("search: {evaluations: 3}\n")
    (experiments / "items.yaml").write_text("# @package _global_\n- 1\n")
    (experiments / "mistyped.yaml").write_text("# @package _global_\nsearch: {evaluation: 3}\n")
    return folder


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_cannot_work_is_refused(
    case: str, here: Here, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    override, begins, holds = SETTINGS[case]
    monkeypatch.syspath_prepend(str(files))
    assert_refused(here("search", override.replace("{files}", str(files))), begins, holds)


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_cannot_work_is_refused(
    case: str, here: Here, files: Path, finished: Finished
) -> None:
    arguments, holds = COMMANDS[case]
    known = {"{files}": str(files), "{runs}": f"--runs={finished.folder.parent}"}
    before = contents(files) | contents(finished.folder.parent)
    for name, value in known.items():
        arguments = tuple(argument.replace(name, value) for argument in arguments)
    holds = tuple(text.replace("{files}", str(files)) for text in holds)
    assert_refused(here(*arguments), *holds)
    assert contents(files) | contents(finished.folder.parent) == before


def contents(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    "command",
    [
        ("search", "runs={closed}/runs"),
        ("search", "data=npz", "data.path={closed}/x.npz"),
        ("search", "data=image_folder", "data.path={closed}/x"),
        ("search", "--config-dir={closed}/configs"),
        ("calibrate", "out={closed}/out"),
        ("pareto", "small", "--runs={closed}"),
        ("export", "small", "--runs={closed}"),
        ("show", "nasbench201", "0,0,0,0,0,0", "--out={closed}/x.png"),
        ("device", "measure", "{closed}/model.onnx"),
    ],
)
def test_what_this_user_may_not_do_is_named(
    command: tuple[str, ...], here: Here, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    closed = tmp_path_factory.mktemp("closed")
    # Refused as well, after it has imported what the user that root becomes may not read.
    here(*(argument.replace("{closed}", f"{files}/text") for argument in command))
    with without_permission(closed):
        ended = here(*(argument.replace("{closed}", str(closed)) for argument in command))
    assert_refused(ended, str(closed), "ermission")


@contextlib.contextmanager
def without_permission(folder: Path) -> Iterator[None]:
    """Keep this process out of a folder, for the time of a `with` block."""
    folder.chmod(0)
    user = os.geteuid()
    with contextlib.chdir("/"):  # which every user may enter
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)
            folder.chmod(0o700)


def test_a_damaged_ledger_is_named(here: Here, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("ledger") / "ledger.db"
    file.write_text("no database, but long enough to be looked at" * 10)
    refused = here("search", f"ledger.url=sqlite:///{file}")
    assert_refused(refused, str(file), "is not a database")


def test_a_cluster_that_does_not_answer_is_named(here: Here, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        refused = here("search", f"ray.address={address}")
    assert_refused(refused, f"ray.address: got '{address}'", "ray start --head")


def test_a_study_has_one_writer(here: Here, tmp_path: Path) -> None:
    with StudyFolder(tmp_path / "runs" / "small").locked():
        refused = here("search", *SMALL)
    assert refused.returncode == 2
    assert refused.stderr.startswith("nas: runs/small: another process runs this study")
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_studies_are_an_empty_list(here: Here) -> None:
    assert here("studies", "--json").stdout == "[]\n"


def test_a_damaged_study_is_named(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "broken"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{")
    refused = here("pareto", "broken")
    assert refused.returncode == 2
    assert refused.stderr.startswith("nas: runs/broken/study.json: is not JSON")
    assert refused.stderr.count("\n") == 1


def test_a_full_disk_is_one_line(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(runs: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/small/weights.part")

    monkeypatch.setattr("nas.results.studies", write)
    ended = here("studies")
    assert ended.returncode == 2
    assert ended.stderr.startswith("nas: runs/small/weights.part: No space left on device; free")
    assert ended.stderr.count("\n") == 1
