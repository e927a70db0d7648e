"""How a network is trained.

A recipe's own defaults are the preset `fast` for convolutional networks. `Recipe.of` returns the
other presets, each of which is what it differs in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from nas.core.errors import ConfigError, UnknownNameError, counted

FAMILIES = ("convolution", "transformer")
"""Kinds of networks with presets of their own; a search space says which its networks are."""

OPTIMIZERS = ("sgd", "adamw", "muon")
SCHEDULES = ("one_cycle", "cosine", "constant")
SCALINGS = ("linear", "sqrt", "none")
POLICIES = ("none", "trivial", "rand")
BALANCES = ("none", "weights", "sampling")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

SELF = "self"
"""Teacher that is the average of a network's own weights."""

REFERENCE_BATCH = 64
"""Examples a step for which a learning rate is given."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer.

    Attributes:
        name: `sgd` with Nesterov momentum, `adamw` (Loshchilov and Hutter, ICLR 2019), or `muon`
            (Jordan et al., 2024) for the matrices between the first and the last layer, with
            `adamw` for all else.
        learning_rate: Its peak, for 64 examples a step.
        scaling: How it grows with the batch size: `linear` (Goyal et al., 2017), `sqrt`
            (Malladi et al., NeurIPS 2022) or `none`.
        momentum: Of `sgd` and `muon`; of `adamw` the first beta.
        weight_decay: Of convolution and linear weights; biases, normalisations, tokens and
            positions have none.
        layer_decay: Factor of the learning rate from one block to the one before it (Clark et al.,
            ICLR 2020); 1 for equal rates.
        clip_norm: Largest norm of all gradients together; `None` for no limit.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    scaling: str = "linear"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    layer_decay: float = 1.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _check_name("optimizer.name", self.name, OPTIMIZERS)
        _check_name("optimizer.scaling", self.scaling, SCALINGS)
        _check_above_0(self, "optimizer.", "learning_rate", "clip_norm")
        _check_0_or_more(self, "optimizer.", "weight_decay")
        _check_below_1(self, "optimizer.", "momentum")
        _check_share(self, "optimizer.", "layer_decay")

    def rate(self, batch_size: int) -> float:
        """Return the peak of the learning rate for a batch size."""
        power = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}[self.scaling]
        return self.learning_rate * math.pow(batch_size / REFERENCE_BATCH, power)


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The learning rate over the training, as a share of its peak.

    Attributes:
        name: `one_cycle` rises and falls by half a cosine (Smith and Topin, 2019), `cosine` rises
            linearly and falls by half a cosine (Loshchilov and Hutter, ICLR 2017), `constant`
            rises linearly, stays, and falls linearly at the end.
        warmup: Share of the training in which it rises.
        cooldown: Share of the training in which `constant` falls.
    """

    name: str = "one_cycle"
    warmup: float = 0.3
    cooldown: float = 0.4

    def __post_init__(self) -> None:
        _check_name("schedule.name", self.name, SCHEDULES)
        _check_below_1(self, "schedule.", "warmup", "cooldown")
        if self.name == "constant" and self.warmup + self.cooldown > 1:
            got = self.warmup + self.cooldown
            raise ConfigError("recipe.schedule.warmup + cooldown", got, "1 at most")

    def share(self, progress: float) -> float:
        """Return the learning rate, as a share of its peak, after a share of the training."""
        rising = min(progress / self.warmup, 1.0) if self.warmup else 1.0
        falling = max(progress - self.warmup, 0.0) / (1 - self.warmup)
        if self.name == "constant":
            left = (1 - progress) / self.cooldown if self.cooldown else 1.0
            return min(rising, left, 1.0)
        if rising == 1.0:
            return (1 + math.cos(math.pi * falling)) / 2
        if self.name == "one_cycle":
            return 0.04 + 0.96 * (1 - math.cos(math.pi * rising)) / 2
        return rising


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Random changes of the training images.

    Attributes:
        flip: Whether half of the images are mirrored left to right. In a study it is where the data
            set says that a mirror image is of the same class, unless it is set.
        shift: Largest shift in both directions, as a share of the images' sides, whose edges are
            repeated: 0.125, as in `full`, is 4 of 32 pixels. It helps long trainings only.
        crop: Smallest share of the area that a crop of random size and place keeps, which is then
            resized to the whole (Szegedy et al., CVPR 2015); 1 for no such crop.
        policy: `trivial` changes every image once, in a random way and by a random strength
            (TrivialAugment, Mueller and Hutter, ICCV 2021); `rand` twice, by strength 9 of 30
            (RandAugment, Cubuk et al., 2020); `none` not at all.
        colour: Largest change of brightness, contrast and, of colour images, saturation, as a
            share of them.
        erase: Probability that a random rectangle of an image is filled with noise (random
            erasing, Zhong et al., AAAI 2020).
        mixup: Alpha of mixup (Zhang et al., ICLR 2018); 0 for none.
        cutmix: Alpha of CutMix (Yun et al., ICCV 2019); 0 for none. A batch has one of the two.
        mixed: Share of the batches that are mixed, where `mixup` or `cutmix` is above 0.
    """

    flip: bool = False
    shift: float = 0.0
    crop: float = 1.0
    policy: str = "none"
    colour: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixed: float = 1.0

    def __post_init__(self) -> None:
        _check_name("augmentation.policy", self.policy, POLICIES)
        _check_0_or_more(self, "augmentation.", "mixup", "cutmix")
        _check_below_1(self, "augmentation.", "shift")
        _check_share(self, "augmentation.", "crop")
        for name in ("colour", "erase", "mixed"):
            if not 0 <= getattr(self, name) <= 1:
                setting = f"recipe.augmentation.{name}"
                raise ConfigError(setting, getattr(self, name), "from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class RegularisationSettings:
    """Regularisation, against overfitting.

    Attributes:
        label_smoothing: Of the cross entropy (Szegedy et al., CVPR 2016).
        drop_path: Probability with which the last residual branch is dropped; those before it less,
            in proportion to their depth (stochastic depth, Huang et al., ECCV 2016).
        dropout: Of what the last linear layer reads.
    """

    label_smoothing: float = 0.0
    drop_path: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_below_1(self, "regularisation.", "label_smoothing", "drop_path", "dropout")


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """A trained network that the networks learn from (Hinton et al., 2015).

    Attributes:
        source: An ONNX file, `FILE.onnx`; `STUDY:PICK`, a verified network of a study, its pick a
            name or an `arch_id`; `MODULE:FUNCTION`, whose function returns a `torch.nn.Module` or a
            callable from images to outputs; `space:NAME`, a published network of the search space,
            or `space:largest`, either trained first by the recipe without a teacher; `self` for the
            average of the network's own weights (Tarvainen and Valpola, NeurIPS 2017), which the
            recipe's `ema` makes. `None` for no teacher.
        weight: Of the teacher's outputs in the loss; the targets have the rest. With `self` it
            grows over the first `ema` of the training.
        temperature: By which the logits of a classification are divided, from 0.01 to 1000.
        features: Weight of the mean squared difference between what the last linear layers of both
            networks read, the network's through a linear map that is learned with it (FitNets,
            Romero et al., ICLR 2015); 0 for none.
        cached: Whether the teacher sees every image once, as it is. Else it sees what the network
            sees, which is more accurate (Beyer et al., CVPR 2022) and takes its time in every step.
    """

    source: str | None = None
    weight: float = 0.5
    temperature: float = 4.0
    features: float = 0.0
    cached: bool = False

    def __post_init__(self) -> None:
        if self.source is None:
            for spec in fields(self):
                if (value := getattr(self, spec.name)) != spec.default:
                    expected = f"{spec.default} without a teacher"
                    fix = "set recipe.teacher.source"
                    raise ConfigError(f"recipe.teacher.{spec.name}", value, expected, fix)
        _check_share(self, "teacher.", "weight")
        if not 0.01 <= self.temperature <= 1000:  # the squares of others are no float32
            expected = "from 0.01 to 1000"
            raise ConfigError("recipe.teacher.temperature", self.temperature, expected)
        _check_0_or_more(self, "teacher.", "features")
        if self.features and (self.cached or self.source == SELF):
            expected = "0 where the teacher is cached or self"
            raise ConfigError("recipe.teacher.features", self.features, expected)
        if self.cached and self.source == SELF:
            expected = "false where the teacher is self, which changes in every step"
            raise ConfigError("recipe.teacher.cached", True, expected)


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """How the arithmetic of a training is done.

    Attributes:
        precision: `fp32`; `bf16` or `fp16`, in which matrices and convolutions are multiplied
            while weights stay in fp32; `auto` is one of these on a GPU and `fp32` elsewhere. In
            `bf16`, a processor does not repeat a training to the last bit.
        compile: Whether `torch.compile` makes one program of the network first.
        accumulate: Parts of a batch that are computed one after the other, to save memory.
        recompute: Whether blocks are computed again in the backward pass instead of keeping their
            activations, to save memory.
    """

    precision: str = "auto"
    compile: bool = False
    accumulate: int = 1
    recompute: bool = False

    def __post_init__(self) -> None:
        _check_name("compute.precision", self.precision, PRECISIONS)
        if self.accumulate < 1:
            raise ConfigError("recipe.compute.accumulate", self.accumulate, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        preset: Whose values hold where none are given: `fast` tells candidates apart in a search,
            `full` is for what is handed over.
        epochs: Passes over the training examples; 0 leaves weights as they are, where networks
            begin with trained ones.
        train_samples: Examples trained on, the first of a seeded permutation; `None` for all.
        batch_size: Examples a step.
        optimizer: The optimizer.
        schedule: The learning rate over the training.
        augmentation: Random changes of the training images.
        regularisation: Against overfitting.
        init: Folder of pretrained weights that networks begin with: of Hugging Face transformers
            (MobileNetV2, ViT, DeiT), an export, or a verified network; `None` for none.
        teacher: A trained network that is learned from.
        compute: How the arithmetic is done.
        ema: Share of the training over which weights are averaged, exponentially; the averages are
            handed over. 0 for none.
        balance: Whether rare classes count as much as frequent ones: `weights` weights the losses,
            `sampling` draws every class equally often, `none` neither.
        patience: Epochs without a better validation error after which a training ends; its best
            weights are handed over. `None` for none.
        auxiliary_weight: Of the losses of a network's auxiliary classifiers, where its space has
            any; without a weight they are not built. DARTS has 0.4.
        initial_resolution: Share of the images' sides that training begins with. They grow with
            the steps (progressive learning, Tan and Le, ICML 2021), so that partial trainings have
            smaller images; 1 keeps them as they are.
        full_resolution_from: Share of the training from which images have their own size.
        sparse_from: Share of the training after which the layers of `sparsities` have all of their
            zero weights. Until then the number of zeros grows in ten steps, by the cubic schedule
            of Zhu and Gupta (To prune, or not to prune, 2017). 0 has all of them from the start.

    Example:
        >>> recipe = Recipe.of("full", "transformer", epochs=50, optimizer={"weight_decay": 0.1})
        >>> recipe.optimizer.name
        'muon'
    """

    preset: str = "fast"
    init: str | None = None
    epochs: int = 10
    train_samples: int | None = None
    batch_size: int = 64
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    regularisation: RegularisationSettings = field(default_factory=RegularisationSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    ema: float = 0.0
    balance: str = "none"
    patience: int | None = None
    auxiliary_weight: float = 0.0
    initial_resolution: float = 1.0
    full_resolution_from: float = 0.5
    sparse_from: float = 0.0

    def __post_init__(self) -> None:
        _check_name("preset", self.preset, PRESETS)
        _check_name("balance", self.balance, BALANCES)
        for name in ("epochs", "batch_size", "train_samples", "patience"):
            value, least = getattr(self, name), 0 if name == "epochs" else 1
            if value is not None and value < least:
                raise ConfigError(f"recipe.{name}", value, f"{least} or more")
        _check_0_or_more(self, "", "auxiliary_weight")
        _check_below_1(self, "", "ema", "sparse_from")
        _check_share(self, "", "initial_resolution", "full_resolution_from")
        self._check_teacher()

    def _check_teacher(self) -> None:
        teacher, augmentation = self.teacher, self.augmentation
        if teacher.source == SELF and self.ema == 0:
            expected = "another teacher, or recipe.ema above 0, which averages the weights"
            raise ConfigError("recipe.teacher.source", SELF, expected)
        if teacher.cached and augmentation.mixed and (augmentation.mixup or augmentation.cutmix):
            expected = "false where mixup or cutmix mixes images, which the teacher has not seen"
            raise ConfigError("recipe.teacher.cached", True, expected)
        if teacher.features and self.compute.compile:
            expected = "false where recipe.teacher.features is above 0"
            raise ConfigError("recipe.compute.compile", True, expected)

    @classmethod
    def of(cls, preset: str = "fast", family: str = "convolution", **changes: Any) -> Recipe:
        """Return a preset with changes.

        Args:
            preset: Name of the preset.
            family: Of the networks, one of `FAMILIES`.
            **changes: Fields; of a nested part, those of its fields that change, by name.

        Raises:
            ConfigError: A name or a value is not one that there is.
        """
        values = preset_values(preset, family, changes)
        parts = {name: part(**values.pop(name)) for name, part in _PARTS.items() if name in values}
        return cls(**values, **parts)

    @property
    def summary(self) -> str:
        """The recipe in a few words for people, such as `10 epochs of sgd, images are shifted`."""
        change, used = self.augmentation, []
        for done, amount in (
            ("mirrored", change.flip),
            ("shifted", change.shift),
            ("cropped", change.crop < 1),
            (f"changed by the policy {change.policy}", change.policy != "none"),
            ("changed in colour", change.colour),
            ("erased in part", change.erase),
            ("mixed", change.mixup or change.cutmix),
        ):
            used += [done] if amount else []
        images = f"images are {', '.join(used)}" if used else "images are as they are"
        teacher = "" if self.teacher.source is None else f", teacher {self.teacher.source}"
        return f"{counted(self.epochs, 'epoch')} of {self.optimizer.name}, {images}{teacher}"

    def resolution(self, progress: float) -> float:
        """Return the share of the images' sides that is seen after a share of the training."""
        grown = min(progress / self.full_resolution_from, 1.0)
        return self.initial_resolution + (1.0 - self.initial_resolution) * grown

    def sparsity(self, progress: float) -> float:
        """Return the share of a compact layer's zero weights that are so at a point of training."""
        if progress >= self.sparse_from:
            return 1.0
        return 1.0 - (1.0 - math.floor(10 * progress / self.sparse_from) / 10) ** 3


_PARTS: dict[str, Any] = {
    "optimizer": OptimizerSettings,
    "schedule": ScheduleSettings,
    "augmentation": AugmentationSettings,
    "regularisation": RegularisationSettings,
    "teacher": TeacherSettings,
    "compute": ComputeSettings,
}


OPTIMIZER_VALUES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"learning_rate": 2e-3, "scaling": "sqrt", "weight_decay": 0.05},
    "muon": {"learning_rate": 3e-3, "scaling": "sqrt", "momentum": 0.95, "weight_decay": 0.05},
}
"""What an optimizer has in place of the defaults, which are those of `sgd`."""

