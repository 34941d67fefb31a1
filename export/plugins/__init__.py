"""Our Triton kernels as TensorRT plugins: the ladder's rungs, the graph that asks for them, and which one is kept."""
