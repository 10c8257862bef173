"""Generated files are current, and the schemas agree with the compiler about the golden inputs."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from knative.api import fields_doc, json_schema, schema
from knative.lint import doc as lint_doc

ROOT = Path(__file__).parents[3]
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*/in.yaml"))


def test_field_table_is_current() -> None:
    assert (ROOT / "docs" / "fields.md").read_text() == fields_doc.render()


def test_lint_table_is_current() -> None:
    assert (ROOT / "docs" / "lint.md").read_text() == lint_doc.render()


@pytest.mark.parametrize("name", sorted(json_schema.documents()))
def test_editor_schema_is_current(name: str) -> None:
    expected = json_schema.render(json_schema.documents()[name])
    assert (ROOT / "knative" / "schema" / name).read_text() == expected


def test_no_schema_file_is_left_over() -> None:
    found = {p.name for p in (ROOT / "knative" / "schema").glob("*.json")}
    assert found == set(json_schema.documents())


@pytest.mark.parametrize("file", GOLDEN, ids=lambda p: p.parent.name)
def test_editors_accept_what_the_compiler_accepts(file: Path) -> None:
    if not (file.parent / "out.yaml").exists():
        pytest.skip("refused by the compiler")
    schemas = {d["properties"]["kind"]["const"]: d for d in json_schema.documents().values()}
    for item in yaml.safe_load_all(file.read_text()):
        wanted = schemas.get(item["kind"]) if item else None
        versions = wanted["properties"]["apiVersion"]["enum"] if wanted else []
        if wanted and item["apiVersion"] in versions:
            jsonschema.validate(item, wanted)


def test_editors_refuse_unknown_fields() -> None:
    item = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "x"},
        "spec": {"predictor": {"minReplica": 1}},
    }
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(item, json_schema.documents()["inferenceservice.json"])


def test_objects_that_share_a_name_share_their_fields() -> None:
    seen: dict[str, schema.Obj] = {}

    def walk(type_: schema.Type) -> None:
        if isinstance(type_, schema.Obj):
            assert seen.setdefault(type_.name, type_) is type_
            for field in type_.fields.values():
                walk(field.type)
        elif isinstance(type_, schema.Listing | schema.Table):
            walk(type_.of)

    for _, _, fields in fields_doc.SECTIONS:
        walk(schema.Obj(name=json.dumps(sorted(fields)), fields=fields))
