"""Experiments, runs, metrics, parameters, tags, artifacts, datasets and searches, as users of the mlflow client know them."""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from pathlib import Path

import mlflow
from common import FULL, MAJOR, PREFIX, client, experiment, files, main, points, read, refused, section, shown
from mlflow.entities import Metric, Param, RunTag, ViewType


@section()
def experiments():
    name = f"{PREFIX} exp"
    made = client.create_experiment(name + " one", tags={"team": "a", "Größe": "ü"})
    mlflow.set_experiment(name + " two")
    again = mlflow.set_experiment(name + " one")
    client.set_experiment_tag(made, "team", "b")
    mlflow.set_experiment_tag("mlflow.note.content", "# a note")
    client.rename_experiment(made, name + " 1 ✓")
    seen = client.get_experiment(made)
    two = client.get_experiment_by_name(name + " two")
    client.delete_experiment(two.experiment_id)
    pattern = f"name LIKE '{name}%'"
    found = {
        "same": again.experiment_id == made,
        "seen": [seen.name, seen.lifecycle_stage, dict(seen.tags), seen.artifact_location.rpartition("/")[0]],
        "located": seen.artifact_location.endswith("/" + made),
        "times": seen.creation_time <= seen.last_update_time,
        "missing": client.get_experiment_by_name(name + " none"),
        "twice": refused(client.create_experiment, name + " 1 ✓"),
        "name of a deleted one": refused(client.create_experiment, name + " two"),
        "set deleted": refused(mlflow.set_experiment, name + " two"),
        "get unknown": refused(client.get_experiment, "987654"),
        "deleted": client.get_experiment(two.experiment_id).lifecycle_stage,
        "active": [item.name for item in client.search_experiments(filter_string=pattern)],
        "gone": [item.name for item in client.search_experiments(ViewType.DELETED_ONLY, filter_string=pattern)],
        "delete twice": refused(client.delete_experiment, two.experiment_id),
        "restore active": refused(client.restore_experiment, made),
        "empty name": refused(client.create_experiment, ""),
        "long name": refused(client.create_experiment, "n" * 501),
    }
    client.restore_experiment(two.experiment_id)
    for number in range(5):
        client.create_experiment(f"{name} {number:03}", tags={"number": str(number)})
    first = client.search_experiments(filter_string=pattern, order_by=["name ASC"], max_results=3)
    second = client.search_experiments(filter_string=pattern, order_by=["name ASC"], max_results=3, page_token=first.token)
    found["pages"] = [[item.name for item in first], [item.name for item in second], bool(second.token)]
    by_tag = client.search_experiments(filter_string=f"tags.number = '3' AND name ILIKE '{name.upper()}%'")
    found["by tag"] = [(item.name, dict(item.tags)) for item in by_tag]
    found["by note"] = [item.name for item in client.search_experiments(filter_string="tags.Größe = 'ü' AND " + pattern)]
    if MAJOR >= 3:
        client.delete_experiment_tag(made, "team")
        found["tag deleted"] = dict(client.get_experiment(made).tags)
        found["tag missing"] = refused(client.delete_experiment_tag, made, "team")
    return found


@section()
def logging():
    mlflow.set_experiment(f"{PREFIX} main")
    with mlflow.start_run(run_name="plain", tags={"given": "at start"}) as run:
        own = run.info.run_id
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({"text": 'it\'s \n 文字 "q"', "n": 3, "none": None, "list": [1, 2], "empty": ""})
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"acc": 0.75, "val/acc": 0.5, "métrique 1.a-b_c": 3}, step=7)
        mlflow.set_tag("kind", "test")
        mlflow.set_tags({"a": 1, "b": True, "gone": "x", "mlflow.note.content": "**note** of the run"})
        mlflow.delete_tag("gone")
        running = client.get_run(own).info.status
    return {
        "running": running,
        "run": read(own),
        "history": [(step, value) for step, _, value in points(own, "loss")],
        "no history": points(own, "unknown"),
        "same again": refused(client.log_param, own, "lr", 0.1),
        "changed": refused(client.log_param, own, "lr", 0.2),
        "bad key": [refused(client.log_metric, own, key, 1.0) for key in ("a*b", "a//b", "../a", "/a", "a/", "", ".")],
        "bad param": [refused(client.log_param, own, key, 1.0) for key in ("a*b", "a//b", "", "k" * 251)],
        "not a number": refused(client.log_metric, own, "m", "abc"),
        "no such tag": refused(client.delete_tag, own, "gone"),
        "no such run": refused(client.get_run, "0" * 32),
        "long param": [refused(client.log_param, own, "long", "v" * 7000)[0], len(client.get_run(own).data.params["long"])],
        "long tag": [refused(client.set_tag, own, "long", "v" * 9000), len(client.get_run(own).data.tags["long"])],
        "reserved": read(own)["tags"].get("mlflow.runName"),
    }


