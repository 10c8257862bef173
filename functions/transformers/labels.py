"""From scores to labels: the answer of the `image` and `tokenize` transformers."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from functions.errors import AnswerUnusable, LoadFailed
from functions.inference import InferResponse, Tensor

from . import Place, payloads
from .caller import Caller
from .payloads import Array

DEFAULT_TOP_K = 5
_MOST_CLASSES = 1e9
"""A number beyond is no class index."""


def read(file: Path) -> list[str]:
    """Labels by class index: one a line, a JSON list, or a JSON object of index -> label
    (`{"0": "cat"}`, torchvision's `{"0": ["n01", "cat"]}`, a `config.json` with `id2label`).

    Raises LoadFailed.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise LoadFailed(f"the labels file {file} cannot be read: {reason}") from None
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(text, file)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise LoadFailed(f"the labels file {file} is empty: write one label a line")
    return [line.strip() for line in lines]


def _from_json(text: str, file: Path) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise LoadFailed(f"the labels file {file} is not JSON: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("id2label"), dict):
        found = found["id2label"]
    if isinstance(found, dict):
        if not all(re.fullmatch(r"\d{1,9}", key) for key in found):
            raise LoadFailed(f"the labels file {file} must map class indices to labels")
        length = max(map(int, found), default=-1) + 1
        if length != len(found):
            raise LoadFailed(f"the labels file {file} leaves class indices out")
        found = [found[str(index)] for index in range(length)]
    if not found:
        raise LoadFailed(f"the labels file {file} has no labels")
    return [str(label[-1] if isinstance(label, list) and label else label) for label in found]


class Answers:
    """What a predictor's answer becomes for the caller."""

    def __init__(self, values: Mapping[str, Any], place: Place) -> None:
        """Raises LoadFailed when the labels cannot be read."""
        self.labels = read(place.file(values["labels"])) if values["labels"] else None
        self.top_k = values["top_k"] or DEFAULT_TOP_K
        self.softmax = values["softmax"]
        self.output = values["output"]
        self.predictor = place.predictor
        self.wanted = bool(self.labels or values["top_k"] or self.softmax)

    def of(self, result: Any, caller: Caller) -> Any:
        """The body for the caller, in its protocol. Raises AnswerUnusable."""
        if not self.wanted:
            return payloads.passed_on(result, caller, self.predictor)
        found = payloads.scores(result, self.output, self.predictor)
        rows = self._rows(found, caller.count)
        if rows.dtype.kind not in "fiub":
            return self._named(rows, caller)
        if rows.ndim == 1:
            return self._classes(rows, caller)
        return self._best(rows, caller)

    def _rows(self, found: Array, count: int) -> Array:
        """(instances,) class indices, or (instances, classes) scores."""
        if found.ndim == 0 or found.shape[0] != count:
            got = "one value" if found.ndim == 0 else f"{found.shape[0]} rows"
            raise AnswerUnusable(self.predictor, f"has {got} for {count} instances")
        if found.ndim > 2 and found.size == found.shape[0] * max(found.shape[1:]):
            found = found.reshape(count, -1)  # (n, classes, 1, 1)
        if found.ndim == 2 and found.shape[1] == 1 and found.dtype.kind != "f":
            found = found[:, 0]
        if found.ndim > 2 or not found.size:
            raise AnswerUnusable(
                self.predictor, f"has shape {list(found.shape)}: expected scores, [n, classes]"
            )
        return found

    def _label(self, index: int) -> str:
        if self.labels is None:
            return str(index)
        if not 0 <= index < len(self.labels):
            raise AnswerUnusable(
                self.predictor,
                f"names class {index}, but the labels file ends at {len(self.labels) - 1}: give"
                " the labels of this model",
            )
        return self.labels[index]

    def _named(self, rows: Array, caller: Caller) -> Any:
        """The predictor answers labels itself."""
        texts = [
            item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
            for item in rows.reshape(caller.count, -1)[:, 0].tolist()
        ]
        if caller.v2:
            return InferResponse("", "", [Tensor("label", data=np.array([[t] for t in texts]))])
        return {"predictions": [[{"label": text}] for text in texts]}

    def _classes(self, rows: Array, caller: Caller) -> Any:
        """The predictor answers class indices, without scores."""
        wide = rows.astype(np.float64)
        whole = np.rint(wide)
        if not (np.abs(wide) < _MOST_CLASSES).all() or (np.abs(whole - wide) > 1e-6).any():
            raise AnswerUnusable(
                self.predictor,
                "has one number an instance that is no class index: there is nothing to label",
            )
        indices = whole.astype(np.int64)
        names = [self._label(int(index)) for index in indices]
        if caller.v2:
            return InferResponse(
                "",
                "",
                [
                    Tensor("label", data=np.array(names, dtype=object)[:, None]),
                    Tensor("index", data=indices[:, None]),
                ],
            )
        pairs = zip(names, indices.tolist(), strict=True)
        return {"predictions": [[{"label": n, "index": i}] for n, i in pairs]}

    def _best(self, rows: Array, caller: Caller) -> Any:
        """The predictor answers one score a class."""
        classes = rows.shape[1]
        if self.labels is not None and len(self.labels) < classes:
            raise AnswerUnusable(
                self.predictor,
                f"has {classes} classes, but the labels file has {len(self.labels)}: give the"
                " labels of this model",
            )
        points = softmax(rows) if self.softmax else rows
        # Stable, and NaN last: equal scores keep the order of the classes.
        ranked = np.where(np.isnan(points), -np.inf, points) if points.dtype.kind == "f" else points
        best = np.argsort(-ranked.astype(np.float64), axis=1, kind="stable")[:, : self.top_k]
        top = np.take_along_axis(points, best, axis=1)
        names = [[self._label(int(index)) for index in row] for row in best]
        if caller.v2:
            return InferResponse(
                "",
                "",
                [
                    Tensor("label", data=np.array(names, dtype=object)),
                    Tensor("score", data=np.ascontiguousarray(top)),
                    Tensor("index", data=np.ascontiguousarray(best, dtype=np.int64)),
                ],
            )
        return {
            "predictions": [
                [
                    {"label": label, "score": score, "index": index}
                    for label, score, index in zip(*parts, strict=True)
                ]
                for parts in zip(names, top.tolist(), best.tolist(), strict=True)
            ]
        }


def softmax(rows: Array) -> Array:
    """Along the last axis, in float64 so that sums are 1, back in the type of float rows. A row
    with an infinity or NaN becomes NaN."""
    wide = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        exponents = np.exp(wide - wide.max(axis=1, keepdims=True))
        found: Array = exponents / exponents.sum(axis=1, keepdims=True)
    return found.astype(rows.dtype) if rows.dtype.kind == "f" else found
