"""Objects to text: YAML that every reader understands the same way, deterministic to the byte.

PyYAML's own writer leaves strings such as `1e3`, `0o17` or `y` without quotes, which Go readers
take
for numbers or booleans. This writer quotes everything that is not plainly a word.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from knative import keys

JSON = Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@-]*\Z")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"))
"""YAML 1.1 words that are not strings, lower case."""

_TOP = ("apiVersion", "kind", "metadata", "data", "type", "spec")
_HEAD = ("name", "namespace", "labels", "annotations")


def to_yaml(objects: Sequence[dict[str, JSON]]) -> str:
    """All objects as one YAML stream, each with a comment line that names its source manifest."""
    return "---\n".join(_document(o) for o in objects)


def to_json(objects: Sequence[dict[str, JSON]]) -> str:
    """All objects as one `v1 List`, which kubectl applies."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}, indent=2) + "\n"


def _document(value: dict[str, JSON]) -> str:
    source = (value.get("metadata", {}).get("annotations") or {}).get(keys.SOURCE, "")
    comment = f"# {_one_line(source)}\n" if isinstance(source, str) and source else ""
    lines: list[str] = []
    _mapping(value, "", lines)
    return comment + "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _mapping(value: dict[str, JSON], indent: str, lines: list[str]) -> None:
    for key, item in value.items():
        _entry(f"{indent}{_text(key)}:", item, indent, lines)


def _entry(head: str, item: JSON, indent: str, lines: list[str]) -> None:
    if isinstance(item, dict) and item:
        lines.append(head)
        _mapping(item, indent + "  ", lines)
    elif isinstance(item, list) and item:
        lines.append(head)
        _listing(item, indent, lines)
    elif isinstance(item, str) and _blockable(item):
        lines.append(f"{head} |{'' if item.endswith(chr(10)) else '-'}")
        lines.extend(
            f"{indent}  {line}" if line else "" for line in item.removesuffix("\n").split("\n")
        )
    else:
        lines.append(f"{head} {_scalar(item)}")


def _listing(value: list[JSON], indent: str, lines: list[str]) -> None:
    for item in value:
        if isinstance(item, dict) and item:
            inner: list[str] = []
            _mapping(item, indent + "  ", inner)
            lines.append(f"{indent}- {inner[0][len(indent) + 2 :]}")
            lines.extend(inner[1:])
        elif isinstance(item, list) and item:
            inner = []
            _listing(item, indent + "  ", inner)
            lines.append(f"{indent}- {inner[0][len(indent) + 2 :]}")
            lines.extend(inner[1:])
        else:
            lines.append(f"{indent}- {_scalar(item)}")


def _blockable(text: str) -> bool:
    """Multi-line text that a literal block carries exactly (scripts, certificates)."""
    body = text.removesuffix("\n")
    return (
        "\n" in body
        and not body.startswith((" ", "\n"))
        and not body.endswith("\n")
        and all(line == line.rstrip() and _printable(line) for line in body.split("\n"))
    )


def _printable(text: str) -> bool:
    """No control characters, no line separators but newline, nothing outside the BMP's safe
    part."""
    return all(
        " " <= c <= "~" or ("\xa0" <= c <= "\ud7ff" and c not in "\u2028\u2029\x85") for c in text
    )


def _scalar(value: JSON) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value)


def _number(value: float) -> str:
    """A float that YAML 1.1 readers also take for a float (`1e+20` needs the dot)."""
    text = json.dumps(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


def _text(value: str) -> str:
    if _PLAIN.match(value) and value.lower() not in _WORDS:
        return value
    return _quoted(value)


def _quoted(value: str) -> str:
    """Double quotes with JSON escapes, which are YAML escapes too; printable letters stay
    readable."""
    if value.isascii() or _printable(value):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\x7f")
    return "".join(['"', *(_escape(c) for c in value), '"'])


def _escape(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if _printable(c):
        return c
    code = ord(c)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def ordered(value: dict[str, JSON]) -> dict[str, JSON]:
    """An object with its top-level and metadata keys in the usual order; the rest stays as made."""
    result = {key: value[key] for key in _TOP if key in value}
    result |= {key: item for key, item in value.items() if key not in result}
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        head = {key: metadata[key] for key in _HEAD if key in metadata}
        head |= {key: item for key, item in metadata.items() if key not in head}
        for name in ("labels", "annotations"):
            if isinstance(head.get(name), dict):
                head[name] = dict(sorted(head[name].items()))
        result["metadata"] = head
    return result


def file_name(value: dict[str, JSON], *, taken: Iterable[str] = ()) -> str:
    """File for one object with `-o DIR`: `NAME.yaml` for Services, `kind-NAME.yaml` for the
    rest."""
    metadata = value["metadata"]
    name = (
        metadata["name"]
        if value["kind"] == "Service"
        else f"{value['kind'].lower()}-{metadata['name']}"
    )
    plain = f"{name}.yaml"
    return plain if plain not in taken else f"{metadata.get('namespace', 'default')}-{name}.yaml"


def to_files(objects: Sequence[dict[str, JSON]]) -> dict[str, str]:
    """File name -> YAML, one object a file."""
    files: dict[str, str] = {}
    for item in objects:
        files[file_name(item, taken=files)] = _document(item)
    return files
