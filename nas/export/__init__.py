"""What a user takes away: ONNX file, plain PyTorch module, model card."""
