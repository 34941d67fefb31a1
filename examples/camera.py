"""A camera in ten lines: show the frame of now in a window, and print how good it was.

python examples/camera.py 0 0.18        a webcam that is 180 ms late
"""

import sys

import cv2

import framecast

source, delay = sys.argv[1], float(sys.argv[2])
with framecast.open(source, now=True, camera_delay=delay) as stream:
    for prediction in stream:
        cv2.imshow("now", prediction.image)
        if cv2.waitKey(1) == ord("q"):
            break
    print(stream.report()["now"], stream.report()["psnr_db"])
