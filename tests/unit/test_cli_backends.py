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
    configured(cli, '[profiles.slow]\nbackend = "background"\nnice = 5\n[profiles.lost]\ncpus = 1\n')
    found = cli.json("backends")
    views = {view["name"]: view for view in found["backends"]}
    assert {"local", "background", "slurm"} <= set(views)
    assert views["local"]["problem"] == views["background"]["problem"] == ""
    assert [option["name"] for option in views["background"]["options"]] == ["nice"]
    assert "/nowhere/slurm.conf" in views["slurm"]["problem"]
    assert found["profiles"] == {"slow": "background", "lost": "lost"}
    said = cli("backends").stdout.splitlines()
    assert "slow  profile of background" in said
    assert "lost  profile of lost, and there is no such backend" in said


def test_programs_of_slurm_that_know_no_cluster_are_no_slurm(cli: Cli) -> None:
    """What `sbatch` says where the package is installed and nothing is set up."""
    sbatch = cli.home / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: fatal: Could not establish a configuration source' >&2; exit 1\n")
    sbatch.chmod(0o755)
    cli.env["PATH"] = f"{cli.home}:{cli.env['PATH']}"
    cli.env.pop("SLURM_CONF", None)
    (slurm,) = (line for line in cli("backends").stdout.splitlines() if line.startswith("slurm "))
    assert "do not know their cluster here. sbatch: fatal: Could not establish a configuration source. Run it" in slurm


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
        (("-b", "slrum"), "Did you mean 'slurm'?"),
        (("-c", "{oops"), "--backend-config cannot be understood"),
        (("-c", "nowhere.json"), "nowhere.json cannot be read"),
        (("-c", '{"cpus": "many"}'), "cpus, gpus and nodes are numbers"),
    ):
        refused = cli("plan", project.url, *SYSTEM, *arguments)
        assert refused.returncode == 2, refused.stderr
        assert word in refused.stderr
    configured(cli, "profiles = 3")
    assert "table of tables" in cli("plan", project.url).stderr
