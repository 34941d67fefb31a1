"""Networks to artifacts: one ONNX file each, with its manifest, held equal to the network it came from."""