@section()
def numbers():
    run = client.create_run(experiment(), run_name="numbers").info.run_id
    odd = {
        "nan": math.nan,
        "inf": math.inf,
        "minus inf": -math.inf,
        "minus zero": -0.0,
        "two to 53": 2**53 + 1,
        "minus two to 63": -(2**63),
        "denormal": 5e-324,
        "largest": sys.float_info.max,
        "third": 1 / 3,
        "true": True,
        "zero": 0,
    }
    for number, (key, value) in enumerate(odd.items()):
        client.log_metric(run, key, value, timestamp=1000 + number, step=number)
    for step, at, value in ((5, 10, 1.0), (5, 20, 0.5), (3, 30, 9.0), (-2, 40, 8.0), (5, 20, 0.25), (5, 20, 0.5)):
        client.log_metric(run, "order", value, timestamp=at, step=step)
    for value in (5.0, math.nan):
        client.log_metric(run, "nan later", value, timestamp=7, step=1)
    for value in (math.nan, -1.0):
        client.log_metric(run, "nan first", value, timestamp=7, step=1)
    client.log_metric(run, "large step", 1, timestamp=0, step=2**40)
    client.log_metric(run, "past", 1, timestamp=0)
    found = client.get_run(run).data.metrics
    return {
        "latest": {key: found.get(key) for key in [*odd, "order", "nan later", "nan first", "large step", "past"]},
        "sign": math.copysign(1, found["minus zero"]),
        "history": {key: points(run, key) for key in [*odd, "order", "nan later", "nan first", "large step", "past"]},
        "before 1970": refused(client.log_metric, run, "m", 1.0, -5),
    }


@section()
def nested():
    mlflow.set_experiment(f"{PREFIX} nested")
    with mlflow.start_run(run_name="parent") as parent:
        for number in range(2):
            with mlflow.start_run(run_name=f"child {number}", nested=True) as child:
                mlflow.log_metric("score", number)
    with mlflow.start_run() as unnamed:
        pass
    own = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    children = client.search_runs([experiment("nested")], own, order_by=["metrics.score DESC"])
    with mlflow.start_run(run_id=child.info.run_id):
        mlflow.log_metric("score", 5)
    resumed = client.get_run(child.info.run_id)
    named = client.get_run(unnamed.info.run_id)
    return {
        "children": [(shown(run), run.data.tags["mlflow.parentRunId"] == parent.info.run_id) for run in children],
        "resumed": shown(resumed),
        "named by itself": bool(re.fullmatch(r"[a-z]+-[a-z]+-\d+", named.info.run_name)),
        "name as tag": named.data.tags["mlflow.runName"] == named.info.run_name,
        "parent": getattr(mlflow, "get_parent_run", lambda _: parent)(child.info.run_id).info.run_id == parent.info.run_id,
        "last": getattr(mlflow, "last_active_run", lambda: resumed)().info.run_id == child.info.run_id,
    }


@section()
def failures():
    mlflow.set_experiment(f"{PREFIX} failures")
    try:
        with mlflow.start_run(run_name="raises") as run:
            mlflow.log_metric("m", 1)
            raise ZeroDivisionError
    except ZeroDivisionError:
        failed = read(run.info.run_id)
    killed = client.create_run(experiment("failures"), run_name="killed").info.run_id
    client.set_terminated(killed, "KILLED", end_time=4102444800000)
    client.update_run(killed, name="renamed")
    renamed = read(killed)
    client.set_tag(killed, "mlflow.runName", "by tag")
    client.delete_run(killed)
    deleted = read(killed)
    found = {
        "failed": failed,
        "killed": renamed,
        "renamed by tag": client.get_run(killed).info.run_name,
        "deleted": deleted["stage"],
        "written": [
            refused(client.log_metric, killed, "m", 1.0),
            refused(client.log_param, killed, "p", 1),
            refused(client.set_tag, killed, "t", 1),
            refused(client.log_batch, killed, [Metric("m", 1.0, 1, 1)]),
            refused(client.set_terminated, killed),
        ],
        "listed": [run.info.run_name for run in client.search_runs([experiment("failures")])],
        "bin": [run.info.run_name for run in client.search_runs([experiment("failures")], run_view_type=ViewType.DELETED_ONLY)],
        "all": len(client.search_runs([experiment("failures")], run_view_type=ViewType.ALL)),
        "twice": refused(client.delete_run, killed),
    }
    client.restore_run(killed)
    found["restored"] = [client.get_run(killed).info.lifecycle_stage, refused(client.restore_run, killed)]
    client.delete_experiment(experiment("failures"))
    found["with its experiment"] = client.get_run(killed).info.lifecycle_stage
    found["run in it"] = refused(client.create_run, experiment("failures"))
    client.restore_experiment(experiment("failures"))
    found["back with it"] = client.get_run(killed).info.lifecycle_stage
    found["unknown experiment"] = refused(client.create_run, "98765")
    return found


