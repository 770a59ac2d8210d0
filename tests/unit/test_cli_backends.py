"""`backends`, profiles and `--backend-config`: where to run, and what is said to whom runs it."""

from __future__ import annotations

from pathlib import Path

from conftest import Repository
from support.program import SYSTEM, Cli


def configured(cli: Cli, text: str) -> None:
    home = Path(cli.env["RUNPROJ_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(text)


def test_backends_are_listed_with_their_options_and_why_they_cannot_be_used(cli: Cli, background: Path) -> None:
    cli.env |= {"PYTHONPATH": str(background), "SLURM_CONF": "/nowhere/slurm.conf"}
    configured(cli, '[profiles.slow]\nbackend = "background"\nnice = 5\n')
    found = cli.json("backends")
    views = {view["name"]: view for view in found["backends"]}
    assert {"local", "background", "slurm"} <= set(views)
    assert views["local"]["problem"] == views["background"]["problem"] == ""
    assert [option["name"] for option in views["background"]["options"]] == ["nice"]
    assert "/nowhere/slurm.conf" in views["slurm"]["problem"]
    assert found["profiles"] == {"slow": "background"}
    assert "slow  profile of background" in cli("backends").stdout


def test_what_was_typed_comes_before_the_profile_and_that_before_the_defaults(
    cli: Cli, project: Repository, background: Path
) -> None:
    cli.env["PYTHONPATH"] = str(background)
    configured(cli, '[backends.background]\nnice = 1\ncpus = 1\n[profiles.slow]\nbackend = "background"\nnice = 5\n')

    def options(*arguments: str) -> dict:
        return cli.json("plan", project.url, *SYSTEM, *arguments)["options"]["backend_options"]

    assert options("-b", "background") == {"nice": 1, "cpus": 1}
    assert options("-b", "slow") == {"nice": 5, "cpus": 1}
    assert options("-b", "slow", "-c", '{"nice": 9}') == {"nice": 9, "cpus": 1}
    given = cli.home / "given.toml"
    given.write_text("nice = 7")
    assert options("-b", "slow", "-c", str(given)) == {"nice": 7, "cpus": 1}


def test_mistakes_are_explained(cli: Cli, project: Repository) -> None:
    for arguments, word in (
        (("-b", "slrum"), "There is no backend 'slrum'"),
        (("-c", "{oops"), "--backend-config cannot be understood"),
        (("-c", "nowhere.json"), "nowhere.json cannot be read"),
        (("-c", '{"cpus": "many"}'), "cpus, gpus and nodes are numbers"),
    ):
        refused = cli("plan", project.url, *SYSTEM, *arguments)
        assert refused.returncode == 2, refused.stderr
        assert word in refused.stderr
    configured(cli, "profiles = 3")
    assert "table of tables" in cli("plan", project.url).stderr
