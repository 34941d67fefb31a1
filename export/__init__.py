"""Export of networks to artifacts: one ONNX file each, with its manifest, compared with the original network."""