@section()
def batches():
    run = client.create_run(experiment(), tags={"mlflow.runName": "batches"}).info.run_id
    client.log_batch(
        run,
        [Metric("m", float(step), 1000 + step, step) for step in range(900)] + [Metric("n", math.nan, 5, 5)],
        [Param(f"p{number}", str(number)) for number in range(40)],
        [RunTag(f"t{number}", str(number)) for number in range(40)],
    )
    client.log_batch(run, metrics=[Metric("m", 5.0, 1005, 5)])
    client.log_batch(run, tags=[RunTag("t1", "new"), RunTag("twice", "1"), RunTag("twice", "2")])
    found = {"run": read(run), "history": points(run, "m")}
    found["changed"] = refused(client.log_batch, run, params=[Param("p1", "other"), Param("fresh", "1")])
    found["nothing of it"] = "fresh" in client.get_run(run).data.params
    found["twice"] = refused(client.log_batch, run, params=[Param("q", "1"), Param("q", "2")])
    found["bad key"] = refused(client.log_batch, run, metrics=[Metric("a*", 1.0, 1, 1), Metric("fine", 1.0, 1, 1)])
    found["too many"] = refused(client.log_batch, run, metrics=[Metric("x", 1.0, 1, 1)] * 1001)
    found["empty"] = refused(client.log_batch, run)
    found["after"] = sorted(client.get_run(run).data.metrics)
    return found


@section(2)
def asynchronous():
    mlflow.set_experiment(f"{PREFIX} main")
    with mlflow.start_run(run_name="async") as run:
        for step in range(60):
            mlflow.log_metric("m", step * 0.5, step=step, synchronous=False)
        mlflow.log_params({"a": 1, "b": 2}, synchronous=False)
        mlflow.set_tags({"x": 1}, synchronous=False).wait()
        mlflow.flush_async_logging()
        seen = len(points(run.info.run_id, "m"))
    return {"flushed": seen, "run": read(run.info.run_id), "values": [item[2] for item in points(run.info.run_id, "m")]}


@section()
def artifacts():
    mlflow.set_experiment(f"{PREFIX} main")
    folder = Path(tempfile.mkdtemp())
    (folder / "tree/sub dir").mkdir(parents=True)
    (folder / "tree/sub dir/ü #1 %20 (x).txt").write_text("odd name")
    (folder / "tree/empty").write_bytes(b"")
    (folder / "big.bin").write_bytes(bytes(range(256)) * 20_000)
    with mlflow.start_run(run_name="files") as run:
        own = run.info.run_id
        mlflow.log_artifact(folder / "big.bin", "data/deep")
        mlflow.log_artifacts(folder / "tree", "tree")
        mlflow.log_text("hello\n文字", "notes/hello ü.txt")
        mlflow.log_text("second", "notes/again.txt")
        mlflow.log_text("third", "notes/again.txt")
        mlflow.log_dict({"k": [1, 2], "ü": None}, "notes/d.json")
        mlflow.log_dict({"k": [1, 2]}, "notes/d.yaml")
        uri = mlflow.get_artifact_uri("notes/d.json")
    listed = [(item.path, item.is_dir, item.file_size) for item in client.list_artifacts(own)]
    back = Path(client.download_artifacts(own, "", str(Path(tempfile.mkdtemp()))))
    names = sorted(path.relative_to(back).as_posix() for path in back.rglob("*") if path.is_file())
    found = {
        "listed": listed,
        "files": files(own),
        "a file": [item.path for item in client.list_artifacts(own, "notes/d.json")],
        "nothing": [item.path for item in client.list_artifacts(own, "no/such")],
        "downloaded": names,
        "equal": (back / "data/deep/big.bin").read_bytes() == (folder / "big.bin").read_bytes(),
        "texts": [(back / "notes/hello ü.txt").read_text(), (back / "notes/again.txt").read_text()],
        "one": Path(client.download_artifacts(own, "notes/d.json", tempfile.mkdtemp())).read_text(),
        "missing": refused(client.download_artifacts, own, "no/such.txt", tempfile.mkdtemp()),
        "uri": uri,
        "escape": [refused(client.list_artifacts, own, path) for path in ("../..", "/etc")],
    }
    if MAJOR >= 2:
        found["by uri"] = mlflow.artifacts.load_text(uri)
        found["dict"] = mlflow.artifacts.load_dict(uri)
        found["list"] = [item.path for item in mlflow.artifacts.list_artifacts(f"runs:/{own}/notes")]
        found["runs uri"] = Path(mlflow.artifacts.download_artifacts(f"runs:/{own}/tree")).name
        found["by run"] = Path(mlflow.artifacts.download_artifacts(run_id=own, artifact_path="notes/again.txt")).read_text()
    return found


