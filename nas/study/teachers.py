"""The teacher that a recipe names: found and checked before anything starts, then prepared."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from torch import nn

from nas import results
from nas.core.errors import ConfigError, HwnasError, first_line, one_line
from nas.core.files import hashed, write_bytes_atomically, write_json_atomically
from nas.core.host import usable_cores
from nas.core.recipe import SELF, TeacherSettings
from nas.core.records import decoding, read_json
from nas.core.seeding import training_seed
from nas.core.trial import Candidate
from nas.export.record import FORMAT
from nas.network.shared import extreme
from nas.network.trained import FACTS, Preprocessing, TrainedNetwork
from nas.results import RECORD
from nas.study.checking import import_modules
from nas.study.export import verified
from nas.study.reporting import Reporter
from nas.study.settings import StudySettings
from nas.training.job import TrainingJob
from nas.training.teacher import (
    CachedTeacher,
    LastLinear,
    ModuleTeacher,
    OnnxTeacher,
    TeacherNetwork,
)

SPACE, LARGEST = "space", "largest"
"""`space:NAME` is a network of the search space; `space:largest` the one that computes most."""

CHECKED_IMAGES = 2
"""Training images that a teacher is tried on."""

PROBED_IMAGES = 16
"""Training images by which it is told whether kept outputs are still a teacher's."""


def found(job: TrainingJob, setting: str, runs: Path) -> TeacherNetwork | None:
    """Return the teacher that the recipe of a job names, after a try on some training images.

    One of the job's own space is not trained yet, unless the space is pretrained; see `taught`.

    Args:
        job: Without a teacher.
        setting: Where its recipe is set, for the error's text.
        runs: Folder of studies.

    Raises:
        ConfigError: There is no such teacher, or its input, outputs or features do not fit.
    """
    source = job.recipe.teacher.source
    if source in (None, SELF):
        return None
    wanted = _Wanted(f"{setting}.teacher.source", str(source), job, runs)
    teacher = wanted.teacher()
    wanted.check(teacher)
    return teacher


def timed(job: TrainingJob, teacher: TeacherNetwork | None) -> TrainingJob:
    """Return a job whose steps take as long as those of a job with a teacher that was `found`."""
    if not job.recipe.teacher.cached:
        return dataclasses.replace(job, teacher=teacher)
    # To look outputs up takes no time.
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, teacher=_NONE))


_NONE = TeacherSettings()


