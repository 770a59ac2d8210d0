"""The values of a YAML file that a project wrote, for comparing them: what plain YAML can say, and nothing that is executed."""

from __future__ import annotations


def yaml_values(content: bytes) -> list[object]:
    """The documents in `content`.  Raises `ValueError` for what is no plain YAML."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return list(yaml.load_all(content, Loader=loader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
