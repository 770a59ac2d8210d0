"""Step one: make a data set and log it as an artifact of this step's run."""

import argparse
import pathlib
import tempfile

import mlflow
import numpy

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, required=True)
parser.add_argument("--seed", type=int, default=1)
options = parser.parse_args()

random = numpy.random.default_rng(options.seed)
features = random.standard_normal((options.rows, 5))
target = features @ [1.0, -2.0, 0.5, 0.0, 3.0] + 0.2 * random.standard_normal(options.rows)

with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "data.csv"
    numpy.savetxt(path, numpy.column_stack([features, target]), delimiter=",")
    mlflow.log_artifact(str(path))
    mlflow.log_metric("rows", options.rows)
    print(f"prepared {options.rows} rows")
