"""Latencies of parts, learned from latencies of whole networks.

A network's latency is the sum over its parts. A part takes a call's overhead and a time in
proportion to its arithmetic, its memory traffic and its weights (a roofline; Williams et al.,
Communications of the ACM, 2009), with rates of its kind, which are not negative. By how much a
part deviates from that is a Gaussian process over the logarithms of its sizes, so that parts that
were never measured learn from similar ones. Only sums are observed; a sum over a Gaussian process
is Gaussian, so the parts follow in closed form (Rasmussen and Williams, Gaussian Processes for
Machine Learning, 2006, chapter 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from latency_predictors.calibration.fusion import Kernel
from nas.core.prediction import FloatArray

VECTOR_WIDTHS = (1, 8, 16)
"""To multiples of which a runtime may pad the channels of a convolution (ONNX Runtime's blocked
layouts: 8 channels with AVX, 16 with AVX-512); the one that explains the samples best is taken."""

SHRINKAGE = 0.03
"""Pull of a kind's own rates towards none, beside which rates that all kinds share are free."""

FREEDOM = 0.05
"""The same of the shared rates."""

FOLDS = 10
ITERATIONS = 40

PRIOR = {"amplitude": 0.2, "epilogue": 1.0, "kind": 0.05, "noise": 0.004}
"""Medians of the hyperparameters' log-normal priors: relative deviation of a part, how little
parts of other epilogues have in common, relative deviation of a kind, noise of a measurement."""

PRIOR_LENGTH = 1.0
PRIOR_WIDTH = 0.8
FLOOR = 0.05
"""Deviations are relative to a part's roofline, but at least to this share of the median one's."""


@dataclass(frozen=True)
class PartLatencies:
    """What is known of every part.

    Attributes:
        mean_ms: Shape `(parts,)`.
        std_ms: How unsure that is, shape `(parts,)`, with the share of a measurement's noise.
    """

    mean_ms: FloatArray
    std_ms: FloatArray

    @property
    def columns(self) -> FloatArray:
        """Both as columns, shape `(parts, 2)`."""
        return np.stack([self.mean_ms, self.std_ms], 1)


