"""The table of settings: one row each. `settings.py` reads flags and environment by it.

A row is the flag, the variable, the parser, the default and the sentence of `--help`; the field of
the same name is in `settings.Settings`.
"""

from . import options as o

RUNTIMES = (
    "python",
    "pytorch",
    "sklearn",
    "xgboost",
    "lightgbm",
    "onnx",
    "mlflow",
    "tensorflow",
    "huggingface",
)

OPTIONS: tuple[o.Option, ...] = (
    o.Option(
        name="model_name",
        env="MODEL_NAME",
        parse=o.model_name,
        default="model",
        help="name under which the model is served",
    ),
    o.Option(
        name="model_dir",
        env="MODEL_DIR",
        parse=o.text,
        default="",
        help="directory with the model's artifacts",
    ),
    o.Option(
        name="runtime",
        env="FUNCTIONS_RUNTIME",
        parse=o.choice(*RUNTIMES),
        default="",
        help="how to load the artifacts; unset: detected from them",
    ),
    o.Option(
        name="model_class",
        env="FUNCTIONS_MODEL_CLASS",
        parse=o.text,
        default="",
        help="module:Class, package.module.Class or file.py:Class of a Python model or transformer",
    ),
    o.Option(
        name="transformer",
        env="FUNCTIONS_TRANSFORMER",
        parse=o.choice("image", "tokenize", "json"),
        default="",
        help="a ready-made transformer in front of --predictor-host, configured by --param",
    ),
    o.Option(
        name="transformer_config",
        env="FUNCTIONS_TRANSFORMER_CONFIG",
        parse=o.text,
        default="",
        help="its parameters in a YAML or JSON file, or as JSON text; --param wins",
    ),
    o.Option(
        name="param",
        env="FUNCTIONS_PARAMS",
        default=(),
        repeat=True,
        parse=o.named(o.text, "KEY=VALUE"),
        help="keyword argument for the Python class, or parameter of the runtime or transformer",
    ),
    o.Option(
        name="model",
        env="FUNCTIONS_MODELS",
        default=(),
        repeat=True,
        parse=o.named(o.text, "NAME, NAME=DIRECTORY or NAME=RUNTIME:DIRECTORY", bare=True),
        help=(
            "one more model in this server: NAME=DIRECTORY, NAME=RUNTIME:DIRECTORY,"
            " NAME=python:module:Class, or NAME alone with the same class and directory as the"
            " main one"
        ),
    ),
    o.Option(
        name="repository",
        env="FUNCTIONS_REPOSITORY",
        parse=o.text,
        default="",
        help=(
            "directory of model directories: all are served, later ones can be loaded through"
            " the V2 repository API"
        ),
    ),
    o.Option(
        name="protocol",
        env="FUNCTIONS_PROTOCOL",
        default=("v1", "v2"),
        parse=o.choices("v1", "v2", "tensorflow", "seldon", "grpc-v2", "grpc-v1", "grpc-seldon"),
        help=(
            "protocols to serve; grpc-v1 is TensorFlow Serving's, seldon and grpc-seldon are the"
            " REST and gRPC API of Seldon's Python wrapper"
        ),
    ),
    o.Option(
        name="host",
        env="FUNCTIONS_HOST",
        parse=o.text,
        default="0.0.0.0",  # noqa: S104 - a container's listener
        help="address to listen on",
    ),
    o.Option(
        name="port",
        env="PORT",
        parse=o.whole(0, 65535),
        default=8080,
        aliases=("http-port",),
        help="HTTP port (gRPC's, if only gRPC is served); 0 lets the system choose",
    ),
    o.Option(
        name="grpc_port",
        env="FUNCTIONS_GRPC_PORT",
        parse=o.whole(0, 65535),
        default=8081,
        help="gRPC port when HTTP is served too",
    ),
    o.Option(
        name="grpc_max_streams",
        env="FUNCTIONS_GRPC_MAX_STREAMS",
        parse=o.whole(1, 100_000),
        default=1000,
        help="gRPC calls at once on one connection; clients wait with further ones",
    ),
    o.Option(
        name="metrics_port",
        env="FUNCTIONS_METRICS_PORT",
        parse=o.whole(-1, 65535),
        default=-1,
        help=(
            "port of /metrics and /readyz for scrapers (besides the main port); -1: none, 0:"
            " chosen by the system"
        ),
    ),
    o.Option(
        name="predictor_host",
        env="FUNCTIONS_PREDICTOR_HOST",
        parse=o.stripped,
        default="",
        help="host[:port] or URL of the predictor behind this transformer",
    ),
    o.Option(
        name="model_predictor",
        env="FUNCTIONS_MODEL_PREDICTORS",
        parse=o.named(o.stripped, "NAME=HOST[:PORT] or NAME=URL"),
        default=(),
        repeat=True,
        help="another predictor for one model of this server, instead of --predictor-host",
    ),
    o.Option(
        name="predictor_protocol",
        env="FUNCTIONS_PREDICTOR_PROTOCOL",
        parse=o.choice("auto", "v1", "v2", "grpc-v2"),
        default="auto",
        help=(
            "protocol spoken to the predictor; auto: V1 documents as V1, InferRequests as V2 if it"
            " speaks that. KServe's --protocol means this one too, where it is the only one given"
        ),
    ),
    o.Option(
        name="predictor_binary",
        env="FUNCTIONS_PREDICTOR_BINARY",
        parse=o.boolean,
        default=True,
        help="send V2 tensors as binary data; a predictor that refuses them gets JSON. false: JSON",
    ),
    o.Option(
        name="predictor_use_ssl",
        env="FUNCTIONS_PREDICTOR_USE_SSL",
        parse=o.boolean,
        default=False,
        help="TLS to the predictor (or give it as https://HOST)",
    ),
    o.Option(
        name="predictor_ca_file",
        env="FUNCTIONS_PREDICTOR_CA_FILE",
        parse=o.text,
        default="",
        help="PEM file of the authorities that may vouch for the predictor; unset: the system's",
    ),
    o.Option(
        name="predictor_verify",
        env="FUNCTIONS_PREDICTOR_VERIFY",
        parse=o.boolean,
        default=True,
        help="check the predictor's certificate and its name",
    ),
    o.Option(
        name="predictor_timeout_s",
        env="FUNCTIONS_PREDICTOR_TIMEOUT_S",
        parse=o.number(0.001, 86400),
        default=60.0,
        aliases=("predictor-request-timeout-seconds",),
        help=(
            "seconds the predictor may take, tries and waking included; never more than the"
            " caller has left (gRPC's deadline; headers grpc-timeout,"
            " x-envoy-expected-rq-timeout-ms)"
        ),
    ),
    o.Option(
        name="predictor_wait_s",
        env="FUNCTIONS_PREDICTOR_WAIT_S",
        parse=o.number(0, 86400),
        default=0.0,
        help=(
            "seconds to wait at the start for a predictor in the same pod to be ready; 0: be ready"
            " without it"
        ),
    ),
    o.Option(
        name="predictor_retries",
        env="FUNCTIONS_PREDICTOR_RETRIES",
        parse=o.whole(0, 10),
        default=1,
        aliases=("predictor-request-retries",),
        help="further tries when a predictor that is awake refused the connection or answered 503",
    ),
    o.Option(
        name="predictor_wake_s",
        env="FUNCTIONS_PREDICTOR_WAKE_S",
        parse=o.number(0, 3600),
        default=10.0,
        help="seconds that a predictor which has not answered lately gets to wake up",
    ),
    o.Option(
        name="predictor_headers",
        env="FUNCTIONS_PREDICTOR_HEADERS",
        parse=o.header_names,
        default=(),
        help=(
            "further request headers that are sent on to the predictor, comma-separated; x-a-* is"
            " a prefix (always: authorization, x-request-id, traceparent, tracestate, baggage,"
            " b3, x-b3-*)"
        ),
    ),
    o.Option(
        name="predictor_connections",
        env="FUNCTIONS_PREDICTOR_CONNECTIONS",
        parse=o.whole(1, 65536),
        default=1024,
        help="connections to the predictor at once; further calls wait for a free one",
    ),
    o.Option(
        name="storage_uri",
        env="STORAGE_URI",
        parse=o.text,
        default="",
        help="fetched into --model-dir before loading when that directory is empty",
    ),
    o.Option(
        name="workers",
        env="FUNCTIONS_WORKERS",
        parse=o.whole(1, 256),
        default=1,
        help="processes sharing the port, each with the model",
    ),
    o.Option(
        name="preload",
        env="FUNCTIONS_PRELOAD",
        parse=o.boolean,
        default=False,
        help="load before forking the workers, which then share the model's memory",
    ),
    o.Option(
        name="threads",
        env="FUNCTIONS_THREADS",
        parse=o.whole(0, 1024),
        default=0,
        help="model calls at once in one process; 0: chosen by the runtime",
    ),
    o.Option(
        name="cpu_threads",
        env="FUNCTIONS_CPU_THREADS",
        parse=o.whole(0, 1024),
        default=0,
        help="threads a numeric library may use for one call; 0: the container's CPU quota",
    ),
    o.Option(
        name="keep_freed_mb",
        env="FUNCTIONS_KEEP_FREED_MB",
        parse=o.whole(0, 2047),
        default=64,
        help=(
            "freed memory a thread keeps for its next model call, in MB (over 64: blocks of more"
            " than 32 MB, too); 0: as the C library does by itself"
        ),
    ),
    o.Option(
        name="max_body_bytes",
        env="FUNCTIONS_MAX_BODY_BYTES",
        parse=o.byte_size,
        default=256 << 20,
        help="largest request body (and gRPC message)",
    ),
    o.Option(
        name="max_concurrency",
        env="FUNCTIONS_MAX_CONCURRENCY",
        parse=o.whole(0, 1_000_000),
        default=1000,
        help="requests in progress or waiting before 503 with Retry-After; 0: no limit",
    ),
    o.Option(
        name="timeout_s",
        env="FUNCTIONS_TIMEOUT_S",
        parse=o.number(0, 86400),
        default=300.0,
        help="seconds one model call may take before 504; 0: no limit",
    ),
    o.Option(
        name="health_timeout_s",
        env="FUNCTIONS_HEALTH_TIMEOUT_S",
        parse=o.number(0.01, 3600),
        default=0.9,
        help=(
            "seconds a model's healthy() may take before the model counts as not ready; probes of"
            " Kubernetes wait 1 s unless told otherwise"
        ),
    ),
    o.Option(
        name="drain_s",
        env="FUNCTIONS_DRAIN_S",
        parse=o.number(0, 3600),
        default=30.0,
        help="seconds that requests in progress get after SIGTERM",
    ),
    o.Option(
        name="max_batch_size",
        env="FUNCTIONS_MAX_BATCH_SIZE",
        parse=o.whole(1, 65536),
        default=1,
        help="instances joined into one model call; 1 turns batching off",
    ),
    o.Option(
        name="max_batch_latency_ms",
        env="FUNCTIONS_MAX_BATCH_LATENCY_MS",
        parse=o.number(0, 60000),
        default=5.0,
        help="longest wait for a batch to fill; 0 joins only what already waits",
    ),
    o.Option(
        name="logger_url",
        env="FUNCTIONS_LOGGER_URL",
        parse=o.url,
        default="",
        help="where request and response bodies are sent as CloudEvents",
    ),
    o.Option(
        name="logger_mode",
        env="FUNCTIONS_LOGGER_MODE",
        parse=o.choice("all", "request", "response"),
        default="all",
        help="which bodies are sent to --logger-url",
    ),
    o.Option(
        name="allow_pickle",
        env="FUNCTIONS_ALLOW_PICKLE",
        parse=o.boolean,
        default=True,
        help=(
            "load formats that can run code while loading (pickle, joblib, .pt, mlflow python"
            " models)"
        ),
    ),
    o.Option(
        name="predict_proba",
        env="PREDICT_PROBA",
        parse=o.boolean,
        default=False,
        help="sklearn: probabilities instead of classes, where the model has them, as in KServe",
    ),
    o.Option(
        name="warmup",
        env="FUNCTIONS_WARMUP",
        parse=o.boolean,
        default=True,
        help="send the artifact's warm-up requests before readiness",
    ),
    o.Option(
        name="version_policy",
        env="FUNCTIONS_VERSION_POLICY",
        parse=o.text,
        default="latest:1",
        help="tensorflow: latest:N, all, or specific:1,2",
    ),
    o.Option(
        name="poll_s",
        env="FUNCTIONS_POLL_S",
        parse=o.number(-1, 86400),
        default=1.0,
        help="tensorflow: seconds between looks for new version directories; 0: once, -1: never",
    ),
    o.Option(
        name="ce_type",
        env="CE_TYPE",
        parse=o.text,
        default="io.kserve.inference.response",
        help="type of reply CloudEvents",
    ),
    o.Option(
        name="ce_source",
        env="CE_SOURCE",
        parse=o.text,
        default="",
        help="source of reply CloudEvents; unset: io.kserve.inference.MODEL",
    ),
    o.Option(
        name="ce_merge",
        env="CE_MERGE",
        parse=o.boolean,
        default=False,
        help="copy the request event's attributes (not id and time) to the reply",
    ),
    o.Option(
        name="log_config_file",
        env="FUNCTIONS_LOG_CONFIG_FILE",
        parse=o.text,
        default="",
        help="logging configuration of Python's: .json or .yaml (dictConfig), else fileConfig",
    ),
    o.Option(
        name="log_level",
        env="FUNCTIONS_LOG_LEVEL",
        parse=o.choice("DEBUG", "INFO", "WARNING", "ERROR"),
        default="INFO",
        help="least severe log line written",
    ),
)
