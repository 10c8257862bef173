"""The CloudEvents SQL test kit, row by row, when it is at hand; our own rows are in unit/events."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from events.filters import cesql

KIT = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "cesql"
BASE = {
    "specversion": "1.0",
    "id": "id",
    "source": "http://localhost/source",
    "type": "example.type",
}


def rows() -> list[Any]:
    found = []
    for path in sorted(KIT.glob("*.yaml")):
        # BaseLoader for `time`: the kit writes timestamps unquoted and means their text.
        plain = yaml.load(path.read_text(), Loader=yaml.BaseLoader)["tests"]
        for index, row in enumerate(yaml.safe_load(path.read_text())["tests"]):
            row["expression"] = plain[index]["expression"]  # `-10` and `TRUE` are texts here
            for part in ("event", "eventOverrides"):
                if "time" in row.get(part, {}):
                    row[part]["time"] = plain[index][part]["time"]
            if str(row["name"]).startswith("Timestamp"):
                row["result"] = plain[index]["result"]
            found.append(pytest.param(row, id=f"{path.stem}-{row['name']}"))
    return found


@pytest.mark.skipif(not KIT.is_dir(), reason="the CESQL test kit is not beside this checkout")
def test_the_kit_is_complete() -> None:
    assert len(rows()) > 200


@pytest.mark.parametrize("row", rows())
def test_cesql_kit(row: dict[str, Any]) -> None:
    event = row.get("event") or {**BASE, **row.get("eventOverrides", {})}
    try:
        value, error = cesql.evaluate(cesql.parse(row["expression"]), event)
    except cesql.ParseError:
        assert row.get("error") == "parse"
        return
    assert error == row.get("error")
    if "result" in row:
        assert value == row["result"]
        assert type(value) is type(row["result"])