def taught(
    job: TrainingJob,
    setting: str,
    settings: StudySettings,
    folder: Path,
    reporter: Reporter,
) -> TrainingJob:
    """Return a job with the teacher that its recipe names, on which all work is done.

    A network of the space is trained on the workers, and where the recipe says so, the teacher sees
    every training image. Both are kept in the folder and not done again.

    Args:
        job: Without a teacher.
        setting: Where its recipe is set.
        settings: Of the study, which is connected to its workers.
        folder: To keep the results in; it is made where they are any.
        reporter: Told what is done.

    Raises:
        ConfigError: As of `found`, or the teacher is not the one of an earlier run.
        HwnasError: The teacher cannot be trained.
    """
    teacher = found(job, setting, Path(settings.runs).expanduser())
    if teacher is None:
        return job
    folder.mkdir(exist_ok=True)
    _check_same(teacher, setting, folder / f"{setting}.json")
    of_space = str(job.recipe.teacher.source).startswith(f"{SPACE}:")
    if of_space and not job.space.pretrained:
        teacher = _trained_teacher(job, teacher, setting, settings, folder, reporter)
    if job.recipe.teacher.cached:
        teacher = _cached(job, teacher, setting, folder, reporter)
    return dataclasses.replace(job, teacher=teacher)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What a setting names, for the job that is to learn from it."""

    setting: str
    source: str
    job: TrainingJob
    runs: Path

    def teacher(self) -> TeacherNetwork:
        if self.source.endswith(".onnx"):
            return self._of_onnx(Path(self.source).expanduser())
        before, _, after = self.source.rpartition(":")
        if not before or not after:
            raise self._error("FILE.onnx, STUDY:PICK, MODULE:FUNCTION, space:NAME or self")
        if before == SPACE:
            return self._of_space(after)
        if any((path / RECORD).is_file() for path in (Path(before), self.runs / before)):
            return self._of_study(before, after)
        if after in results.study.PICKS:
            raise self._error(f"a study of {self.runs}/ or its folder before the colon")
        return self._of_function(before, after)

    def check(self, teacher: TeacherNetwork) -> None:
        """Try a teacher on some training images."""
        job = self.job
        channels = len(job.preprocessing.mean)
        if isinstance(teacher, ModuleTeacher | OnnxTeacher):
            taken = len(teacher.preprocessing.mean)
            if taken != channels:
                raise self._error(f"a teacher of {channels} channels", f"it takes {taken}")
        positions = np.arange(min(CHECKED_IMAGES, len(job.train)))
        pixels = torch.from_numpy(job.train.pixels[positions])
        try:
            teach = teacher.start(torch.device("cpu"))
            outputs = teach(torch.from_numpy(positions), pixels).outputs
        except Exception as error:  # whatever code of others raises
            expected = f"a teacher that takes the training images, {tuple(pixels.shape[1:])}"
            raise self._error(expected, one_line(error)) from error
        with torch.device("meta"):  # which knows shapes, and computes nothing
            student = job.space.build(job.space.canonical([0] * len(job.space.genes)))
        shape = (len(pixels), *student.placed_blocks[-1].output_shape)
        got = tuple(outputs.shape)
        if got != shape:
            expected = f"a teacher with outputs {shape} for {len(pixels)} images"
            raise self._error(expected, f"it gives {got}; the task has {job.train.task.summary}")
        if not torch.isfinite(outputs).all():
            raise self._error("a teacher with finite outputs", "some of its outputs are not")
        if job.recipe.teacher.features:
            self._check_features(teacher, student)

    def _check_features(self, teacher: TeacherNetwork, student: nn.Module) -> None:
        whose = "the teacher"
        try:
            teacher.start(torch.device("cpu"), features=True)
            whose = "a network of the space"
            LastLinear(student, torch.zeros(1, *self.job.space.input_shape, device="meta"))
        except ValueError as error:
            setting = f"{self.setting.removesuffix('source')}features"
            fix = f"{whose} has none to compare: {error}"
            raise ConfigError(setting, self.job.recipe.teacher.features, "0", fix) from error

    def _error(self, expected: str, fix: str = "") -> ConfigError:
        return ConfigError(self.setting, self.source, expected, fix)

    def _check_outputs(self, names: tuple[str, ...]) -> None:
        """Compare what a network's outputs stand for with the task's; equal numbers say little."""
        own = self.job.train.task.output_names
        if names != own:
            listed = ", ".join(own[:10])
            fix = f"its outputs are {', '.join(map(str, names[:10]))}"
            raise self._error(f"a teacher of the same outputs in the same order: {listed}", fix)

    def _of_onnx(self, path: Path) -> OnnxTeacher:
        """Return a teacher with the preprocessing that an export has written beside the file."""
        try:
            model = onnx.load(path)  # with what lies in files beside it
        except OSError as error:
            raise self._error("an ONNX file that can be read", str(error.strerror)) from error
        except (DecodeError, onnx.checker.ValidationError) as error:
            raise self._error("an ONNX file", first_line(error)) from error
        initial = {tensor.name for tensor in model.graph.initializer}
        inputs = [each for each in model.graph.input if each.name not in initial]
        dims = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if inputs else []
        if len(inputs) != 1 or len(dims) != 4 or dims[0] > 1:
            got = ", ".join(f"{each.name} of {len(dims)} dimensions" for each in inputs) or "none"
            if len(dims) == 4:
                got = f"{len(inputs)} input(s), a batch of {dims[0]}"
            expected = "an ONNX file with one input (n, C, H, W), n being free or 1"
            raise self._error(expected, f"it has {got}")
        preprocessing = self._recorded(path.parent / "architecture.json")
        height, width = preprocessing.image_size
        content = model.SerializeToString()
        if dims[1] not in (0, len(preprocessing.mean)):
            channels = len(preprocessing.mean)
            raise self._error(f"a teacher of {channels} channels", f"it takes {dims[1]}")
        return OnnxTeacher(
            provenance={"source": self.source, "sha256": hashlib.sha256(content).hexdigest()},
            model=np.frombuffer(content, np.uint8),
            preprocessing=dataclasses.replace(
                preprocessing, image_size=(dims[2] or height, dims[3] or width)
            ),
            one_by_one=dims[0] == 1,
        )

    def _recorded(self, file: Path) -> Preprocessing:
        """Return the preprocessing of an export's record, or where there is none, the job's."""
        if not file.is_file():
            return self.job.preprocessing
        record = read_json(file)
        if not str(record.get("format")).startswith(FORMAT.rpartition("-")[0]):
            return self.job.preprocessing  # not of an export
        if record["format"] != FORMAT:
            fix = f"export the network again: {file} is in the form {record['format']}"
            raise self._error(f"an export of this release, {FORMAT}", fix)
        with decoding(file):
            names = tuple(record["outputs"])
            values = {name: record["preprocessing"][name] for name in ("mean", "std", "scale")}
            preprocessing = Preprocessing(**values, image_size=tuple(record["input_shape"][1:]))
        self._check_outputs(names)
        return preprocessing

    def _of_study(self, name: str, pick: str) -> ModuleTeacher:
        try:
            study = results.open_study(name, self.runs)
            _, network = verified(study, pick)
        except HwnasError as error:
            raise self._error("a verified network of a study", str(error)) from error
        self._check_outputs(network.outputs)
        return _of_network(network, self.source, study=study.name)

    def _of_function(self, module: str, function: str) -> ModuleTeacher:
        import_modules([module], self.setting)
        make = getattr(sys.modules[module], function, None)
        if not callable(make):
            raise self._error(f"a function of {module}", f"it has no function {function!r}")
        expected = "a function without arguments that returns a torch.nn.Module or a callable"
        try:
            made = make()
        except Exception as error:  # whatever code of others raises
            raise self._error(expected, f"it failed: {one_line(error)}") from error
        if not callable(made):
            raise self._error(expected, f"it returns {type(made).__name__}")
        if not self.job.recipe.teacher.cached:
            self._check_sendable(made)
        facts = {"sha256": _digest(made)} if isinstance(made, nn.Module) else {}
        return ModuleTeacher(
            provenance={"source": self.source, **facts},
            module=made,
            preprocessing=self.job.preprocessing,
        )

    def _check_sendable(self, made: Callable[..., Any]) -> None:
        from nas.cluster.ray_evaluator import check_sendable

        try:
            check_sendable(made)
        except Exception as error:  # whatever code of others raises
            fix = f"{one_line(error)}; return a torch.nn.Module, or set its cached to true"
            raise self._error("a teacher that can be sent to workers", fix) from error

    def _of_space(self, name: str) -> ModuleTeacher:
        space = self.job.space
        references = space.references()
        if name != LARGEST and name not in references:
            known = ", ".join([LARGEST, *references])
            unchanged = "let every setting of search_space have the choice that changes nothing"
            fix = unchanged if space.pretrained else ""
            raise self._error(f"{SPACE}: and one of {known}", fix)
        genotype = (
            extreme(space, largest=True) if name == LARGEST else space.canonical(references[name])
        )
        architecture = space.architecture(genotype)
        with torch.random.fork_rng(devices=[]):
            module = space.build(genotype)
        return ModuleTeacher(
            provenance={
                "source": self.source,
                "arch_id": architecture.arch_id,
                "genotype": list(architecture.genotype),
            },
            module=module,
            preprocessing=self.job.preprocessing,
        )


def _of_network(network: TrainedNetwork, source: str, **facts: Any) -> ModuleTeacher:
    arch_id = network.provenance["arch_id"]
    digest = _digest(network.module)
    return ModuleTeacher(
        provenance={"source": source, **facts, "arch_id": arch_id, "sha256": digest},
        module=network.module,
        preprocessing=network.preprocessing,
    )


def _digest(module: nn.Module) -> str:
    """Return the digest of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_same(teacher: TeacherNetwork, setting: str, file: Path) -> None:
    """Write down which teacher this is; refuse another one behind the name of an earlier run's."""
    facts = dict(teacher.provenance)
    before = read_json(file, {"source": str}) if file.is_file() else facts
    if before["source"] == facts["source"] and before != facts:
        expected = "the teacher that an earlier run of this study found there"
        fix = "restore it, or give the new study another name"
        raise ConfigError(f"{setting}.teacher.source", facts["source"], expected, fix)
    write_json_atomically(file, facts)


