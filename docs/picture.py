"""Record a terminal session as a picture: `python docs/picture.py OUT.svg COMMAND…`.  Needs tmux.

The commands are typed into a real terminal, one after the other; what the screen shows at the end becomes an SVG.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

COLUMNS, ROWS = 124, 44
CELL, LINE, MARGIN = 8.4, 18, 16
INK = "#e6edf3"
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea", "2": "#8b949e"}
PROMPT = "$ "
PATIENCE = 120.0


def record(commands: list[str]) -> list[str]:
    """Type the commands into a new terminal; returns its lines with their escape sequences."""
    name = f"picture-{os.getpid()}"
    environ = {**os.environ, "TERM": "xterm-256color", "CI": ""}
    tmux = ["tmux", "-L", name, "-f", "/dev/null"]
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    subprocess.run([*tmux, "new-session", "-d", *size, f"env PS1='{PROMPT}' bash --norc --noprofile"], check=True, env=environ)
    try:
        time.sleep(0.5)
        subprocess.run([*tmux, "send-keys", "clear", "Enter"], check=True)
        time.sleep(0.5)
        for number, command in enumerate(commands):
            subprocess.run([*tmux, "send-keys", "-l", command], check=True)
            subprocess.run([*tmux, "send-keys", "Enter"], check=True)
            wait_for_prompt(tmux, number + 2)
        taken = subprocess.run([*tmux, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    lines = taken.stdout.rstrip("\n").split("\n")
    while lines and plain(lines[-1]).strip() in ("", PROMPT.strip()):
        lines.pop()
    return lines


def wait_for_prompt(tmux: list[str], count: int) -> None:
    """Until the screen shows that many prompts, the last one empty."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        shown = subprocess.run([*tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True).stdout
        lines = [line.rstrip() for line in shown.rstrip().split("\n")]
        if sum(line.startswith(PROMPT.strip()) for line in lines) >= count and lines[-1] == PROMPT.strip():
            return
        time.sleep(0.2)
    raise SystemExit("the command did not end, or its output is longer than the screen")


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


class Pen:
    """Colour and weight as escape sequences leave them; tmux does not repeat them on a new line."""

    def __init__(self) -> None:
        self.colour, self.bold = INK, False

    def obey(self, sequence: str) -> None:
        for code in sequence[2:-1].split(";"):
            if code in ("", "0"):
                self.colour, self.bold = INK, False
            elif code == "39":
                self.colour = INK
            elif code == "1":
                self.bold = True
            elif code in COLOURS:
                self.colour = COLOURS[code]

    def words(self, line: str) -> Iterator[tuple[int, str]]:
        """Column and text of each stretch of a line that has one look and no gap."""
        column = 0
        for part in re.split(r"(\x1b\[[0-9;]*m)", line):
            if part.startswith("\x1b["):
                self.obey(part)
                continue
            for found in re.finditer(r"\S+(?: \S+)*", part):
                yield column + found.start(), found.group()
            column += len(part)


def draw(lines: list[str]) -> str:
    width = round(max(len(plain(line)) for line in lines) * CELL + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    pen, texts = Pen(), []
    for row, line in enumerate(lines):
        for column, words in pen.words(line):
            place = f'x="{MARGIN + column * CELL:.1f}" y="{MARGIN + row * LINE + 13}" textLength="{len(words) * CELL:.1f}"'
            weight = ' font-weight="bold"' if pen.bold else ""
            texts.append(f'<text {place} fill="{pen.colour}"{weight}>{html.escape(words, quote=False)}</text>')
    style = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:14px"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{style}">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>', *texts, "</svg>"]) + "\n"


def main() -> int:
    target, *commands = sys.argv[1:]
    Path(target).write_text(draw(record(commands)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