@section(2, full=True)
def media():
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    import pandas as pd
    from matplotlib import pyplot

    mlflow.set_experiment(f"{PREFIX} main")
    with mlflow.start_run(run_name="media") as run:
        own = run.info.run_id
        figure, axes = pyplot.subplots()
        axes.plot([1, 2], [3, 4])
        mlflow.log_figure(figure, "plots/figure.png")
        image = np.zeros((8, 8, 3), dtype=np.uint8)
        mlflow.log_image(image, "plots/image.png")
        mlflow.log_image(image, key="stepped", step=3, timestamp=1700000000000)
        mlflow.log_table({"a": [1, 2], "b": ["x", "ü"]}, "tables/t.json")
        mlflow.log_table(pd.DataFrame({"a": [3], "b": ["y"]}), "tables/t.json")
        table = mlflow.load_table("tables/t.json", run_ids=[own])
    names = [re.sub(r"[0-9a-z]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", name) for name, _ in files(own)]
    image = mlflow.artifacts.load_image(f"runs:/{own}/plots/image.png")
    return {"files": names, "table": table.to_dict("list"), "size": image.size, "run": read(own)}


@section(2, full=True)
def datasets():
    import numpy as np
    import pandas as pd

    mlflow.set_experiment(f"{PREFIX} data")
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]})
    with mlflow.start_run(run_name="data") as run:
        data = mlflow.data.from_pandas(frame, source="http://example.org/d.csv", name="points", targets="y")
        mlflow.log_input(data, context="training", tags={"k": "v"})
        mlflow.log_input(data, context="training")
        mlflow.log_input(mlflow.data.from_numpy(np.arange(6.0), name="numbers"), context="test")
    own = client.get_run(run.info.run_id)
    source = mlflow.data.get_source(next(item.dataset for item in own.inputs.dataset_inputs if item.dataset.name == "points"))
    found = [
        len(client.search_runs([experiment("data")], query))
        for query in (
            "dataset.name = 'points'",
            "dataset.name LIKE 'num%'",
            "dataset.context = 'training'",
            "dataset.name = 'no'",
        )
    ]
    return {"run": shown(own), "source": source.to_dict(), "found": found}