def _trained_teacher(
    job: TrainingJob,
    teacher: TeacherNetwork,
    setting: str,
    settings: StudySettings,
    folder: Path,
    reporter: Reporter,
) -> ModuleTeacher:
    """Return a network of the space after its training by the recipe, without a teacher."""
    source, arch_id = teacher.provenance["source"], teacher.provenance["arch_id"]
    genotype = tuple(teacher.provenance["genotype"])
    recipe = dataclasses.replace(job.recipe, teacher=_NONE)
    alone = dataclasses.replace(job, recipe=recipe, return_weights=True)
    key = hashed([arch_id, recipe, settings.seed, job.train.fingerprint()["sha256"]], 12)
    own = folder / f"{arch_id}-{key}"
    if not (own / FACTS).is_file():
        reporter.stage(f"training the teacher {source} ({arch_id}) by {setting}")
        seed = training_seed(settings.seed, arch_id)
        candidate = Candidate(number=0, genotype=genotype, arch_id=arch_id, seed=seed)
        with closing(settings.evaluation.start(alone, limited=False)) as evaluator:
            evaluator.submit([candidate])
            [evaluation] = evaluator.completed()
        if evaluation.outcome is None:
            line = f"{setting}.teacher.source: the teacher {source} could not be trained"
            raise HwnasError(f"{line} ({evaluation.failure}); name another one")
        own.mkdir(exist_ok=True)
        network = alone.trained_network(candidate, evaluation.outcome)
        network.save(own)
        reporter.stage(f"  trained in {evaluation.seconds:.0f} s")
    return _of_network(TrainedNetwork.load(own, job.space.build(genotype)), source)


