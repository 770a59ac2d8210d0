# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy"]
# ///
"""Fit a line by gradient descent.  An ordinary script: its packages stand in the header above, its options in argparse."""

import argparse

import numpy

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--lr", type=float, default=0.1, help="step size")
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--noise", type=float, default=0.1)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

random = numpy.random.default_rng(options.seed)
x = random.uniform(-1, 1, 200)
y = 3 * x - 1 + options.noise * random.standard_normal(200)

slope = intercept = 0.0
for step in range(options.steps):
    error = slope * x + intercept - y
    slope -= options.lr * 2 * (error * x).mean()
    intercept -= options.lr * 2 * error.mean()
    if step % 20 == 0:
        print(f"step {step:4} loss {(error**2).mean():.6f}")

print(f"slope {slope:.4f} intercept {intercept:.4f}")
