"""Your own sink: any function that takes a result. This one writes a line of CSV for each prediction.

python examples/own_sink.py demo scores.csv
"""

import csv
import sys

import framecast

source, path = sys.argv[1:]
with open(path, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["time", "shown for", "PSNR", "PSNR of the late picture"])

    def write(result: framecast.Result) -> None:
        """Write the score of the prediction for this frame's moment. The first frames have none."""
        if result.psnr is not None:
            writer.writerow([result.frame.time, result.prediction.time, result.psnr, result.psnr_copy])

    report = framecast.run(source, ahead=0.1, sinks=[write])
print(report["psnr_db"])
