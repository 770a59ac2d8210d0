"""Fit an elastic net to the diabetes data that scikit-learn ships, and log it with MLflow."""

import sys

import mlflow
import mlflow.sklearn
import sklearn
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

alpha = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
l1_ratio = float(sys.argv[2]) if len(sys.argv) > 2 else 0.1

features, target = load_diabetes(return_X_y=True, scaled=False)
train_x, test_x, train_y, test_y = train_test_split(features, target, random_state=40)

with mlflow.start_run():
    model = make_pipeline(StandardScaler(), ElasticNet(alpha=alpha, l1_ratio=l1_ratio, random_state=42))
    model.fit(train_x, train_y)
    predicted = model.predict(test_x)

    metrics = {
        "rmse": root_mean_squared_error(test_y, predicted),
        "mae": mean_absolute_error(test_y, predicted),
        "r2": r2_score(test_y, predicted),
    }
    print(f"elastic net (alpha={alpha}, l1_ratio={l1_ratio})")
    for name, value in metrics.items():
        print(f"  {name:4} {value:.4f}")

    mlflow.log_params({"alpha": alpha, "l1_ratio": l1_ratio})
    mlflow.log_metrics(metrics)
    mlflow.sklearn.log_model(model, name="model", pip_requirements=[f"scikit-learn=={sklearn.__version__}"])
