"""runproj on a machine that is reached by ssh: brought there and installed once, the same version as here."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from runproj import __version__
from runproj.backends.ssh_line import Line, new_mark
from runproj.errors import BackendError

_INSTALL = r"""
folder=$1 name=$2 wheel=$3 doing=$4
case $folder in "~/"*) folder=$HOME/${folder#"~/"} ;; esac
[ -e "$folder/$name/bin/python" ] && { echo " there"; exit 0; }
PATH=$PATH:$HOME/.local/bin
uv=$(command -v uv) || uv=
new='import sys; sys.exit(sys.version_info < (3, 11))'
for found in python3 python3.14 python3.13 python3.12 python3.11 ''; do
    [ -n "$found" ] && "$found" -c "$new" 2>/dev/null && break
done
[ -n "$found$uv" ] || { echo "It has no Python 3.11 or later, and no uv that could fetch one." >&2; exit 1; }
[ "$doing" = look ] && exit 0
umask 077
mkdir -p "$folder" && cd "$folder" || exit 1
find . -maxdepth 1 -name '.runproj-*' -mtime +0 -exec rm -rf {} +
fresh=.$name.$$
mkdir "$fresh" && cat >"$fresh/$wheel" || { rm -rf "$fresh"; exit 1; }
if [ -n "$uv" ]; then
    "$uv" venv -q --python "${found:-3.11}" "$fresh/env" && "$uv" pip install -q --python "$fresh/env/bin/python" "$fresh/$wheel"
else
    "$found" -m venv "$fresh/env" && "$fresh/env/bin/python" -m pip install -q --disable-pip-version-check "$fresh/$wheel"
fi >"$fresh/log" 2>&1 || { tail -n 5 "$fresh/log" >&2; rm -rf "$fresh"; exit 1; }
[ -e "$name/bin/python" ] || rm -f "$name"
mv "$fresh" "$name.$$" && ln -sn "$name.$$/env" "$name" || { rm -rf "$name.$$" "$fresh"; [ -e "$name/bin/python" ]; }
"""
"""Words: folder, name of the installation, of the wheel, and `look` or `install`.  Standard input: the wheel.

The last thing that it prints is ` there` where there is nothing to install.
Whoever finishes first has its installation used; one that was killed is removed a day later;
one whose Python has gone is replaced.
"""

_VERSION = """
python=$1
case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
printf %s "$2"
cd / && exec "$python" -c 'import runproj; print(runproj.__version__)'
"""


def is_there(line: Line, folder: str) -> bool:
    """Whether it is installed.  Raises `BackendError` where it could not be."""
    return line.ask(_INSTALL, folder, _name(), _wheel_name(), "look").endswith(b" there\n")


def install(line: Line, folder: str, tell: Callable[[str], None]) -> str:
    """Have it installed; returns its Python's path there.  `tell`: of what takes long."""
    if not is_there(line, folder):
        tell(f"installing runproj on {line.host}, once")
        with tempfile.TemporaryFile() as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as wheel:
                for name, content in _wheel():
                    wheel.writestr(name, content)
            file.seek(0)
            line.send(file, _INSTALL, folder, _name(), _wheel_name(), "install")
        tell("")
    return f"{folder}/{_name()}/bin/python"


def check_given(line: Line, python: str) -> None:
    """Raise `BackendError` where a Python there has not this version of runproj."""
    mark = new_mark()
    fix = "Leave out `python`: runproj then brings itself there.  Or install this version with it."
    try:
        found = line.ask(_VERSION, python, mark, mark=mark).decode(errors="replace").strip()
    except BackendError as error:
        if "reached" in error.what:
            raise
        raise BackendError(f"{python} on {line.host} has no runproj", why=error.why, fix=fix) from error
    if found != __version__:
        raise BackendError(f"{python} on {line.host} has runproj {found}, and this is {__version__}", fix=fix)


def _wheel_name() -> str:
    return f"runproj-{__version__}-py3-none-any.whl"


@cache
def _name() -> str:
    """Of an installation: two versions, or states of the source, do not share one."""
    content = hashlib.sha256()
    for name, data in _wheel():
        content.update(f"{name}\0{len(data)}\0".encode() + data)
    return f"runproj-{__version__}-{content.hexdigest()[:12]}"


def _wheel() -> Iterator[tuple[str, bytes]]:
    """Members of a wheel of the runproj that runs here, however it was installed (the format is PyPA's, version 1.0)."""
    package = Path(__file__).parents[1]
    about, distribution = f"runproj-{__version__}.dist-info", metadata.distribution("runproj")
    files = {
        f"runproj/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{about}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    files[f"{about}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: runproj\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{about}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
        yield name, data
    yield f"{about}/RECORD", ("".join(lines) + f"{about}/RECORD,,\n").encode()
