"""Points along a curve with some noise, in two files: one to fit, one to judge."""

import csv
import pathlib
import random
import sys

rows, noise, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
generator = random.Random(seed)
table = []
for _ in range(rows):
    x = generator.uniform(-1, 1)
    table.append((x, 1 - 2 * x + 3 * x**3 + generator.gauss(0, noise)))

folder = pathlib.Path("data")
folder.mkdir(exist_ok=True)
cut = rows * 4 // 5
for name, part in (("train", table[:cut]), ("test", table[cut:])):
    with open(folder / f"{name}.csv", "w", newline="") as file:
        csv.writer(file).writerows(part)
print(f"{cut} rows to fit, {rows - cut} to judge")
