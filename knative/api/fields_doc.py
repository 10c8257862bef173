"""docs/fields.md from the field tables: what becomes of every field of every kind we read."""

from collections.abc import Iterator, Mapping

from knative import keys
from knative.api import (
    inference_graph,
    inference_service,
    kinds,
    knative_service,
    seldon,
    seldon_words,
    serving_runtime,
)
from knative.api.schema import Field, Lazy, Listing, Obj, Table, Type, Verdict

HEADER = """\
# What becomes of every field

Generated from the field tables in `knative/api` by
`python -m knative.api.fields_doc > docs/fields.md`; a test compares them. Fields that are not
listed are errors, with a suggestion when one is close.

| mark | meaning |
|---|---|
| maps | it reaches the Knative manifests as said |
| flag | it does, and Knative must have the named feature flag on (`config-features`) |
| warns | accepted, has no effect, and the compiler says so |
| refused | an error, because Knative or Turnout cannot do it; the reason is the message |
"""

SECTIONS: tuple[tuple[str, str, Mapping[str, Field]], ...] = (
    ("InferenceService", "serving.kserve.io/v1beta1", inference_service.SPEC.fields),
    ("InferenceGraph", "serving.kserve.io/v1alpha1", inference_graph.SPEC.fields),
    (
        "ServingRuntime, ClusterServingRuntime",
        "serving.kserve.io/v1alpha1",
        serving_runtime.SPEC.fields,
    ),
    ("SeldonDeployment", "machinelearning.seldon.io/v1, v1alpha2, v1alpha3", seldon.SPEC.fields),
    ("Service", "serving.knative.dev/v1, passed through", knative_service.SPEC.fields),
)


def render() -> str:
    """The whole document."""
    parts = [HEADER]
    shown: set[str] = set()
    for title, versions, fields in SECTIONS:
        parts.append(f"\n## {title} (`{versions}`)\n\n")
        parts.append(_rows("spec", fields, shown))
        if title == "InferenceGraph":
            parts.append("\nNodes and steps are the router's grammar: see [graph.md](graph.md).\n")
    parts.append(_annotations())
    known = ", ".join(dict.fromkeys(k.name for k in kinds.KINDS))
    parts.append(f"\nKinds read: {known}.\n")
    return "".join(parts)


ANNOTATIONS: tuple[tuple[str, str, str], ...] = (
    (
        keys.VISIBILITY,
        "`public`, `cluster-local`",
        "who may call it; default: public if nothing else in the input calls it",
    ),
    (keys.RUNTIME, "`functions`, `stock`", "Turnout's server or KServe's container for the format"),
    (keys.MODEL_SIZE, "a quantity, `30Gi`", "sizes the model volume and the progress deadline"),
    (keys.IMAGE_VOLUME, "`true`", "mounts an `oci://` model as an image volume (a Knative flag)"),
    (keys.STABLE_REVISION, "a revision", "gets what canaryTrafficPercent leaves"),
    (keys.KSERVE_STOP, "`true`", "no Service is made"),
    (keys.KSERVE_TAG_ROUTING, "`true`", "a canary gets the tag `latest`"),
    (keys.KSERVE_STORAGE_SECRET, "a Secret", "credentials of the fetch"),
    (keys.KSERVE_STORAGE_READONLY, "`false`", "the server may write to /mnt/models"),
    (
        f"{keys.KSERVE_S3_PREFIX}endpoint",
        "host or URL",
        "and -usehttps, -region, -verifyssl,"
        " -usevirtualbucket, -useaccelerate, -useanoncredential, -cabundle, -cabundle-configmap",
    ),
    (seldon_words.REST_TIMEOUT, "milliseconds", "time limit of each call of a node"),
    (seldon_words.NO_STORAGE_INITIALIZER, "`true`", "Triton reads its repository from modelUri"),
    (f"{seldon_words.ENGINE_PREFIX}…", "", "`seldon.io/engine-some-name` is env SOME_NAME"),
    (keys.ROLLOUT_DURATION, "a duration", "moves to the Service's own annotations"),
    (
        f"{keys.AUTOSCALING}…",
        "",
        "reach the revision; the fields above win over min-scale, max-scale",
    ),
    (
        keys.COLLOCATE,
        "`true`",
        "the transformer runs in the pod of its predictor; a SeldonDeployment's nodes in the pod of"
        " their router (an extension: `--strict` refuses it)",
    ),
    (
        keys.GRPC,
        "`true`",
        "a graph's router gets a second Service, `NAME-grpc`, for clients that use gRPC; on a"
        " SeldonDeployment `transport: grpc` makes it, too, unless this says `false` (an extension:"
        " `--strict` refuses it)",
    ),
)
"""Annotations on source manifests that mean something to the compiler; all others reach the
revision."""


def _annotations() -> str:
    rows = "".join(f"| `{key}` | {values} | {text} |\n" for key, values, text in ANNOTATIONS)
    return f"\n## Annotations\n\n| annotation | values | meaning |\n|---|---|---|\n{rows}"


def _rows(path: str, fields: Mapping[str, Field], shown: set[str]) -> str:
    """One table for an object, then the tables of the objects below it that were not shown yet."""
    lines = ["| field | | becomes |", "|---|---|---|"]
    below: list[tuple[str, Obj]] = []
    for name, field in fields.items():
        if field.verdict is Verdict.SILENT:
            continue
        lines.append(f"| `{path}.{name}` | {_mark(field)} | {_text(field)} |")
        if field.verdict is Verdict.MAPS:
            below += [(f"{path}.{name}{suffix}", obj) for suffix, obj in _objects(field.type)]
    text = "\n".join(lines) + "\n"
    for inner, obj in below:
        if obj.name in shown:
            continue
        shown.add(obj.name)
        text += f"\n### `{inner}` ({obj.name})\n\n{_rows(_short(inner), obj.fields, shown)}"
    return text


def _short(path: str) -> str:
    """Deep paths are cut at the front: the heading above the table says the whole one."""
    parts = path.split(".")
    return path if len(parts) <= 3 else "…" + ".".join(parts[-2:])


def _objects(type_: Type) -> Iterator[tuple[str, Obj]]:
    match type_:
        case Obj():
            yield "", type_
        case Listing():
            yield from ((f"[]{suffix}", obj) for suffix, obj in _objects(type_.of))
        case Table():
            yield from ((f".*{suffix}", obj) for suffix, obj in _objects(type_.of))
        case Lazy():
            yield from _objects(type_.get())
        case _:
            return


def _mark(field: Field) -> str:
    if field.verdict is Verdict.IGNORED:
        return "warns"
    if field.verdict is Verdict.REFUSED:
        return "refused"
    return "flag" if field.flag else "maps"


def _text(field: Field) -> str:
    words = field.becomes or field.why or "as given"
    if field.flag:
        words += f" (`{field.flag}`)"
    if field.required:
        words += "; required"
    return words.replace("|", "\\|")


if __name__ == "__main__":
    import sys

    sys.stdout.write(render())
