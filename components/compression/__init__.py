"""Pruning, export to ONNX, quantization."""
