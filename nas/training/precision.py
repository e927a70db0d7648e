"""The arithmetic of a training."""

from __future__ import annotations

import functools
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional as F

from nas.core.errors import ConfigError, one_line
from nas.core.host import one_thread, training_step

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types in which matrices are multiplied, by the name of the precision."""

_TIMES, _ENOUGH_S = 5, 0.1
"""How often an operation is timed, of which the shortest counts, and after how long it is not."""


def precision_of(name: str, device: torch.device) -> str:
    """Return the precision on a device; see `nas.core.recipe.ComputeSettings`. None is `auto`."""
    if name != "auto":
        return name
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def arithmetic(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network's outputs are computed in a precision."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, TYPES[precision])


def emulation_line(name: str, setting: str) -> str | None:
    """Return a warning where this host's processor is slower in a recipe's precision than in fp32.

    Args:
        name: The precision, as the recipe has it.
        setting: Where it is set.
    """
    precision = precision_of(name, torch.device("cpu"))
    if precision == "fp32" or (factor := slowdown(TYPES[precision])) <= 1:
        return None
    return (
        f"{setting}={name}: this processor takes {factor:.2g} times as long as in fp32 (measured"
        " on a convolution and a matrix product); set fp32 or auto, unless other hosts train"
    )


def check_compiler(setting: str) -> None:
    """Check that `torch.compile` works on this host's processor, which takes some seconds.

    Raises:
        ConfigError: It does not, as where there is no C++ compiler.
    """
    try:
        torch.compile(torch.sin)(torch.zeros(8))
    except RuntimeError as error:
        expected = f"false, as torch.compile fails here ({one_line(error, 100)})"
        raise ConfigError(setting, True, expected, "or install a C++ compiler") from error


@functools.cache
def slowdown(precision: torch.dtype) -> float:
    """Return how many times as long as in fp32 one core of this host takes in a precision.

    It is the geometric mean of a convolution and a matrix product with their gradients.
    """
    image, kernel = torch.rand(4, 32, 14, 14), torch.rand(64, 32, 3, 3)
    left, right = torch.rand(128, 128), torch.rand(128, 128)
    image = image.contiguous(memory_format=torch.channels_last)

    def seconds(precision: torch.dtype, *operands: torch.Tensor) -> float:
        left, right = (operand.to(precision).requires_grad_() for operand in operands)
        operation = F.conv2d if left.dim() == 4 else torch.matmul
        times: list[float] = []
        while len(times) < _TIMES and sum(times) < _ENOUGH_S:
            started = time.perf_counter()
            torch.autograd.backward(operation(left, right).sum())
            times.append(time.perf_counter() - started)
        return min(times)

    with training_step(), one_thread():
        product = 1.0
        for operands in ((image, kernel), (left, right)):
            product *= seconds(precision, *operands) / seconds(torch.float32, *operands)
    return float(product**0.5)
