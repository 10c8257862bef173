"""`tokenize`: texts in, token ids to the predictor. The door to the tokenizers library."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from functions.errors import InvalidRequest, LoadFailed

from . import Place, payloads
from .caller import KEY, Caller, is_v2
from .labels import Answers
from .payloads import Array

_MEMBERS = ("text", "data", "inputs", "question", "sentence")


class TokenizeTransformer:
    """Tokenise, cut, pad; label the answer. Keeps nothing between requests."""

    def __init__(self, values: Mapping[str, Any], place: Place) -> None:
        """Raises LoadFailed when there is no tokenizer, no token to pad with, or no room."""
        self._values = values
        self._place = place
        self._tokenizer = load(place.file(values["tokenizer"]))
        self._answers = Answers(values, place)
        special = self._tokenizer.num_special_tokens_to_add(False)
        if values["max_length"] <= special:
            raise LoadFailed(
                f"max_length={values['max_length']} leaves no room beside the {special} special"
                " tokens of this tokenizer: give more"
            )
        if values["truncation"]:
            self._tokenizer.enable_truncation(values["max_length"])
        else:
            self._tokenizer.no_truncation()
        self._pad()

    def _pad(self) -> None:
        values, tokenizer = self._values, self._tokenizer
        own = tokenizer.padding or {}
        tokenizer.no_padding()
        if values["padding"] == "none":
            return
        token = values["pad_token"] or own.get("pad_token") or "[PAD]"
        number = tokenizer.token_to_id(token)
        if number is None and not values["pad_token"]:
            token = "<pad>"  # noqa: S105 - the other usual spelling
            number = tokenizer.token_to_id(token)
        if number is None:
            raise LoadFailed(
                "the tokenizer has no token to pad with: give pad_token=TOKEN, or padding=none"
            )
        length = values["max_length"] if values["padding"] == "max_length" else None
        tokenizer.enable_padding(
            direction=own.get("direction", "right"), pad_id=number, pad_token=token, length=length
        )

    def preprocess(self, payload: Any, context: dict[str, Any]) -> Any:
        """A V1 body, raw text or V2 request -> the predictor's request. Raises InvalidRequest."""
        values = self._values
        found = payloads.items(payload, values["field"], "text", _MEMBERS, values["max_texts"])
        texts = [self._text(value, f"text {index}") for index, value in enumerate(found)]
        caller = context[KEY] = Caller(is_v2(payload), len(texts))
        encoded = self._tokenizer.encode_batch(texts)
        for index, one in enumerate(encoded):
            if len(one.ids) > values["max_length"]:
                raise InvalidRequest(
                    f"text {index} has {len(one.ids)} tokens, more than {values['max_length']}:"
                    " send a shorter one, or configure truncation"
                )
        columns = [(name, [_column(one, what) for one in encoded]) for what, name in self._wanted()]
        if caller.wants_v1(self._place.predictor_protocol):
            return {
                "instances": [
                    {name: rows[at] for name, rows in columns} for at in range(len(encoded))
                ]
            }
        named = [(name, self._tensor(rows)) for name, rows in columns]
        return payloads.to_v2(payload, self._place.model_name, named)

    def _wanted(self) -> tuple[tuple[str, str], ...]:
        wanted: tuple[tuple[str, str], ...] = self._values["tensors"]
        return wanted

    def _text(self, value: Any, where: str) -> str:
        if isinstance(value, bytes):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidRequest(f"{where} is not UTF-8") from None
        if not isinstance(value, str):
            raise InvalidRequest(f"{where} must be a text, not {type(value).__name__}")
        if not value.strip():
            raise InvalidRequest(f"{where} is empty")
        limit = self._values["max_bytes"]
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidRequest(f"{where} holds half a surrogate pair, which is no text") from None
        if size > limit:
            raise InvalidRequest(f"{where} has {size} bytes, more than {limit}: send a shorter one")
        return value

    def _tensor(self, rows: list[list[int]]) -> Array:
        if len({len(row) for row in rows}) > 1:
            raise InvalidRequest(
                "the texts have different numbers of tokens: send one a request, or configure"
                " padding"
            )
        return payloads.as_datatype(np.array(rows, np.int64), self._values["dtype"])

    def postprocess(self, result: Any, context: dict[str, Any]) -> Any:
        """The predictor's answer -> the caller's. Raises AnswerUnusable."""
        return self._answers.of(result, context[KEY])


def _column(encoded: Any, what: str) -> list[int]:
    found: list[int] = {
        "input_ids": encoded.ids,
        "attention_mask": encoded.attention_mask,
        "token_type_ids": encoded.type_ids,
    }[what]
    return found


def load(place: Path) -> Any:
    """The tokenizer of a `tokenizer.json` or a directory with one; other directories (vocab.txt …)
    are read by transformers, if that is installed. Raises LoadFailed."""
    from tokenizers import Tokenizer

    file = place / "tokenizer.json" if place.is_dir() else place
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise LoadFailed(f"{file} is no tokenizer: {error}") from None
    if not place.is_dir():
        raise LoadFailed(f"there is no tokenizer at {place}: give tokenizer=FILE or its directory")
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise LoadFailed(
            f"{place} has no tokenizer.json: save the tokenizer with save_pretrained(), or install"
            " turnout[huggingface], which reads other forms"
        ) from None
    try:
        slow = AutoTokenizer.from_pretrained(str(place), local_files_only=True)
    except Exception as error:
        raise LoadFailed(
            f"{place.absolute()} holds no tokenizer: there is no tokenizer.json, and transformers"
            f" says: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        ) from None
    backend = getattr(slow, "backend_tokenizer", None)
    if backend is None:
        raise LoadFailed(f"the tokenizer in {place} has no fast form: convert it to tokenizer.json")
    return backend


def build(values: Mapping[str, Any], place: Place) -> TokenizeTransformer:
    return TokenizeTransformer(values, place)
