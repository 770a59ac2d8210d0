"""Clients that are not Python's: real R code, the requests of the Java client, curl as the documentation shows it, plain REST."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from support.mlflow import mlflow_environment
from support.team import Team
from support.teamserver import CLIENTS

ROOT = Path(__file__).resolve().parents[2]


def test_r(team: Team, tmp_path: Path) -> None:
    command = ["Rscript", "--vanilla", str(CLIENTS / "client.R")]
    environment = mlflow_environment(MLFLOW_TRACKING_URI=team.url, LC_ALL="C.UTF-8")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    seen = json.loads(line.removeprefix("RESULT"))
    run = seen.pop("run")
    model = json.loads(seen["tags"].pop("mlflow.log-model.history"))
    assert [item["run_id"] for item in model] == [run]
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d+", seen["tags"].pop("mlflow.runName"))
    assert seen["tags"] == {"kind": "glm", "mlflow.source.type": "LOCAL", "mlflow.user": "tester", "t1": "y"}
    assert seen["params"] == {"Größe 1": "0.5", "alpha": "0.5", "p1": "x", "p2": "it's"}
    numbers = {"b1": 0.25, "b2": "NaN", "inf": "Infinity", "minus inf": "-Infinity", "nan": "NaN", "rmse": 1e-05, "small": 1e-15}
    assert seen["metrics"] == numbers
    assert seen["history"] == [[1, 1], [2, 0.5], [100000, 1e-05]]  # R writes 100000 as "1e+05"
    assert seen["root"].endswith(f"/{run}/artifacts")
    rest = {name: value for name, value in seen.items() if name not in ("tags", "params", "metrics", "history", "root")}
    assert rest == {
        "experiment": "from R, renamed",
        "listed": True,
        "found": 1,
        "again": "400",
        "status": "FINISHED",
        "id": run,
        "deleted": 1,
        "preview": "from R, renamed",
        "version": "1",
        "stage": "Staging",
        "aliased": "1",
        "latest": "1",
        "uri": True,
        "searched": "better",
        "renamed": "R model 2",
        "gone": "deleted",
        "unknown": "404",
    }


class Java:
    """The requests that MLflow's Java client makes: JSON as protobuf's printer writes it, over Apache's HTTP client.

    64-bit numbers travel as strings, doubles as `Double.toString` has them, names in snake_case.
    """

    HEADERS: Mapping[str, str] = {
        "User-Agent": "mlflow-java-client/3.1.0",
        "Connection": "Keep-Alive",
        "Accept-Encoding": "gzip,deflate",
    }

    def __init__(self, team: Team) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", team.port, timeout=30)  # one, kept alive

    def get(self, call: str, *pairs: tuple[str, str]) -> dict[str, Any]:
        query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)
        return self._ask("GET", f"{call}?{query}", None)

    def post(self, call: str, body: str) -> dict[str, Any]:
        return self._ask("POST", call, body)

    def patch(self, call: str, body: str) -> dict[str, Any]:
        return self._ask("PATCH", call, body)

    def _ask(self, method: str, call: str, body: str | None) -> dict[str, Any]:
        headers = {**self.HEADERS, **({"Content-Type": "application/json"} if body else {})}
        self._connection.request(method, f"/api/2.0/mlflow/{call}", body and body.encode(), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        found: dict[str, Any] = json.loads(content)
        return found


def printed(**fields: object) -> str:
    """A message as protobuf's Java printer writes it; numbers are given as it writes them."""
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    return re.sub(r'"raw:([^"]*)"', r"\1", text)


