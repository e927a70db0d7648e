"""What is derived from a network, a plain `nn.Module`: its costs and its ONNX file."""
