"""Fit a polynomial to the data by least squares, with a ridge."""

import csv
import json
import sys

degree, ridge, target = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
with open("data/train.csv", newline="") as file:
    table = [(float(x), float(y)) for x, y in csv.reader(file)]

size = degree + 1
matrix = [[sum(x ** (i + j) for x, _ in table) + (ridge if i == j else 0.0) for j in range(size)] for i in range(size)]
right = [sum(y * x**i for x, y in table) for i in range(size)]
for i in range(size):  # Gauss and Jordan; the matrix is positive definite
    for row in range(size):
        if row != i:
            factor = matrix[row][i] / matrix[i][i]
            matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[i])]
            right[row] -= factor * right[i]
weights = [right[i] / matrix[i][i] for i in range(size)]

with open(target, "w") as file:
    json.dump({"weights": weights}, file)
print(" ".join(f"{weight:.3f}" for weight in weights))
