# The requests of MLflow's R client, made with the packages that it uses itself: httr, jsonlite, base64enc.
# Every scalar travels as a string, runs are named by run_uuid as well as by run_id, and the id of a new run is read from run_uuid.
# The last line printed is one JSON object: what was read back.

library(httr)

base <- file.path(Sys.getenv("MLFLOW_TRACKING_URI"), "api/2.0/mlflow")
agent <- list(`User-Agent` = "mlflow-r-client/3.1.0")
if (nzchar(Sys.getenv("MLFLOW_TRACKING_USERNAME"))) {
  pair <- paste(Sys.getenv("MLFLOW_TRACKING_USERNAME"), Sys.getenv("MLFLOW_TRACKING_PASSWORD"), sep = ":")
  agent$Authorization <- paste("Basic", base64enc::base64encode(charToRaw(pair)))
}

rest <- function(..., verb = "GET", query = NULL, data = NULL, root = base) {
  url <- file.path(root, paste(c(...), collapse = "/"))
  headers <- do.call(add_headers, agent)
  strings <- if (is.null(data)) NULL else rapply(data, as.character, how = "replace")
  answer <- switch(verb,
    GET = GET(url, query = query, headers),
    POST = POST(url, body = strings, encode = "json", headers),
    PATCH = PATCH(url, body = strings, encode = "json", headers),
    DELETE = DELETE(url, body = strings, encode = "json", headers)
  )
  text <- content(answer, "text", encoding = "UTF-8")
  if (answer$status_code != 200) stop(paste(answer$status_code, text), call. = FALSE)
  jsonlite::fromJSON(text, simplifyVector = FALSE)
}

refused <- function(expression) tryCatch({ expression; "accepted" }, error = function(problem) substr(conditionMessage(problem), 1, 3))
now <- function() round(as.numeric(Sys.time()) * 1000)
values <- function(items) setNames(lapply(items, function(item) item$value), sapply(items, function(item) item$key))

experiment <- rest("experiments", "create", verb = "POST", data = list(name = "from R", artifact_location = NULL))$experiment_id
rest("experiments", "set-experiment-tag", verb = "POST", data = list(experiment_id = experiment, key = "lang", value = "R"))
rest("experiments", "update", verb = "POST", data = list(experiment_id = experiment, new_name = "from R, renamed"))
listed <- rest("experiments", "search", verb = "POST", data = list(view_type = "ACTIVE_ONLY", max_results = 1000))
named <- rest("experiments", "get-by-name", query = list(experiment_name = "from R, renamed"))$experiment

tags <- unname(list(list(key = "mlflow.user", value = "tester"), list(key = "mlflow.source.type", value = "LOCAL")))
created <- rest("runs", "create", verb = "POST", data = list(
  experiment_id = experiment, user_id = "tester", run_name = NULL, start_time = now(), tags = tags
))
run <- created$run$info$run_uuid
point <- function(key, value, step) {
  rest("runs", "log-metric", verb = "POST", data = list(
    run_uuid = run, run_id = run, key = key, value = value, timestamp = now(), step = step
  ))
}
for (step in c(1, 2, 100000)) point("rmse", 1 / step, step)
point("nan", "NaN", 0)
point("inf", "Infinity", 0)
point("minus inf", "-Infinity", 0)
point("small", 1e-15, 0)
for (key in c("alpha", "Größe 1")) {
  rest("runs", "log-parameter", verb = "POST", data = list(run_uuid = run, run_id = run, key = key, value = "0.5"))
}
again <- refused(rest("runs", "log-parameter", verb = "POST", data = list(run_uuid = run, run_id = run, key = "alpha", value = "0.6")))
rest("runs", "set-tag", verb = "POST", data = list(run_uuid = run, run_id = run, key = "kind", value = "glm"))
rest("runs", "set-tag", verb = "POST", data = list(run_uuid = run, run_id = run, key = "gone", value = "x"))
rest("runs", "delete-tag", verb = "POST", data = list(run_id = run, key = "gone"))
rest("runs", "log-batch", verb = "POST", data = list(
  run_id = run,
  metrics = data.frame(key = c("b1", "b2"), value = c("0.25", "NaN"), step = c(1, 200000), timestamp = c(1000, 2000)),
  params = data.frame(key = c("p1", "p2"), value = c("x", "it's")),
  tags = data.frame(key = "t1", value = "y")
))
rest("runs", "log-batch", verb = "POST", data = list(run_id = run, metrics = NULL, params = NULL, tags = NULL))
rest("runs", "log-model", verb = "POST", data = list(run_id = run, model_json = jsonlite::toJSON(auto_unbox = TRUE, list(
  artifact_path = "model", run_id = run, utc_time_created = "2024-01-01 00:00:00.000000", flavors = list(crate = list(version = "0.1"))
))))

