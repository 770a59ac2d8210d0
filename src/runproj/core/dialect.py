"""Whether a script for bash means the same to a plain POSIX shell, as images without bash have it."""

from __future__ import annotations

import re

from runproj.errors import StartError

_ONLY_BASH = re.compile(
    r"\[\[|\(\(|\$'|\$\"|<<<|<\(|>\(|&>|\|&|;&|\$\[|\*\*|\+=|=\(|==|"
    r"\{[^{}\s]*(?:,|\.\.)[^{}\s]*\}|"  # brace expansion
    r"\$\{(?:!|\w+(?:\[|//?|\^|,|@|:\s*[\d(]|:\s+-))|"  # indirection, arrays, replacement, case, slices
    r"\$(?:RANDOM|SECONDS|EPOCH\w*|BASH\w*|FUNCNAME|LINENO|PIPESTATUS|OSTYPE|HOSTNAME|UID|EUID)\b|\$\{(?:RANDOM|BASH\w*|PIPESTATUS)|"
    r"(?:^|[\s;&|(])(?:source|function|declare|typeset|local|let|shopt|pushd|popd|dirs|mapfile|readarray|select|coproc|time|"
    r"disown|enable|builtin|caller|compgen|complete|help|history|logout|suspend|ulimit|printf\s+-v|read\s+-[^r]|echo\s+-[neE]+|"
    r"set\s+[-+]o|trap\s[^;]*\b(?:ERR|DEBUG|RETURN)|wait\s+-n|export\s+-[fn]|type\s+-\w|test\s.*\s-[a-z]+\s.*<)(?=[\s;&|)]|$)",
    re.MULTILINE,
)
_ECHO = re.compile(r"(?:^|[\s;&|(])echo\s")


def needs_bash(script: str) -> str:
    """What in the script only bash understands, or understands in another way; empty for a script that any shell runs alike.

    It looks at the text, quoted or not: it may find what is not there, but what it lets pass is plain.
    """
    if found := _ONLY_BASH.search(script):
        return found[0].strip()
    if (found := _ECHO.search(script)) and ("\\" in script or "$" in script):  # others read escapes in what they are given
        return "echo"
    return ""


def shell_for(script: str, *, bash: bool) -> str:
    """`bash`; in an image without it `sh`, if that understands the script.  Raises `StartError`."""
    if bash:
        return "bash"
    if words := needs_bash(script):
        raise StartError(
            "The command is written for bash, which is not in the image",
            why=f"Other shells do not have {words!r}, or understand it in another way.",
            fix="Install bash in the image, write the command without it, or as a list of words, which needs no shell.",
        )
    return "sh"