def test_the_requests_of_the_java_client(team: Team) -> None:
    java = Java(team)
    experiment = java.post("experiments/create", printed(name="from Java"))["experiment_id"]
    assert java.get("experiments/get-by-name", ("experiment_name", "from Java"))["experiment"]["experiment_id"] == experiment
    java.post("experiments/set-experiment-tag", printed(experiment_id=experiment, key="lang", value="Java"))
    java.post("experiments/update", printed(experiment_id=experiment, new_name="from Java, renamed"))
    body = printed(max_results="1000", view_type="ACTIVE_ONLY", filter="name LIKE 'from Java%'")
    assert [item["name"] for item in java.post("experiments/search", body)["experiments"]] == ["from Java, renamed"]

    info = java.post("runs/create", printed(experiment_id=experiment, user_id="tester", start_time="1764000000000"))["run"][
        "info"
    ]
    run, both = info["run_id"], {"run_id": info["run_id"], "run_uuid": info["run_id"]}
    assert info["start_time"] == 1764000000000
    for step, value in enumerate(("0.1", "1.0E-4", "1.0E10", '"NaN"', '"Infinity"', '"-Infinity"', "-0.0", "4.9E-324")):
        body = printed(**both, key="loss", value="raw:" + value.replace('"', "'"), timestamp="1764000000001", step=str(step))
        java.post("runs/log-metric", body.replace("'", '"'))
    java.post("runs/log-parameter", printed(**both, key="lr", value="0.1"))
    java.post("runs/set-tag", printed(**both, key="kind", value="Größe ✓"))
    java.post("runs/set-tag", printed(**both, key="gone", value=""))
    java.post("runs/delete-tag", printed(run_id=run, key="gone"))
    metric = {"key": "batch", "value": "raw:0.5", "timestamp": "1764000000002", "step": "9007199254740993"}
    pair = [{"key": "a", "value": "b"}]
    java.post("runs/log-batch", printed(run_id=run, metrics=[metric], params=pair, tags=pair))
    java.post("runs/log-batch", printed(run_id=run))
    java.post("runs/update", printed(**both, status="FINISHED", end_time="1764000000009"))

    read = java.get("runs/get", ("run_uuid", run), ("run_id", run))["run"]
    assert (read["info"]["status"], read["info"]["end_time"], read["info"]["run_uuid"]) == ("FINISHED", 1764000000009, run)
    assert {item["key"]: item["step"] for item in read["data"]["metrics"]} == {"loss": 7, "batch": 9007199254740993}
    assert {item["key"]: item["value"] for item in read["data"]["params"]} == {"lr": "0.1", "a": "b"}
    history = java.get("metrics/get-history", ("run_uuid", run), ("run_id", run), ("metric_key", "loss"))["metrics"]
    assert [item["value"] for item in history] == [0.1, 1e-4, 1e10, "NaN", "Infinity", "-Infinity", 0.0, 5e-324]

    for number in range(5):
        java.post("runs/create", printed(experiment_id=experiment, user_id="tester", start_time=str(1764000000100 + number)))
    found, token = [], None
    while token != "":
        more = {"page_token": token} if token else {}
        body = printed(
            experiment_ids=[experiment],
            filter="attributes.start_time > 0",
            run_view_type="ACTIVE_ONLY",
            max_results=2,
            order_by=["start_time ASC"],
            **more,
        )
        page = java.post("runs/search", body)
        found += [item["info"]["run_id"] for item in page["runs"]]
        token = page.get("next_page_token", "")
    assert len(set(found)) == len(found) == 6
    java.post("runs/delete", printed(run_id=run))
    java.post("runs/restore", printed(run_id=run))
    assert java.get("artifacts/list", ("run_uuid", run), ("run_id", run))["root_uri"] == read["info"]["artifact_uri"]

    java.post("registered-models/create", printed(name="Java model"))
    source = read["info"]["artifact_uri"] + "/model"
    for number in (1, 2):
        made = java.post("model-versions/create", printed(name="Java model", source=source, run_id=run))["model_version"]
        assert (made["version"], made["status"]) == (str(number), "READY")
    stage = printed(name="Java model", version="1", stage="Production", archive_existing_versions=False)
    assert java.post("model-versions/transition-stage", stage)["model_version"]["current_stage"] == "Production"
    assert java.patch("model-versions/update", printed(name="Java model", version="2", description="d"))["model_version"]
    latest = java.get(
        "registered-models/get-latest-versions", ("name", "Java model"), ("stages", "None"), ("stages", "Production")
    )
    assert sorted(item["version"] for item in latest["model_versions"]) == ["1", "2"]
    assert java.get("registered-models/get", ("name", "Java model"))["registered_model"]["name"] == "Java model"
    assert java.get("model-versions/get", ("name", "Java model"), ("version", "2"))["model_version"]["description"] == "d"
    where = java.get("model-versions/get-download-uri", ("name", "Java model"), ("version", "1"))
    assert where["artifact_uri"] == source
    assert len(java.get("model-versions/search", ("filter", "name='Java model'"))["model_versions"]) == 2


