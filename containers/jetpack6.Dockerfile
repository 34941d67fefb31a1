# JetPack 6.1 and 6.2 (L4T r36.4, Orin): CUDA 12.6, TensorRT 10.3, Python 3.10.
# NOT BUILT ON A DEVICE YET: based on NVIDIA's documentation. tests/test_containers.py tests what needs no Jetson.
#
#     sudo docker build -t framecast -f containers/jetpack6.Dockerfile .
#     sudo docker run --rm --runtime nvidia framecast doctor
#     sudo docker run --rm --runtime nvidia -v framecast:/home/framecast framecast build stip-edge
#     sudo docker run --rm --runtime nvidia --network host -v /tmp/argus_socket:/tmp/argus_socket \
#         -v framecast:/home/framecast framecast run csi://0 --model stip-edge --engine tensorrt --serve
#
# For a webcam, use --device /dev/video0. The volume keeps the built engines.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

# --runtime nvidia provides NVIDIA's GStreamer elements from the host.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-tools libglib2.0-0 \
        python3-dev python3-libnvinfer python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE NOTICE ./
COPY camera camera
COPY bench bench
COPY evaluation evaluation
COPY graph graph
COPY export export
COPY kernels kernels
COPY models models
COPY runtime runtime
COPY training training
COPY src src

# TensorRT comes from the system, but not OpenCV: Ubuntu's is too old for framecast, and csi:// uses gst-launch-1.0.
# Therefore --no-deps and named dependencies, with the OpenCV that needs no libGL. pip builds pycuda here.
ENV PATH=/opt/framecast/bin:/usr/local/cuda/bin:${PATH}
RUN python3 -m venv --system-site-packages /opt/framecast \
    && pip install --no-cache-dir aiohttp av msgspec numpy onnx onnxruntime opencv-python-headless pillow platformdirs \
        prometheus-client psutil rich segno tomli typer "pycuda>=2025.1.2" \
    && pip install --no-cache-dir --no-deps . \
    && framecast doctor

RUN useradd --create-home --groups video framecast
USER framecast
WORKDIR /home/framecast
ENTRYPOINT ["framecast"]
CMD ["doctor"]
