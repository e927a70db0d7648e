"""Converts programs of `torch.export` to LiteRT; runs in an environment of its own.

It reads one request a line from standard input and writes one answer a line to standard output,
both JSON objects, as `nas.devices.measuring.process` asks. Nothing of this package is imported.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def convert(
    program: str, shape: list[int], path: str, images: str | None, integers: bool = False
) -> dict[str, Any]:
    """Convert a program.

    Args:
        program: File of `torch.export`, which this user's process has just written.
        shape: `(1, channels, height, width)` of its input.
        path: File to write.
        images: NumPy file of images for the ranges of activations, `(n, channels, height, width)`;
            `None` to leave the network in fp32.
        integers: Whether a quantised network takes images with the channels last, and images and
            outputs in 8 bits, as microcontrollers have them; else they are as in the program.
    """
    import litert_torch
    import torch

    module = torch.export.load(program).module()
    if integers:
        module = litert_torch.to_channel_last_io(module, args=[0])
        shape = [shape[0], *shape[2:], shape[1]]
    litert_torch.convert(module, (torch.zeros(shape),)).export(path)
    if images is not None:
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_quantizer import quantizer, recipe

        ((signature, names),) = Interpreter(model_path=path).get_signature_list().items()
        (name,) = names["inputs"]
        batch = np.load(images)
        batch = batch.transpose(0, 2, 3, 1) if integers else batch
        batches = [{name: image[None]} for image in batch]
        (rule,) = recipe.static_wi8_ai8()
        ends = () if integers else (recipe.TFLOperationName.INPUT, recipe.TFLOperationName.OUTPUT)
        left = [
            {**rule, "operation": each, "algorithm_key": recipe.AlgorithmName.NO_QUANTIZE}
            for each in ends
        ]
        quantising = quantizer.Quantizer(path, [rule, *left])
        ranges = quantising.calibrate({signature: batches})
        quantising.quantize(ranges).export_model(path, overwrite=True)
    return {}


def main() -> None:
    """Answer every line of standard input."""
    # Converters print, so standard output is moved away from the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        request = json.loads(line)
        request.pop("op")
        try:
            answer = convert(**request)
        except Exception as error:  # noqa: BLE001 - whatever the converter raises
            words = " ".join(str(error).split())
            answer = {"error": f"{type(error).__name__}: {words[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
