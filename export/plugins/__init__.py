"""Our Triton kernels as TensorRT plugins: the rungs of the ladder, the graph for each, and the choice between them."""