_FULL = {
    "epochs": 30,
    "ema": 0.05,
    "regularisation": {"label_smoothing": 0.1},
    "augmentation": {"shift": 0.125},
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "fast": {
        "convolution": {"optimizer": {"name": "sgd"}},
        "transformer": {"optimizer": {"name": "muon"}},
    },
    "full": {
        "convolution": {**_FULL, "optimizer": {"name": "muon", "learning_rate": 5e-3}},
        "transformer": {
            **_FULL,
            "augmentation": {"shift": 0.07},
            "optimizer": {"name": "muon"},
        },
    },
}
"""Presets by name and family: what they change in the defaults."""


def preset_values(preset: str, family: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values that a preset with changes has in place of the defaults.

    Another optimizer than the preset's has its own learning rate, momentum and weight decay.
    """
    _check_name("preset", preset, PRESETS)
    _check_name("family", family, FAMILIES)
    values: dict[str, Any] = {"preset": preset, **PRESETS[preset][family]}
    own = values["optimizer"]
    name = changes.get("optimizer", {}).get("name", own["name"])
    _check_name("optimizer.name", name, OPTIMIZERS)
    values["optimizer"] = {
        **OPTIMIZER_VALUES[name],
        **(own if name == own["name"] else {"name": name}),
    }
    for name, value in changes.items():
        if isinstance(value, Mapping) and name in _PARTS:
            value = {**values.get(name, {}), **value}
        values[name] = value
    return values


def _check_name(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise UnknownNameError(f"recipe.{name}", value, known)


def _check_above_0(part: Any, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"recipe.{prefix}{name}", value, "a finite number above 0")


def _check_0_or_more(part: Any, prefix: str, *names: str) -> None:
    for name in names:
        if not 0 <= (value := getattr(part, name)) < math.inf:
            raise ConfigError(f"recipe.{prefix}{name}", value, "0 or more")


def _check_below_1(part: Any, prefix: str, *names: str) -> None:
    for name in names:
        if not 0 <= (value := getattr(part, name)) < 1:
            raise ConfigError(f"recipe.{prefix}{name}", value, "at least 0 and below 1")


def _check_share(part: Any, prefix: str, *names: str) -> None:
    for name in names:
        if not 0 < (value := getattr(part, name)) <= 1:
            raise ConfigError(f"recipe.{prefix}{name}", value, "above 0, and 1 at most")