@pytest.mark.parametrize("page", ["how-to/use-from-r.md", "how-to/use-from-java.md", "reference/mlflow-compatibility.md"])
def test_the_commands_of_the_documentation(page: str, team: Team, tmp_path: Path) -> None:
    """Blocks for the shell are run as they stand, but for the address; those for R by R."""
    text = (ROOT / "docs" / page).read_text().replace("http://127.0.0.1:5000", team.url)
    blocks = re.findall(r"```(sh|r)\n(.*?)```", text, re.S)
    assert blocks
    for language, block in blocks:
        argv = ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else ["Rscript", "--vanilla", "-e", block]
        environment = mlflow_environment(LC_ALL="C.UTF-8", MLFLOW_TRACKING_URI=team.url)
        done = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (block, done.stderr[-2000:])
        assert "error_code" not in done.stdout, (block, done.stdout)


def test_plain_rest_with_get_and_post(team: Team) -> None:
    """As scripts are written with any HTTP library: times with fractions, repeated keys, filters in the address."""
    where = team.ok("POST", "experiments/create", name="plain REST")["experiment_id"]
    run = team.ok("POST", "runs/create", experiment_id=where, start_time=1764000000000.75)["run"]["info"]
    assert run["start_time"] == 1764000000000
    team.ok("POST", "runs/log-metric", run_id=run["run_id"], key="m", value="nan", timestamp=1764000000001.5, step="3")
    team.ok("POST", "runs/log-metric", run_id=run["run_id"], key="n", value=" 0.5 ", timestamp="1764000000001")
    history = team.ok("GET", "metrics/get-history", run_id=run["run_id"], metric_key="m")["metrics"]
    assert [(item["value"], item["step"], item["timestamp"]) for item in history] == [("NaN", 3, 1764000000001)]
    refused = team.call("POST", "runs/log-metric", run_id=run["run_id"], key="m", value=1, timestamp=1, step=0.5)
    assert (refused.status, refused.message["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    bulk = team.ok("GET", "metrics/get-history-bulk-interval", run_ids=[run["run_id"]] * 2, metric_key="n", max_results=10)
    assert [item["value"] for item in bulk["metrics"]] == [0.5]
    by_get = team.ok("GET", "experiments/search", max_results=5, filter="name = 'plain REST'")
    by_post = team.ok("POST", "experiments/search", max_results="5", filter="name = 'plain REST'")
    assert by_get == by_post
    twice = team.ask(
        "POST",
        "/api/2.0/mlflow/runs/search",
        json.dumps(json.dumps({"experiment_ids": [where]})),
        Content_Type="application/json",
    )
    assert len(twice.message["runs"]) == 1  # JSON in a JSON string, as very old clients send it


def test_traces_do_not_exist(team: Team) -> None:
    """404 without JSON is what clients take for a server that does not know of them."""
    for path in ("/api/3.0/mlflow/traces", "/api/2.0/mlflow/traces", "/v1/traces"):
        answer = team.ask("POST", path, "{}", Content_Type="application/json")
        assert answer.status == 404
        assert not answer.content.startswith(b"{")
