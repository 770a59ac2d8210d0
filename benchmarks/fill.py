"""Put N finished runs into the store of RUNPROJ_HOME, as `runproj run` would have recorded them."""

from __future__ import annotations

import os
import sys
import time
import uuid

from runproj.core.run import Metric, NewRun, Param, RunChanges, RunStatus, Tag
from runproj.settings import load
from runproj.tracking import open_store

settings = load()
store = open_store(settings.tracking_uri, home=settings.home, environ=os.environ)
experiment = store.experiment("Default")
now = int(time.time() * 1000)
for number in range(int(sys.argv[1])):
    params = tuple(Param(f"param_{index}", str(number * index)) for index in range(6))
    tags = (
        Tag("mlflow.source.name", "https://example.org/project.git"),
        Tag("mlflow.source.git.commit", uuid.uuid4().hex + "00000000"),
        Tag("mlflow.project.entryPoint", "main"),
    )
    begin = now - 60_000 * number
    run = store.create_run(NewRun(experiment.id, begin, id=uuid.uuid4().hex, user="someone", params=params, tags=tags))
    metrics = tuple(Metric(f"metric_{index}", number / (index + 1), begin + 500) for index in range(4))
    store.update(run.id, RunChanges(status=RunStatus.FINISHED, end=begin + 1000, metrics=metrics))
