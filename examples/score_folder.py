"""Score a folder of videos: PSNR of the default model, of copying and of optical flow, 1 to 5 frames ahead.

python examples/score_folder.py clips/
"""

import sys

import framecast

results = framecast.evaluate("edge", sys.argv[1]).to_dict()
for name, scores in results["mean"].items():
    print(f"{name:10s}", *(f"{psnr:6.2f}" for psnr in scores["psnr"]), "dB")