@dataclass
class PartProcess:
    """Learns the latencies of parts.

    Attributes:
        parts: All parts of the space.
        shared: Whether parts learn from similar ones; else each is a number of its own.
    """

    parts: Sequence[Kernel]
    shared: bool = True
    _hyperparameters: dict[str, torch.Tensor] = field(default_factory=dict)

    def fit(self, counts: FloatArray, latency_ms: FloatArray) -> PartLatencies:
        """Fit to measured networks.

        Args:
            counts: How often each part occurs in each network, shape `(n, parts)`.
            latency_ms: Measured, shape `(n,)`.
        """
        self._width = self._vector_width(counts, latency_ms)
        self._places = _Similarity(self.parts, self._width, shared=self.shared)
        self._log = self._most_probable(counts, latency_ms)
        return self._condition(counts, latency_ms)

    @property
    def hyperparameters(self) -> FloatArray:
        """What `fit` has found beside latencies: the vector width, and the others' logarithms."""
        return np.array([self._width, *self._log.tolist()])

    def condition(
        self, hyperparameters: FloatArray, counts: FloatArray, latency_ms: FloatArray
    ) -> PartLatencies:
        """Fit to measured networks as `fit` does, under hyperparameters that it found before."""
        self._width = int(hyperparameters[0])
        self._places = _Similarity(self.parts, self._width, shared=self.shared)
        self._log = torch.as_tensor(hyperparameters[1:])
        return self._condition(counts, latency_ms)

    def cross_validate(self, counts: FloatArray, latency_ms: FloatArray) -> FloatArray:
        """Return mean and deviation of each sample, predicted without it, shape `(n, 2)`.

        Samples are left out in `FOLDS` portions; rates and deviations are learned anew each time,
        the hyperparameters are those of the last `fit`.
        """
        n = len(latency_ms)
        predicted = np.empty((n, 2))
        order = np.random.default_rng(0).permutation(n)
        for fold in np.array_split(order, min(FOLDS, n)):
            rest = np.setdiff1d(order, fold)
            known = self._condition(counts[rest], latency_ms[rest])
            predicted[fold] = counts[fold] @ known.columns
        return predicted

    def _vector_width(self, counts: FloatArray, latency_ms: FloatArray) -> int:
        errors = {}
        for width in VECTOR_WIDTHS:
            features = roofline_features(self.parts, width)
            order = np.random.default_rng(0).permutation(len(latency_ms))
            squares = 0.0
            for fold in np.array_split(order, min(FOLDS, len(order))):
                rest = np.setdiff1d(order, fold)
                fitted = counts[fold] @ roofline(features, counts[rest], latency_ms[rest])
                squares += float(((fitted / latency_ms[fold] - 1) ** 2).sum())
            errors[width] = squares
        return min(errors, key=errors.__getitem__)

    def _most_probable(self, counts: FloatArray, latency_ms: FloatArray) -> torch.Tensor:
        """Return the logarithms of the hyperparameters of greatest posterior probability."""
        from scipy.optimize import minimize

        state = _State.of(self, counts, latency_ms)
        prior = torch.tensor(
            [np.log(v) for v in PRIOR.values()] + [np.log(PRIOR_LENGTH)] * self._places.dimensions,
            dtype=torch.float64,
        )

        def negative_log_posterior(values: FloatArray) -> tuple[float, FloatArray]:
            log = torch.tensor(values, dtype=torch.float64, requires_grad=True)
            factor = torch.linalg.cholesky(state.covariance(log))
            white = torch.linalg.solve_triangular(factor, state.residual[:, None], upper=False)
            loss = 0.5 * (white**2).sum() + factor.diagonal().log().sum()
            loss = loss + 0.5 * (((log - prior) / PRIOR_WIDTH) ** 2).sum()
            (gradient,) = torch.autograd.grad(loss, log)
            return float(loss.detach()), gradient.numpy()

        found = minimize(
            negative_log_posterior,
            prior.numpy(),
            jac=True,
            method="L-BFGS-B",
            bounds=[(value - 5, value + 5) for value in prior.tolist()],
            options={"maxiter": ITERATIONS},
        )
        return torch.tensor(found.x, dtype=torch.float64)

    def _condition(self, counts: FloatArray, latency_ms: FloatArray) -> PartLatencies:
        state = _State.of(self, counts, latency_ms)
        log = self._log
        factor = torch.linalg.cholesky(state.covariance(log))
        everything = self._places.covariance(log, slice(None), state.used)
        cross = everything @ state.scaled.T
        weights = torch.cholesky_solve(state.residual[:, None], factor)[:, 0]
        scale = torch.as_tensor(state.scale)
        deviation = cross @ weights
        explained = torch.linalg.solve_triangular(factor, cross.T, upper=False)
        variance = self._places.variance(log) - (explained**2).sum(0)
        mean = torch.as_tensor(state.roofline) + scale * deviation
        noise = float(log[list(PRIOR).index("noise")].exp())
        mean_ms = mean.numpy()  # of a part alone it may be below 0: only sums were observed
        std_ms = (scale * variance.clamp(min=0).sqrt()).numpy() + noise * np.abs(mean_ms)
        return PartLatencies(mean_ms, std_ms)


@dataclass(frozen=True)
class _State:
    """Samples in the form that the process needs."""

    process: PartProcess
    roofline: FloatArray
    scale: FloatArray
    used: torch.Tensor
    scaled: torch.Tensor
    residual: torch.Tensor
    latency_ms: torch.Tensor

    @classmethod
    def of(cls, process: PartProcess, counts: FloatArray, latency_ms: FloatArray) -> _State:
        features = roofline_features(process.parts, process._width)
        prior = roofline(features, counts, latency_ms)
        positive = prior[prior > 0]
        scale = np.maximum(prior, FLOOR * float(np.median(positive)) if len(positive) else 1e-6)
        used = np.flatnonzero(counts.any(axis=0))
        return cls(
            process,
            prior,
            scale,
            torch.as_tensor(used),
            torch.as_tensor(counts[:, used] * scale[used]),
            torch.as_tensor(latency_ms - counts @ prior),
            torch.as_tensor(latency_ms),
        )

    def covariance(self, log: torch.Tensor) -> torch.Tensor:
        """Return the covariance of the samples, shape `(n, n)`."""
        parts = self.process._places.covariance(log, self.used, self.used)
        noise = (log[list(PRIOR).index("noise")].exp() * self.latency_ms) ** 2
        return self.scaled @ parts @ self.scaled.T + torch.diag(noise)


