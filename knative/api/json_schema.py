"""JSON Schema of the source grammars, for editors (completion and squiggles), from the field
tables.

`python -m knative.api.json_schema DIR` writes one file per kind; they are checked in under
`knative/schema` and a test compares. The compiler itself does not use them: its messages are
better.
"""

import json
from typing import Any

from knative.api import (
    inference_graph,
    inference_service,
    knative_service,
    schema,
    seldon,
    serving_runtime,
)
from knative.api.identify import METADATA
from knative.api.schema import Field, Verdict

JSON = Any

_DIALECT = "http://json-schema.org/draft-07/schema#"
_QUANTITY = {"anyOf": [{"type": "string"}, {"type": "number"}]}


def documents() -> dict[str, JSON]:
    """File name -> schema, one per kind that people write by hand."""
    graph_spec = {**inference_graph.SPEC.fields}
    kinds: tuple[tuple[str, tuple[str, ...], dict[str, Field], bool], ...] = (
        ("InferenceService", ("serving.kserve.io/v1beta1",), inference_service.FIELDS, False),
        (
            "InferenceGraph",
            ("serving.kserve.io/v1alpha1",),
            {"spec": Field(type=schema.Obj(name="InferenceGraphSpec", fields=graph_spec))},
            True,
        ),
        ("ServingRuntime", ("serving.kserve.io/v1alpha1",), serving_runtime.FIELDS, False),
        (
            "SeldonDeployment",
            tuple(f"machinelearning.seldon.io/{v}" for v in ("v1", "v1alpha2", "v1alpha3")),
            seldon.FIELDS,
            False,
        ),
        ("Service", ("serving.knative.dev/v1",), knative_service.FIELDS, False),
    )
    return {
        f"{kind.lower()}.json": _document(kind, versions, fields, open_spec=open_spec)
        for kind, versions, fields, open_spec in kinds
    }


def _document(
    kind: str, versions: tuple[str, ...], fields: dict[str, Field], *, open_spec: bool
) -> JSON:
    definitions: dict[str, JSON] = {}
    properties: dict[str, JSON] = {
        "apiVersion": {"enum": list(versions)},
        "kind": {"const": kind},
        "metadata": _convert(METADATA, definitions),
    }
    for name, field in fields.items():
        properties[name] = _field(field, definitions)
    if open_spec:  # nodes and steps are the router's own grammar
        definitions["InferenceGraphSpec"]["additionalProperties"] = True
    return {
        "$schema": _DIALECT,
        "title": f"{kind} as Turnout reads it",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": properties,
        "definitions": dict(sorted(definitions.items())),
    }


def _field(field: Field, definitions: dict[str, JSON]) -> JSON:
    if field.verdict is Verdict.SILENT:
        return {}
    if field.verdict is Verdict.REFUSED:
        return {"not": {}, "description": f"Refused: {field.why}"}
    converted = _convert(field.type, definitions)
    words = f"No effect: {field.why}" if field.verdict is Verdict.IGNORED else field.becomes
    if field.flag:
        words = f"{words or 'As given'} (needs the Knative flag {field.flag})"
    if not words:
        return converted
    if "$ref" in converted:  # draft 7 ignores what stands beside a $ref
        return {"allOf": [converted], "description": words}
    return {**converted, "description": words}


def _convert(type_: schema.Type, definitions: dict[str, JSON]) -> JSON:
    match type_:
        case schema.Obj():
            return _object(type_, definitions)
        case schema.Listing():
            least = {"minItems": type_.min_items} if type_.min_items else {}
            return {"type": "array", "items": _convert(type_.of, definitions), **least}
        case schema.Table():
            return {"type": "object", "additionalProperties": _convert(type_.of, definitions)}
        case schema.Str():
            return _text(type_)
        case schema.Int() | schema.Number():
            kind = "integer" if isinstance(type_, schema.Int) else "number"
            limits = {"minimum": type_.minimum, "maximum": type_.maximum}
            return {"type": kind, **{k: v for k, v in limits.items() if v is not None}}
        case schema.Bool():
            return {"type": "boolean"}
        case schema.Quantity():
            return dict(_QUANTITY)
        case schema.IntOrStr():
            return {"type": ["integer", "string"]}
        case schema.Lazy():
            return _convert(type_.get(), definitions)
        case _:
            return {}


def _text(type_: schema.Str) -> JSON:
    result: dict[str, JSON] = {"type": "string"}
    if type_.enum:
        result["enum"] = list(type_.enum)
    if type_.pattern:
        result["pattern"] = f"^(?:{type_.pattern})$"
    if type_.min_length:
        result["minLength"] = type_.min_length
    if type_.max_length:
        result["maxLength"] = type_.max_length
    return result


def _object(type_: schema.Obj, definitions: dict[str, JSON]) -> JSON:
    reference = {"$ref": f"#/definitions/{type_.name}"}
    if type_.name in definitions:
        return reference
    definitions[type_.name] = {}  # stops recursion
    body: dict[str, JSON] = {
        "type": "object",
        "properties": {name: _field(f, definitions) for name, f in type_.fields.items()},
        "additionalProperties": False,
    }
    required = [name for name, f in type_.fields.items() if f.required]
    if required:
        body["required"] = required
    if type_.one_of:
        body["oneOf"] = [{"required": [name]} for name in type_.one_of]
    definitions[type_.name] = body
    return reference


def render(document: JSON) -> str:
    """Schema text, stable to the byte."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    import pathlib
    import sys

    for name, document in documents().items():
        pathlib.Path(sys.argv[1], name).write_text(render(document), encoding="utf-8")
