"""Step two: fit a ridge regression to the data of step one."""

import argparse

import mlflow
import numpy

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", required=True)
parser.add_argument("--ridge", type=float, default=0.1)
options = parser.parse_args()

table = numpy.loadtxt(options.data, delimiter=",")
features, target = table[:, :-1], table[:, -1]
cut = len(table) * 4 // 5
gram = features[:cut].T @ features[:cut] + options.ridge * numpy.eye(features.shape[1])
weights = numpy.linalg.solve(gram, features[:cut].T @ target[:cut])
rmse = float(numpy.sqrt(((features[cut:] @ weights - target[cut:]) ** 2).mean()))

with mlflow.start_run():
    mlflow.log_metric("rmse", rmse)
    mlflow.log_dict({"weights": weights.tolist()}, "weights.json")
    print(f"rmse {rmse:.4f}")