class _Similarity:
    """How much the deviations of two parts have in common."""

    def __init__(self, parts: Sequence[Kernel], width: int, *, shared: bool) -> None:
        self._shared = shared
        logs = np.array([_logarithms(part, width) for part in parts])
        varying = logs.std(axis=0) > 0
        self._logs = torch.as_tensor(logs[:, varying])
        self.dimensions = int(varying.sum()) if shared else 0
        self._kind = torch.as_tensor(_numbers([_kind(part, width) for part in parts]))
        self._epilogue = torch.as_tensor(_numbers([part.epilogue for part in parts]))

    def covariance(
        self, log: torch.Tensor, rows: torch.Tensor | slice, columns: torch.Tensor
    ) -> torch.Tensor:
        amplitude, epilogue, kind = log[:3].exp()
        same_kind = self._kind[rows][:, None] == self._kind[columns]
        if not self._shared:
            positions = torch.arange(len(self._kind))
            same = positions[rows][:, None] == positions[columns]
            apart: torch.Tensor = amplitude**2 * same + kind**2 * same_kind
            return apart
        lengths = log[len(PRIOR) :].exp()
        scaled = self._logs / lengths
        distances = torch.cdist(
            scaled[rows], scaled[columns], compute_mode="donot_use_mm_for_euclid_dist"
        )
        same_epilogue = self._epilogue[rows][:, None] == self._epilogue[columns]
        common = torch.where(same_epilogue, 1.0, torch.exp(-epilogue))
        smooth = torch.exp(-0.5 * distances**2)
        covariance: torch.Tensor = same_kind * (amplitude**2 * smooth * common + kind**2)
        return covariance

    def variance(self, log: torch.Tensor) -> torch.Tensor:
        amplitude, _, kind = log[:3].exp()
        variance: torch.Tensor = (amplitude**2 + kind**2).expand(len(self._kind))
        return variance


def _numbers(labels: Sequence[object]) -> list[int]:
    known: dict[object, int] = {}
    return [known.setdefault(label, len(known)) for label in labels]


def _kind(part: Kernel, width: int) -> str:
    """Return the kind; what blocked layouts do not fit is done by other code of the runtime."""
    aligned = part.is_convolution or part.output_channels % width == 0
    return part.kind if aligned else f"{part.kind} unaligned"


def _padding(part: Kernel, width: int) -> tuple[float, float]:
    """Return by which factors the channels of input and output grow when padded."""
    if not part.is_convolution:
        return 1.0, 1.0
    channels = (part.input_channels, part.output_channels)
    # The few channels of an image are not padded.
    padded = [-(-count // width) * width / count if count >= 4 else 1.0 for count in channels]
    return padded[0], padded[1]


def _logarithms(part: Kernel, width: int) -> list[float]:
    before, after = _padding(part, width)
    values = (
        part.input_channels,
        part.output_channels,
        part.output_values / part.output_channels,
        1 + part.input_values / part.output_values,
        before**2,
        after**2,
    )
    return [float(np.log(value)) for value in values]


def roofline_features(parts: Sequence[Kernel], width: int) -> FloatArray:
    """Return calls, arithmetic, traffic and weights of every part.

    Returns:
        Shape `(parts, columns)`: the four of its kind in columns of the kind, the outputs that
        each epilogue works on, and the four once more in columns that all kinds share.
    """
    kinds = sorted({_kind(part, width) for part in parts})
    epilogues = sorted({kind for part in parts for kind in part.epilogue})
    features = np.zeros((len(parts), 4 * len(kinds) + len(epilogues) + 4))
    for row, part in zip(features, parts, strict=True):
        before, after = _padding(part, width)
        traffic = before * part.input_values + after * part.output_values
        dense = after if part.kind.startswith("depthwise") else before * after
        four = (1, part.macs * dense / 1e6, traffic / 1e5, part.params * dense / 1e5)
        start = 4 * kinds.index(_kind(part, width))
        row[start : start + 4] = row[-4:] = four
        for kind in part.epilogue:
            row[4 * len(kinds) + epilogues.index(kind)] += after * part.output_values / 1e5
    return features


def roofline(features: FloatArray, counts: FloatArray, latency_ms: FloatArray) -> FloatArray:
    """Return latencies of parts by rates that are not negative, shape `(parts,)`.

    Least squares of relative errors, with a penalty on the rates (Lawson and Hanson, Solving
    Least Squares Problems, 1974, chapter 23).
    """
    from scipy.optimize import nnls

    totals = counts @ features
    # Rates are measured in what they contribute to a network on average.
    mean = totals.mean(axis=0)
    mean[mean == 0] = 1
    columns = totals / mean / latency_ms[:, None] * latency_ms.mean()
    penalty = np.full(len(mean), SHRINKAGE)
    penalty[-4:] *= FREEDOM
    penalty *= np.sqrt(len(latency_ms))
    rows = np.vstack([columns, np.diag(penalty)])
    target = np.concatenate([np.full(len(latency_ms), latency_ms.mean()), np.zeros(len(mean))])
    rates, _ = nnls(rows, target)
    contribution: FloatArray = features @ (rates / mean)
    return contribution