QUERIES = [
    "",
    "metrics.acc > 0.5",
    "metrics.acc >= 0.5 and metrics.acc < 0.9",
    "metrics.acc != 0.5",
    "metrics.`val/loss` <= 2",
    'metrics."val/loss" = 3.0',
    "metrics.nan > 0",
    "metrics.nan != 1",
    "metrics.missing > 0",
    "params.lr = '0.1'",
    "params.lr != '0.1'",
    "params.lr LIKE '0.%'",
    "params.Name ILIKE '%RUN%'",
    "params.Name LIKE '%RUN%'",
    "params.odd IS NULL",
    "params.odd IS NOT NULL",
    "tags.kind = 'even'",
    "tags.kind != 'even'",
    "tags.`mlflow.runName` = 'run 3'",
    "tags.mlflow.runName LIKE 'run 1%'",
    "attributes.status = 'FINISHED'",
    "status = 'running'",
    "attributes.run_name IN ('run 1')",
    "run_name = 'run 2'",
    "attributes.`run name` = 'run 2'",
    "attribute.start_time > 0",
    "start_time > 1005 AND start_time <= 1009",
    "end_time > 0",
    "user_id = 'tester'",
    "artifact_uri LIKE 'mlflow-artifacts:%'",
    'params.quote = "it\'s"',
    "metrics.acc > 0.2 AND params.lr = '0.1' AND tags.kind = 'odd'",
    "metrics.acc = 0.5 metrics.acc = 0.5",
    "metrics.acc > -1e3",
    "metrics.acc > .5",
    "metrics.acc > '0.5'",
    "metrics.acc > abc",
    "params.lr > '0.1'",
    "params.lr = 0.1",
    "params.lr IN ('0.1')",
    "metrics.acc LIKE '0%'",
    "bad.acc > 1",
    "metrics.acc",
    "metrics.acc >",
    "metrics.a-b > 1",
    "experiment_id = '1'",
    "lifecycle_stage = 'active'",
    "   ",
    "run_id NOT IN ('x', 'y')",
    "run_id IN ()",
    "metric.acc == 0.5",
    "metrics.acc > 1 OR metrics.acc < 0.5",
    "(metrics.acc > 0.5)",
    "Metrics.acc > 0.5",
]
ORDERS = [
    [],
    ["metrics.acc"],
    ["metrics.acc ASC", "start_time ASC"],
    ["metrics.acc DESC"],
    ["metrics.nan DESC"],
    ["metrics.nan ASC"],
    ["params.lr DESC", "attributes.start_time"],
    ["params.odd"],
    ["tags.kind", "metrics.`val/loss` desc"],
    ["attribute.run_name"],
    ["run_name DESC"],
    ["status", "end_time DESC"],
    ["metrics.acc DOWN"],
    ["nothing.acc"],
    ["dataset.name"],
]


@section()
def searching():
    where = experiment("search")
    for number in range(12):
        run = client.create_run(
            where, start_time=1000 + number, tags={"mlflow.user": "tester"}, run_name=f"run {number}"
        ).info.run_id
        metrics = [Metric("acc", number / 10, 1, 1), Metric("val/loss", float(number % 4), 1, 1)]
        if number % 3 == 0:
            metrics.append(Metric("nan", math.nan if number % 2 else float(number), 1, 1))
        params = [Param("lr", ("0.1", "0.01", "1e-3")[number % 3]), Param("Name", f"A Run {number}"), Param("quote", "it's")]
        if number % 2:
            params.append(Param("odd", str(number)))
        client.log_batch(run, metrics, params, [RunTag("kind", "odd" if number % 2 else "even")])
        if number < 8:
            client.set_terminated(run, "FAILED" if number % 4 == 3 else "FINISHED", end_time=2000 + number)

    def names(query="", **named):
        return [run.info.run_name for run in client.search_runs([where], query, **named)]

    found = {f"where {query}": refused(names, query) for query in QUERIES}
    found |= {f"by {order}": refused(names, order_by=order) for order in ORDERS}
    first = client.search_runs([where], "metrics.acc >= 0.2", order_by=["metrics.acc"], max_results=4)
    pages, token = [[run.info.run_name for run in first]], first.token
    while token:
        page = client.search_runs([where], "metrics.acc >= 0.2", order_by=["metrics.acc"], max_results=4, page_token=token)
        pages.append([run.info.run_name for run in page])
        token = page.token
    found["pages"] = pages
    found["garbage token"] = refused(client.search_runs, [where], page_token="garbage")
    found["too many"] = refused(client.search_runs, [where], max_results=50_001)
    found["none"] = refused(client.search_runs, [where], max_results=0)
    found["no experiment"] = refused(client.search_runs, [])
    found["unknown experiment"] = refused(client.search_runs, ["987654"])
    found["several"] = len(client.search_runs([where, experiment("nested")]))
    found["all of it"] = shown(client.search_runs([where], "run_name = 'run 3'")[0])
    if FULL:
        frame = mlflow.search_runs(
            experiment_names=[f"{PREFIX} search"], filter_string="metrics.acc > 0.7", order_by=["metrics.acc"]
        )
        columns = [name for name in frame if name.startswith(("metrics", "params", "tags")) or name in ("status", "start_time")]
        found["frame"] = json.loads(frame[sorted(columns)].to_json(orient="split", date_format="iso"))
    return found


main()
