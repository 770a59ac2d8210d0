"""Train boosted trees to read the handwritten digits that scikit-learn ships.  It knows nothing of runproj."""

import argparse
import csv

import xgboost
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--max-depth", type=int, default=3)
parser.add_argument("--learning-rate", type=float, default=0.3)
parser.add_argument("--colsample-bytree", type=float, default=0.8)
parser.add_argument("--rounds", type=int, default=40)
parser.add_argument("--booster", default="gbtree")
parser.add_argument("--seed", type=int, default=7)
options = parser.parse_args()

data = load_digits()
train_x, test_x, train_y, test_y = train_test_split(
    data.data, data.target, test_size=0.5, random_state=options.seed, stratify=data.target
)
train = xgboost.DMatrix(train_x, train_y)
test = xgboost.DMatrix(test_x, test_y)

model = xgboost.train(
    {
        "objective": "multi:softprob",
        "num_class": len(data.target_names),
        "eval_metric": "mlogloss",
        "max_depth": options.max_depth,
        "eta": options.learning_rate,
        "colsample_bytree": options.colsample_bytree,
        "booster": options.booster,
        "seed": options.seed,
        "nthread": 1,  # threads that wait for each other are slow where cores are shared
    },
    train,
    num_boost_round=options.rounds,
    evals=[(test, "validation")],  # prints a line per round: "[12]	validation-mlogloss:0.20442"
    verbose_eval=5,
)

predicted = model.predict(test).argmax(axis=1)
print(f"accuracy {accuracy_score(test_y, predicted):.4f}")

model.save_model("model.json")
with open("confusion.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["actual", *(f"predicted_{name}" for name in data.target_names)])
    for name, row in zip(data.target_names, confusion_matrix(test_y, predicted)):
        writer.writerow([name, *row])
