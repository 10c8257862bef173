"""`json`: requests and answers made of templates with JSONPath placeholders.

V2 requests and answers are looked at as their JSON documents (`{$.inputs[0].data}`); a template for
a V2 predictor makes one, where `shape` and `datatype` may be left to the data.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from functions import jsonio
from functions.errors import AnswerUnusable, InvalidRequest, LoadFailed
from functions.inference import InferRequest, InferResponse, Tensor
from functions.template import Body, Language, TemplateError

from . import Place
from .caller import KEY, Caller, is_v2

_REQUEST = Language(("request",), InvalidRequest)


class _Unfit(Exception):
    """A placeholder found nothing in the predictor's answer."""


_ANSWER = Language(("answer", "request"), _Unfit, "{answer.predictions}")


def problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the templates; a JSONPath that cannot be parsed, above all."""
    found = []
    for name, language in (("request", _REQUEST), ("answer", _ANSWER)):
        try:
            if values[name] is not None:
                language.body(values[name], name)
                found += [
                    f"{name}: {text!r} stays this very text: write {{{text}}} for what is there"
                    for text in _bare_paths(values[name])
                ]
        except (TemplateError, RecursionError) as error:
            found.append(f"{name}: {error or 'it is nested too deeply'}")
        except ModuleNotFoundError:  # told when the transformer is built, with the extra's name
            continue
    return found


_BARE_PATH = re.compile(r"\$(?:\.\.?[\w*@]|\[['\"\d*?]).*", re.ASCII | re.DOTALL)


def _bare_paths(source: Any) -> Iterator[str]:
    """Strings that look like a JSONPath somebody forgot the braces of; nobody sends such texts."""
    if isinstance(source, Mapping):
        for value in source.values():
            yield from _bare_paths(value)
    elif isinstance(source, list):
        for value in source:
            yield from _bare_paths(value)
    elif isinstance(source, str) and _BARE_PATH.fullmatch(source):
        yield source


class JsonTransformer:
    """Builds the predictor's request and the client's answer. Keeps nothing between requests."""

    def __init__(self, values: Mapping[str, Any], place: Place) -> None:
        self._place = place
        try:
            self._request = _compiled(_REQUEST, values["request"], "request")
            self._answer = _compiled(_ANSWER, values["answer"], "answer")
            # What the answer takes from the request is looked up before the predictor is asked.
            paths = sorted(self._answer.paths) if self._answer else []
            asked = [f"{{{path}}}" for path in paths if path.startswith("request")]
            self._asked = _REQUEST.body(asked, "request")
        except TemplateError as error:
            raise LoadFailed(str(error)) from None

    def preprocess(self, payload: Any, context: dict[str, Any]) -> Any:
        """Raises InvalidRequest when a placeholder finds nothing in the request."""
        document = _request_document(payload)
        caller = context[KEY] = Caller(is_v2(payload), document=document)
        self._asked.build({"request": document})
        if self._request is None:
            return payload
        made = self._request.build({"request": document})
        if not isinstance(made, (dict, list)):
            raise InvalidRequest(
                f"the predictor's request would be {json.dumps(made)[:100]}, neither an object nor"
                " a list"
            )
        v2 = self._v2_document(made)
        if v2 is None:
            return made  # V1 `instances` are converted by the call to the predictor
        from .documents import tensors_of

        inputs = tensors_of(v2["inputs"], "input", InvalidRequest)
        return InferRequest(
            payload.model_name if caller.v2 else self._place.model_name,
            inputs,
            str(v2.get("id") or (payload.id if caller.v2 else "")),
            v2.get("parameters"),
        )

    def _v2_document(self, made: Any) -> dict[str, Any] | None:
        """The body, if it is one of V2 and may go to the predictor as that."""
        protocol = self._place.predictor_protocol
        if protocol == "v1" or not isinstance(made, dict) or "inputs" not in made:
            return None
        inputs = made["inputs"]
        tensors = isinstance(inputs, list) and all(
            isinstance(e, dict) and "data" in e for e in inputs
        )
        return made if tensors or protocol != "auto" else None

    def postprocess(self, result: Any, context: dict[str, Any]) -> Any:
        """Raises AnswerUnusable when a placeholder finds nothing in the predictor's answer."""
        caller: Caller = context[KEY]
        if self._answer is None:
            if not caller.v2:
                return result
            from .payloads import passed_on

            return passed_on(result, caller, self._place.predictor)
        documents = {"answer": _answer_document(result), "request": caller.document}
        try:
            made = self._answer.build(documents)
        except _Unfit as error:
            raise AnswerUnusable(self._place.predictor, f"does not fit: {error}") from None
        if made is None:
            raise AnswerUnusable(self._place.predictor, "makes nothing but null")
        if not caller.v2:
            return made
        return InferResponse("", "", self._outputs(made))

    def _outputs(self, made: Any) -> list[Tensor]:
        """A V2 caller gets tensors: a document with `outputs`, or name -> values."""

        def unfit(text: str) -> Exception:
            return AnswerUnusable(self._place.predictor, f"makes no V2 answer: {text}")

        from .documents import tensors_of

        if not isinstance(made, dict):
            made = {"output-0": made}
        given = made.get("outputs")
        if not isinstance(given, list):
            given = [
                {"name": name, "data": data if isinstance(data, list) else [data]}
                for name, data in made.items()
            ]
        return tensors_of(given, "output", unfit)


def _request_document(payload: Any) -> Any:
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return jsonio.loads(payload)
    if isinstance(payload, InferRequest):
        from .documents import of_request

        return of_request(payload)
    return payload


def _answer_document(result: Any) -> Any:
    if isinstance(result, InferResponse):
        from .documents import of_response

        return of_response(result)
    return result


def _compiled(language: Language, source: Any, default: str) -> Body | None:
    return None if source is None else language.body(source, default)


def build(values: Mapping[str, Any], place: Place) -> JsonTransformer:
    return JsonTransformer(values, place)
