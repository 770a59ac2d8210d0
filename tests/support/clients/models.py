"""Models, the registry and autologging, as users of the mlflow client know them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
from common import MAJOR, NOISE, PREFIX, client, experiment, files, main, read, refused, section, shown
from sklearn.linear_model import ElasticNet

X = pd.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0)[::-1] ** 2, "c": np.ones(30)})
Y = X["a"] * 2 + 1
NAME = f"{PREFIX} Elastic ü"


def lines(text):
    return text.strip().splitlines()


def described(version):
    """All that a model version says of itself."""
    return {
        "name": version.name,
        "version": str(version.version),
        "stage": version.current_stage,
        "source": version.source,
        "run": version.run_id,
        "description": version.description,
        "tags": dict(version.tags),
        "aliases": list(version.aliases),
        "status": version.status,
        "link": version.run_link,
        "model": getattr(version, "model_id", None),
        "times": version.creation_timestamp <= version.last_updated_timestamp,
    }


def registered(model):
    return {
        "name": model.name,
        "description": model.description,
        "tags": dict(model.tags),
        "aliases": dict(model.aliases),
        "latest": [(item.version, item.current_stage) for item in model.latest_versions],
        "times": model.creation_timestamp <= model.last_updated_timestamp,
    }


def logged(model, name="model", **named):
    """Log a model as this client has it: by name, or by the path of its artifacts."""
    where = {"name": name, "serialization_format": "cloudpickle"} if MAJOR >= 3 else {"artifact_path": name}
    return mlflow.sklearn.log_model(model, **where, pip_requirements=["scikit-learn"], **named)


@section()
def sklearn_model():
    mlflow.set_experiment(f"{PREFIX} models")
    model = ElasticNet(alpha=0.25).fit(X, Y)
    with mlflow.start_run(run_name="trained") as run:
        mlflow.log_param("alpha", 0.25)
        mlflow.log_metric("rmse", 0.5, step=2)
        info = logged(
            model,
            registered_model_name=NAME,
            signature=mlflow.models.infer_signature(X, model.predict(X)),
            input_example=X.head(2),
        )
    own = run.info.run_id
    second = mlflow.register_model(f"runs:/{own}/model", NAME, tags={"second": "yes"})
    third = mlflow.register_model(info.model_uri, NAME)
    client.set_registered_model_alias(NAME, "best", second.version)
    client.set_registered_model_alias(NAME, "Größter-1", 1)
    client.set_model_version_tag(NAME, second.version, "checked", "by hand")
    expected = model.predict(X).tolist()
    loaded = {
        uri.replace(NAME, "NAME"): mlflow.sklearn.load_model(uri).predict(X).tolist() == expected
        for uri in (f"models:/{NAME}@best", f"models:/{NAME}/1", f"models:/{NAME}/latest", f"runs:/{own}/model", info.model_uri)
    }
    plain = mlflow.pyfunc.load_model(f"models:/{NAME}@best")
    again = mlflow.models.get_model_info(f"runs:/{own}/model")
    folder = Path(mlflow.artifacts.download_artifacts(f"runs:/{own}/model"))
    return {
        "run": read(own),
        "versions": [described(item) for item in (second, third)],
        "read": [described(client.get_model_version(NAME, number)) for number in ("1", "2", "3")],
        "model": registered(client.get_registered_model(NAME)),
        "loaded": loaded,
        "predicted": plain.predict(X).tolist() == expected,
        "signature": plain.metadata.signature.to_dict(),
        "flavors": sorted(again.flavors),
        "example": plain.input_example.to_dict("list") if plain.input_example is not None else None,
        "downloaded": sorted(path.name for path in folder.iterdir()),
        "files": [name for name, _ in files(own)],
        "uri": client.get_model_version_download_uri(NAME, 1),
        "by alias": described(client.get_model_version_by_alias(NAME, "best")),
    }


@section()
def registry():
    name = f"{PREFIX} registry"
    run = client.create_run(experiment("models"), run_name="source").info.run_id
    uri = client.get_run(run).info.artifact_uri
    made = client.create_registered_model(name, tags={"team": "a"}, description="first words")
    found = {
        "made": registered(made),
        "twice": refused(client.create_registered_model, name),
        "bad names": [refused(client.create_registered_model, bad) for bad in ("", " ", "a/b", "a:b", ".", "..")],
        "versions": [],
    }
    for number in range(3):
        version = client.create_model_version(name, f"{uri}/m{number}", run, tags={"n": str(number)}, description=f"v{number}")
        found["versions"].append(described(version))
    found["outside"] = [
        refused(client.create_model_version, name, source, run)
        for source in ("mlflow-artifacts:/999/x", f"{uri}/../../other", "/etc", "file:///etc", f"{uri}/%2e%2e/x")
    ]
    found["free"] = described(client.create_model_version(name, "s3://bucket/model"))
    found["stages"] = [
        described(client.transition_model_version_stage(name, "1", "Production")),
        described(client.transition_model_version_stage(name, "2", "production", archive_existing_versions=True)),
        client.get_model_version(name, "1").current_stage,
        described(client.transition_model_version_stage(name, "3", "Staging")),
        refused(client.transition_model_version_stage, name, "3", "Nowhere"),
        refused(client.transition_model_version_stage, name, "99", "Staging"),
    ]
    found["latest"] = [(item.version, item.current_stage) for item in client.get_latest_versions(name)]
    found["latest staging"] = [item.version for item in client.get_latest_versions(name, ["Staging"])]
    client.update_registered_model(name, description="second words")
    client.update_model_version(name, "1", description="better")
    client.set_registered_model_tag(name, "k", "v")
    client.set_registered_model_tag(name, "team", "b")
    client.delete_registered_model_tag(name, "k")
    client.delete_registered_model_tag(name, "never there")
    client.set_model_version_tag(name, "1", "k", "v")
    client.delete_model_version_tag(name, "1", "n")
    client.delete_model_version_tag(name, "1", "never there")
    client.set_registered_model_alias(name, "a", "1")
    client.set_registered_model_alias(name, "b", "1")
    client.set_registered_model_alias(name, "a", "2")
    client.delete_registered_model_alias(name, "never-there")
    found["bad aliases"] = [refused(client.set_registered_model_alias, name, bad, "1") for bad in ("latest", "v1", "a b", "")]
    found["alias of nothing"] = refused(client.set_registered_model_alias, name, "c", "99")
    found["no such alias"] = refused(client.get_model_version_by_alias, name, "none")
    found["aliased"] = client.get_model_version_by_alias(name, "a").version
    found["model"] = registered(client.get_registered_model(name))
    found["version"] = described(client.get_model_version(name, "1"))
    found["no such version"] = [refused(client.get_model_version, name, number) for number in ("99", "x", "0", "-1")]
    found["no such model"] = refused(client.get_registered_model, name + " none")
    client.delete_model_version(name, "3")
    found["deleted"] = [refused(client.get_model_version, name, "3"), refused(client.delete_model_version, name, "3")]
    found["not reused"] = client.create_model_version(name, f"{uri}/again", run).version
    renamed = client.rename_registered_model(name, name + " 2")
    found["renamed"] = [
        getattr(renamed, "name", None),
        [item.version for item in client.search_model_versions(f"name = '{name} 2'")],
    ]
    found["old name"] = refused(client.get_registered_model, name)
    if MAJOR >= 2:
        found["copy"] = described(client.copy_model_version(f"models:/{name} 2/1", name + " copy"))
    client.delete_registered_model(name + " 2")
    found["gone"] = [refused(client.get_registered_model, name + " 2"), refused(client.delete_registered_model, name + " 2")]
    found["versions gone"] = [item.version for item in client.search_model_versions(f"name = '{name} 2'")]
    return found


MODEL_QUERIES = """
name LIKE '{p} s%'
name ILIKE '{P} S%'
name = '{p} s1'
name != '{p} s1' and name like '{p} s%'
tags.kind = 'odd' and name like '{p} s%'
tags.kind != 'odd' and name like '{p} s%'
name > 'a'
nothing = 'a'
"""
VERSION_QUERIES = """
name = '{p} s1'
name LIKE '{p} s%'
name = '{p} s1' and version_number > 1
name='{p} s1' and tags.n='0'
run_id = '{run}' and name LIKE '{p} s%'
source_path LIKE 's3://%' and name LIKE '{p} s%'
version = 1
name IN ('{p} s1')
run_id IN ('{run}', 'x') and name LIKE '{p} s%'
name LIKE '{p} s%' and tags.n != '0'
"""
LOGGED_QUERIES = """
metrics.acc > 0.25
params.kind = 'tree'
name = 'tree-1'
name LIKE 'tree-%'
tags.n = 'one'
model_type = 'agent'
metrics.acc > 0.25 AND params.depth = '3'
params.kind != 'tree'
name IN ('tree-1', 'tree-2')
nothing =
creation_timestamp > 0
attributes.name = 'tree-2'
name ILIKE 'TREE-1'
metrics.nan > 0
metrics.missing > 0
"""


@section()
def registry_search():
    run = client.create_run(experiment("models"), run_name="searched").info.run_id
    uri = client.get_run(run).info.artifact_uri
    for number in range(4):
        name = f"{PREFIX} s{number}"
        client.create_registered_model(name, tags={"kind": "odd" if number % 2 else "even"} if number else None)
        for version in range(number):
            client.create_model_version(
                name, f"{uri}/{version}" if version else "s3://b/m", run if version else None, {"n": str(version)}
            )
    words = {"p": PREFIX, "P": PREFIX.upper(), "run": run}

    def models(query, **named):
        return [model.name for model in client.search_registered_models(query.format(**words), **named)]

    def versions(query, **named):
        return [(item.name, item.version) for item in client.search_model_versions(query.format(**words), **named)]

    found = {f"models {query}": refused(models, query) for query in lines(MODEL_QUERIES)}
    found |= {f"versions {query}": refused(lambda query=query: sorted(versions(query))) for query in lines(VERSION_QUERIES)}
    every = "name LIKE '{p} s%'"
    orders = (["name DESC"], ["timestamp ASC"], ["last_updated_timestamp DESC", "name"], ["creation_timestamp"], ["nothing"])
    found["models by"] = [refused(models, every, order_by=order) for order in orders]
    orders = (["name", "version_number DESC"], ["version_number", "name DESC"], ["creation_timestamp ASC"], ["nothing"])
    found["versions by"] = [refused(versions, every, order_by=order) for order in orders]
    first = client.search_registered_models(every.format(**words), max_results=3)
    rest = client.search_registered_models(every.format(**words), max_results=3, page_token=first.token)
    found["pages"] = [[item.name for item in first], [item.name for item in rest], bool(rest.token)]
    first = client.search_model_versions(every.format(**words), max_results=4, order_by=["name", "version_number"])
    rest = client.search_model_versions(every.format(**words), 4, ["name", "version_number"], first.token)
    found["version pages"] = [[(item.name, item.version) for item in page] for page in (first, rest)]
    found["too many"] = [refused(client.search_registered_models, max_results=count) for count in (0, 1001)]
    return found


def model_shown(model):
    """All that a logged model says of itself."""
    return {
        "name": model.name,
        "status": str(model.status),
        "type": model.model_type,
        "uri": model.artifact_location,
        "run": model.source_run_id,
        "params": dict(sorted(model.params.items())),
        "tags": {key: value for key, value in sorted(model.tags.items()) if key not in NOISE},
        "metrics": sorted((m.key, m.value, m.step, m.dataset_name or "", m.run_id or "") for m in model.metrics or []),
        "times": model.creation_timestamp <= model.last_updated_timestamp,
    }


@section(3)
def logged_models():
    where = mlflow.set_experiment(f"{PREFIX} logged").experiment_id
    data = mlflow.data.from_pandas(X, name="points")
    made = []
    for number in range(4):
        with mlflow.start_run(run_name=f"logs {number}"):
            params = {"depth": number, "kind": "tree"}
            model = mlflow.initialize_logged_model(f"tree-{number}", tags={"n": str(number)}, params=params, model_type="agent")
            mlflow.log_metric("acc", number / 4, step=1, model_id=model.model_id, dataset=data)
            mlflow.log_metrics({"loss": 1.0 - number, "nan": float("nan")}, model_id=model.model_id)
        if number < 3:
            mlflow.finalize_logged_model(model.model_id, "READY" if number else "FAILED")
        made.append(model.model_id)
    external = mlflow.create_external_model("elsewhere", params={"p": "1"}, tags={"x": "y"})
    mlflow.set_logged_model_tags(made[1], {"n": "one", "more": "ü"})
    mlflow.delete_logged_model_tag(made[1], "more")
    mlflow.log_model_params({"late": "1"}, made[1])
    folder = Path(tempfile.mkdtemp())
    (folder / "weights.bin").write_bytes(b"123")
    client.log_model_artifacts(made[1], str(folder))
    queries = lines(LOGGED_QUERIES)

    def names(**named):
        return [model.name for model in client.search_logged_models([where], **named)]

    found = {
        "one": model_shown(mlflow.get_logged_model(made[1])),
        "all": {model.name: model_shown(model) for model in map(client.get_logged_model, [*made, external.model_id])},
        "where": {query: refused(lambda query=query: sorted(names(filter_string=query))) for query in queries},
        "by acc": names(filter_string="name LIKE 'tree%'", order_by=[{"field_name": "metrics.acc", "ascending": False}]),
        "by name": names(order_by=[{"field_name": "name"}]),
        "by time": names(order_by=[{"field_name": "creation_timestamp", "ascending": True}]),
        "default": names(),
        "of data": sorted(names(filter_string="metrics.acc > 0.1", datasets=[{"dataset_name": "points"}])),
        "of other data": names(filter_string="metrics.acc > 0.1", datasets=[{"dataset_name": "others"}]),
        "files": [(item.path, item.file_size) for item in client.list_logged_model_artifacts(made[1])],
        "bad names": [refused(client.create_logged_model, where, bad) for bad in ("a/b", "a:b", "a.b", "a%b", "'")],
        "unknown": refused(client.get_logged_model, "m-" + "0" * 32),
        "missing tag": refused(client.delete_logged_model_tag, made[1], "never there"),
        "param again": [refused(client.log_model_params, made[1], {"late": value}) for value in ("1", "2")],
        "frame": sorted(mlflow.search_logged_models(experiment_ids=[where], output_format="pandas")["name"]),
        "run": read(client.search_runs([where], "run_name = 'logs 1'")[0].info.run_id),
    }
    first = client.search_logged_models([where], max_results=2, order_by=[{"field_name": "name", "ascending": True}])
    second = client.search_logged_models(
        [where], max_results=2, order_by=[{"field_name": "name", "ascending": True}], page_token=first.token
    )
    found["pages"] = [[item.name for item in first], [item.name for item in second], bool(second.token)]
    version = mlflow.register_model(f"models:/{made[1]}", f"{PREFIX} from logged")
    found["registered"] = [
        described(version),
        json.loads(mlflow.get_logged_model(made[1]).tags["mlflow.modelVersions"])[0]["version"],
    ]
    client.delete_logged_model(made[2])
    found["deleted"] = [refused(client.get_logged_model, made[2]), sorted(names())]
    return found


@section(3)
def lineage():
    mlflow.set_experiment(f"{PREFIX} lineage")
    model = mlflow.create_external_model("source")
    with mlflow.start_run(run_name="evaluates") as run:
        mlflow.log_input(model=mlflow.entities.LoggedModelInput(model.model_id))
        mlflow.log_outputs(models=[mlflow.entities.LoggedModelOutput(model.model_id, 3)])
    return read(run.info.run_id)


@section()
def autologging():
    from sklearn.model_selection import GridSearchCV

    mlflow.set_experiment(f"{PREFIX} auto")
    mlflow.sklearn.autolog(max_tuning_runs=2, log_models=False)  # requirements of each model would be found out for seconds
    with mlflow.start_run(run_name="search") as run:
        GridSearchCV(ElasticNet(), {"alpha": [0.1, 0.5, 1.0]}, cv=2).fit(X, Y)
    mlflow.sklearn.autolog(log_input_examples=True)
    with mlflow.start_run(run_name="single") as single:
        ElasticNet(alpha=0.3).fit(X, Y).score(X, Y)
    mlflow.sklearn.autolog(disable=True)
    children = client.search_runs(
        [experiment("auto")], f"tags.mlflow.parentRunId = '{run.info.run_id}'", order_by=["params.alpha"]
    )
    parent = read(run.info.run_id)
    for volatile in ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time"):
        for document in (parent, *map(shown, children)):
            document["metrics"].pop(volatile, None)
    best = mlflow.sklearn.load_model(f"runs:/{single.info.run_id}/model")
    return {
        "parent": {key: parent[key] for key in ("status", "params", "metrics", "tags")}
        | {"data": len(parent.get("datasets", []))},
        "children": [(sorted(item.data.params.items()), item.data.metrics["mean_test_score"]) for item in children],
        "files": [name for name, _ in files(run.info.run_id)],
        "single": {key: value for key, value in read(single.info.run_id).items() if key != "datasets"},
        "single files": [name for name, _ in files(single.info.run_id)],
        "loaded": best.alpha,
    }


@section(3)
def prompts():
    """Prompts of the registry are registered models with tags: nothing more is asked of a server."""
    name = f"{PREFIX}-prompt"
    made = mlflow.genai.register_prompt(name, "Say {{word}}", commit_message="first", tags={"k": "v"})
    mlflow.genai.register_prompt(name, "Say {{word}} twice")
    mlflow.genai.set_prompt_alias(name, "live", 1)
    loaded = mlflow.genai.load_prompt(f"prompts:/{name}@live")
    return {
        "version": made.version,
        "loaded": [loaded.template, loaded.version, loaded.commit_message, loaded.format(word="hi")],
        "second": mlflow.genai.load_prompt(name, version=2).template,
        "no model": [item.name for item in client.search_registered_models(f"name LIKE '{PREFIX}-p%'")],
    }


@section(3)
def traced():
    """A server without traces costs a traced function nothing but a warning."""
    where = mlflow.set_experiment(f"{PREFIX} traced")

    @mlflow.trace
    def double(number):
        return 2 * number

    with mlflow.start_run(run_name="traced", experiment_id=where.experiment_id) as run:
        answer = double(21)
        mlflow.log_metric("answer", answer)
    mlflow.flush_trace_async_logging()
    return {"answer": answer, "run": read(run.info.run_id)}


main()