def _cached(
    job: TrainingJob, teacher: TeacherNetwork, setting: str, folder: Path, reporter: Reporter
) -> CachedTeacher:
    """Return what a teacher says of every training image.

    What was kept is used where the teacher says the same of the first images: its code may be
    another one by now.
    """
    key = hashed([teacher.provenance, job.train.fingerprint()["sha256"]], 16)
    file, threads = folder / f"{key}.npy", usable_cores()
    if file.is_file():
        with decoding(file, f"delete {file} and run the same command again"):
            outputs = np.load(file, allow_pickle=False)
            now = CachedTeacher.of(
                teacher, job.train.take(np.arange(len(job.train))[:PROBED_IMAGES]), threads
            )
            if len(outputs) == len(job.train) and np.allclose(
                outputs[:PROBED_IMAGES], now.outputs, rtol=1e-3, atol=1e-3
            ):
                return CachedTeacher(provenance=teacher.provenance, outputs=outputs)
    reporter.stage(f"running the teacher of {setting} on {len(job.train)} training images")
    cached = CachedTeacher.of(teacher, job.train, threads)
    finite = np.isfinite(cached.outputs).reshape(len(cached.outputs), -1).all(1)
    if wrong := int((~finite).sum()):
        fix = f"those of {wrong} of {len(job.train)} training images are not"
        expected = "a teacher with finite outputs"
        raise ConfigError(f"{setting}.teacher.source", job.recipe.teacher.source, expected, fix)
    content = io.BytesIO()
    np.save(content, cached.outputs, allow_pickle=False)
    write_bytes_atomically(file, content.getvalue())
    return cached
