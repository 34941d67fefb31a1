"""Sources of frames: cameras, streams, clips, folders of images, and computed moving shapes.

Importing this package does not load OpenCV. Opening a source does.
"""

from framecast.camera.source import DEFAULT_FPS, Frame, Image, Outages, Source, Times, plausible_rate
from framecast.camera.timeline import Timeline
from framecast.camera.uri import check_camera, is_camera, open_source

__all__ = [
    "DEFAULT_FPS",
    "Frame",
    "Image",
    "Outages",
    "Source",
    "Timeline",
    "Times",
    "check_camera",
    "is_camera",
    "open_source",
    "plausible_rate",
]
