"""The root mean square error of each model on data that none has seen."""

import csv
import json
import math
import pathlib
import sys

with open("data/test.csv", newline="") as file:
    table = [(float(x), float(y)) for x, y in csv.reader(file)]

metrics = {}
for name in sys.argv[1:]:
    weights = json.loads(pathlib.Path(name).read_text())["weights"]
    errors = [sum(weight * x**i for i, weight in enumerate(weights)) - y for x, y in table]
    metrics[f"rmse_{pathlib.Path(name).stem}"] = math.sqrt(sum(error**2 for error in errors) / len(errors))
with open("metrics.json", "w") as file:
    json.dump(metrics, file)
print(metrics)
