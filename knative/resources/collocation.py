"""Transformer and predictor in one pod: KServe's `transformer-container`, or an annotation.

KServe's way is a container of that name under `predictor`, beside `model:` or the predictor's own
container. The annotation `turnout.dev/collocate: "true"` moves an ordinary `transformer:` there.
Requests come to the transformer; the predictor listens on the pod's loopback.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api.problems import Path
from knative.api.resource import Resource
from knative.resources import container, protocol, ready_made

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

PREDICTOR_PORT = 8085
"""Where the predictor of such a pod listens unless the transformer says otherwise (KServe's
samples)."""

WAIT_S = 600
"""How long our transformer waits for the predictor: Knative's own limit for a start."""

_LOOPBACK = re.compile(r"(?:\w+://)?(?:localhost|127\.0\.0\.1|\[::1\]):(\d{1,5})/?\Z")
_HOST_FLAGS = ("--predictor_host", "--predictor-host")


def applied(resource: Resource, context: "Context") -> Resource:
    """The resource with its transformer among the predictor's containers, where the annotation
    asks for it."""
    given = resource.annotations.get(keys.COLLOCATE)
    path: Path = ("metadata", "annotations", keys.COLLOCATE)
    report = context.report(resource)
    if given not in (None, "true", "false"):
        report.error(path, f'must be "true" or "false", not "{given}"')
    if given != "true":
        return resource
    report.extension(path, keys.COLLOCATE)
    spec = dict(resource.spec)
    transformer = spec.pop("transformer", None)
    if transformer is None:
        report.warning(path, "has no effect: there is no transformer")
        return resource
    for field in ("storageUris", "logger", "batcher", "canaryTrafficPercent"):
        if transformer.get(field) is not None:
            report.error(
                ("spec", "transformer", field),
                f"{field} cannot be had for a container of the predictor's pod: leave it out, or"
                f" remove the annotation {keys.COLLOCATE}",
            )
    first, *others = transformer["containers"]
    first = completed(resource, context, first, ("spec", "transformer", "containers", 0))
    if container.env_value(first, "STORAGE_URI"):
        report.error(
            ("spec", "transformer", "containers", 0, "env"),
            "the pod has one /mnt/models, the model's: put the transformer's files beside the"
            " model, or into its image",
        )
    spec["predictor"] = _together(spec["predictor"], transformer, first, others)
    return dataclasses.replace(resource, data={**resource.data, "spec": spec})


def _together(
    predictor: Mapping[str, JSON],
    transformer: Mapping[str, JSON],
    first: Mapping[str, JSON],
    others: list[Object],
) -> Object:
    """The predictor's fields win; lists of containers and volumes are joined."""
    containers = [
        *(predictor.get("containers") or []),
        {**first, "name": names.TRANSFORMER_CONTAINER},
        *others,
    ]
    joined = {
        key: [*(predictor.get(key) or []), *(transformer.get(key) or [])]
        for key in ("initContainers", "volumes")
        if predictor.get(key) or transformer.get(key)
    }
    return {**transformer, **predictor, **joined, "containers": containers}


def completed(
    resource: Resource, context: "Context", given: Mapping[str, JSON], path: Path
) -> Object:
    """A transformer's container that names no image but says what our server should do: it runs
    our server. An extension: KServe would want the image."""
    if not container.wants_ours(given):
        if not given.get("image"):
            context.report(resource).error(
                (*path, "image"),
                "is required; or leave out command, too, and say what Turnout's own server does:"
                " --transformer=image|tokenize|json, or --model-class=FILE.py:CLASS",
            )
        return dict(given)
    report = context.report(resource)
    report.extension(path, "a transformer container without image")
    for problem in ready_made.problems(given):
        report.error((*path, "args"), problem)
    image = context.options.image("functions", "transformer")
    return {**given, "image": image, "command": ["python", "-m", "functions"]}


def front(containers: list[Mapping[str, JSON]]) -> int | None:
    """Position of the transformer among a predictor's containers."""
    given = [item.get("name") for item in containers]
    wanted = names.TRANSFORMER_CONTAINER
    return given.index(wanted) if wanted in given else None


def port(transformer: Mapping[str, JSON]) -> int:
    """The loopback port that the transformer calls."""
    match = _LOOPBACK.match(container.flag_value(transformer, *_HOST_FLAGS))
    return int(match[1]) if match else PREDICTOR_PORT


def wired(
    resource: Resource, context: "Context", transformer: Mapping[str, JSON], *, ours: bool
) -> Object:
    """The transformer's container, told the model's name and where the predictor is."""
    wanted = [
        ("model_name", protocol.model_name(resource)),
        ("predictor_host", f"localhost:{port(transformer)}"),
    ]
    spoken = protocol.of_predictor(resource, context)
    if ours or spoken != "v1":
        wanted.append(("predictor_protocol", spoken))
    if ours:
        wanted.append(("predictor_wait_s", str(WAIT_S)))
    if container.is_ready_made(transformer):
        wanted.append(("model_dir", names.MODEL_DIR))
    return with_flags(transformer, wanted, ours=ours)


def with_flags(given: Mapping[str, JSON], wanted: list[tuple[str, str]], *, ours: bool) -> Object:
    """A container with further arguments, where the user gave none: `--model-name` for our server,
    KServe's `--model_name` for others."""
    words: list[str] = []
    for flag, value in wanted:
        spellings = (f"--{flag}", f"--{flag.replace('_', '-')}")
        if not container.flag_value(given, *spellings):
            words += [spellings[1] if ours else spellings[0], value]
    return {**given, "args": [*(given.get("args") or []), *words]}


def behind(serving: Mapping[str, JSON], number: int, *, ours: bool) -> Object:
    """A predictor's container as the inner one of a pod: no port of its own, on loopback.

    Probes go, too: Knative asks the container with the port, and ours waits for the predictor.
    """
    hidden = {
        key: value
        for key, value in serving.items()
        if key not in ("ports", "readinessProbe", "livenessProbe", "startupProbe")
    }
    args = list(hidden.get("args") or [])
    if ours:
        # The ports that it listens on besides (gRPC, or health beside gRPC) are the transformer's.
        own = [("port", str(number)), ("host", "127.0.0.1"), ("grpc_port", "0")]
        return container.tidy(with_flags(hidden, own, ours=True))
    if number != container.DEFAULT_PORT:
        from knative.local import port_words

        hidden["args"] = port_words.replace_port(args, container.DEFAULT_PORT, number)
        hidden["env"] = [_moved(entry, number) for entry in hidden.get("env") or []]
    return container.tidy(hidden)


def _moved(entry: Object, number: int) -> Object:
    """MLSERVER_HTTP_PORT and the like."""
    is_port = "PORT" in entry["name"].upper()
    same = str(entry.get("value") or "") == str(container.DEFAULT_PORT)
    return {**entry, "value": str(number)} if is_port and same else entry


def behind_other(serving: Mapping[str, JSON], number: int) -> Object:
    """A container of KServe's as the inner one: its port becomes `number`.

    One that serves gRPC there has an HTTP port besides, which would be the transformer's: it gets
    the next number.
    """
    ports = serving.get("ports") or [{}]
    declared = int(ports[0].get("containerPort") or container.DEFAULT_PORT)
    if declared == container.DEFAULT_PORT:
        return behind(serving, number, ours=False)
    from knative.local import port_words

    args = port_words.replace_port(serving.get("args") or [], declared, number)
    return behind({**serving, "args": args}, number + 1, ours=False)
