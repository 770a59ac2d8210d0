"""The command line: Typer commands, one file a group.  All printing happens here; only `main.py` exits."""