history <- rest("metrics", "get-history", query = list(run_uuid = run, run_id = run, metric_key = "rmse"))$metrics
found <- rest("runs", "search", verb = "POST", data = list(
  experiment_ids = list(experiment), filter = "params.alpha = '0.5' and metrics.rmse < 0.01", run_view_type = "ACTIVE_ONLY",
  order_by = list("metrics.rmse DESC")
))$runs
files <- rest("artifacts", "list", query = list(run_uuid = run, run_id = run))
ended <- rest("runs", "update", verb = "POST", data = list(run_uuid = run, run_id = run, status = "FINISHED", end_time = now()))
read <- rest("runs", "get", query = list(run_uuid = run, run_id = run))$run

rest("runs", "delete", verb = "POST", data = list(run_id = run))
deleted <- rest("runs", "search", verb = "POST", data = list(experiment_ids = list(experiment), filter = NULL, run_view_type = "DELETED_ONLY"))
rest("runs", "restore", verb = "POST", data = list(run_id = run))
old <- rest("experiments", "get", query = list(experiment_id = experiment),
  root = file.path(Sys.getenv("MLFLOW_TRACKING_URI"), "api/2.0/preview/mlflow"))

rest("registered-models", "create", verb = "POST", data = list(name = "R model", tags = list(list(key = "k", value = "v")), description = "d"))
source <- paste0(read$info$artifact_uri, "/model")
version <- rest("model-versions", "create", verb = "POST", data = list(
  name = "R model", source = source, run_id = run, run_link = NULL, tags = NULL, description = "first"
))$model_version
rest("registered-models", "update", verb = "PATCH", data = list(name = "R model", description = "better"))
rest("model-versions", "update", verb = "PATCH", data = list(name = "R model", version = 1, description = "better"))
rest("registered-models", "alias", verb = "POST", data = list(name = "R model", alias = "best", version = 1))
aliased <- rest("registered-models", "alias", query = list(name = "R model", alias = "best"))$model_version
staged <- rest("model-versions", "transition-stage", verb = "POST", data = list(
  name = "R model", version = 1, stage = "Staging", archive_existing_versions = FALSE
))$model_version
latest <- rest("registered-models", "get-latest-versions", query = list(name = "R model", stages = "Staging"))$model_versions
uri <- rest("model-versions", "get-download-uri", query = list(name = "R model", version = 1))$artifact_uri
searched <- rest("registered-models", "search", verb = "POST", data = list(
  filter = "name = 'R model'", max_results = 100, order_by = list(), page_token = NULL
))$registered_models
model <- rest("registered-models", "rename", verb = "POST", data = list(name = "R model", new_name = "R model 2"))$registered_model
rest("model-versions", "delete", verb = "DELETE", data = list(name = "R model 2", version = 1))
rest("registered-models", "delete", verb = "DELETE", data = list(name = "R model 2"))
rest("experiments", "delete", verb = "POST", data = list(experiment_id = experiment))
gone <- rest("experiments", "get", query = list(experiment_id = experiment))$experiment$lifecycle_stage
rest("experiments", "restore", verb = "POST", data = list(experiment_id = experiment))

result <- list(
  run = run, experiment = named$name, listed = length(listed$experiments) > 0, tags = values(read$data$tags),
  params = values(read$data$params), metrics = values(read$data$metrics),
  history = lapply(history, function(item) list(item$step, item$value)), found = length(found), again = again,
  root = files$root_uri, status = ended$run_info$status, id = ended$run_info$run_uuid, deleted = length(deleted$runs),
  preview = old$experiment$name, version = version$version, stage = staged$current_stage, aliased = aliased$version,
  latest = latest[[1]]$version, uri = uri == source, searched = searched[[1]]$description, renamed = model$name, gone = gone,
  unknown = refused(rest("runs", "get", query = list(run_id = strrep("0", 32))))
)
cat("\nRESULT", jsonlite::toJSON(result, auto_unbox = TRUE, digits = NA), "\n", sep = "")
