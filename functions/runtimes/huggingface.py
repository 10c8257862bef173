"""The `huggingface` runtime: a transformers pipeline from a local directory.

Text classification, token classification, and embeddings (mean-pooled features); the task comes
from `--param task=...`, else from the architecture in config.json. Only safetensors weights are
loaded when `--allow-pickle` is false. Nothing is downloaded: the directory is all there is.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functions.errors import InvalidRequest, LoadFailed, NoArtifact
from functions.inference import InferRequest, InferResponse, Tensor, new_id
from functions.model import Call, Item, JoinableModel, ModelInfo, ServedModel, TensorSpec

from .pytorch import limit_threads

if TYPE_CHECKING:
    from functions.settings import Settings

logger = logging.getLogger(__name__)

TOKENIZER = ("tokenizer*", "vocab*", "*.model")
TASKS = ("text-classification", "token-classification", "embeddings")

_SUFFIXES = (
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
)


class PipelineModel(JoinableModel):
    """Texts in; labels with scores, entities, or vectors out."""

    def __init__(self, task: str, pipeline: Any, threads: int) -> None:
        self.task = task
        self._pipeline = pipeline
        self.threads = threads
        datatype, shape = ("FP32", (-1, -1)) if task == "embeddings" else ("BYTES", (-1,))
        self.info = ModelInfo(
            platform=f"transformers_{task}",
            inputs=(TensorSpec(name="input-0", datatype="BYTES", shape=(-1,)),),
            outputs=(TensorSpec(name="output-0", datatype=datatype, shape=shape),),
        )

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        texts = _texts_v2(payload) if kind == "infer" else _texts_v1(payload)
        if not texts:
            raise InvalidRequest("there is no instance in the request")
        return Item(kind, payload, call, count=len(texts), key="texts", data=texts)

    def run(self, items: list[Item]) -> None:
        texts = [text for item in items for text in item.data]
        results = self._pipeline(texts)
        at = 0
        for item in items:
            item.output = results[at : at + item.count]
            at += item.count

    def answer(self, item: Item) -> Any:
        if item.kind != "infer":
            return {"predictions": item.output}
        import numpy as np

        if self.task == "embeddings":
            data = np.asarray(item.output, dtype=np.float32)
        else:
            data = np.empty(len(item.output), dtype=object)
            data[:] = [json.dumps(_json(result)) for result in item.output]
        request: InferRequest = item.payload
        return InferResponse(
            request.id or new_id(), request.model_name, [Tensor("output-0", data=data)]
        )


def _json(value: Any) -> Any:
    if isinstance(value, list):
        return [_json(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _json(entry) for key, entry in value.items()}
    return value.item() if hasattr(value, "item") else value


def _texts_v1(payload: Any) -> list[str]:
    rows = payload.get("instances", payload.get("inputs")) if isinstance(payload, Mapping) else None
    if not isinstance(rows, list):
        raise InvalidRequest('the body needs "instances", a list of texts')
    texts = [row.get("text", row.get("data")) if isinstance(row, Mapping) else row for row in rows]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequest('every instance must be a text, or an object with "text"')
    return texts


def _texts_v2(request: InferRequest) -> list[str]:
    tensor = request.inputs[0]
    if tensor.datatype != "BYTES":
        raise InvalidRequest(f"input {tensor.name!r} must be BYTES: texts")
    try:
        return [v.decode("utf-8") if isinstance(v, bytes) else v for v in tensor.as_numpy().ravel()]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"input {tensor.name!r} is not UTF-8 text: {exc}") from None


def detect_task(directory: Path, wanted: str) -> str:
    if wanted:
        if wanted not in TASKS:
            raise LoadFailed(f"--param task={wanted}: expected one of {', '.join(TASKS)}")
        return wanted
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoArtifact(f"{directory} has no config.json") from None
    except ValueError as exc:
        raise LoadFailed(f"config.json is not JSON: {exc}") from exc
    architecture = str((config.get("architectures") or [""])[0])
    for suffix, task in _SUFFIXES:
        if architecture.endswith(suffix):
            return task
    return "embeddings"


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    task = detect_task(directory, str(dict(settings.param).get("task", "")))
    if not any(any(directory.glob(pattern)) for pattern in TOKENIZER):
        # The library would make one up, which knows no word.
        raise NoArtifact(f"{directory} has no tokenizer (no {', '.join(TOKENIZER)})")
    limit_threads(settings)
    import transformers

    transformers.logging.set_verbosity_error()
    classes = {
        "text-classification": transformers.AutoModelForSequenceClassification,
        "token-classification": transformers.AutoModelForTokenClassification,
        "embeddings": transformers.AutoModel,
    }
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = classes[task].from_pretrained(
            directory,
            local_files_only=True,
            use_safetensors=None if settings.allow_pickle else True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as exc:
        raise LoadFailed(f"{directory} cannot be loaded: {exc}") from exc
    model.eval()
    if task == "embeddings":
        return PipelineModel(task, _embedder(tokenizer, model), settings.threads or 1)
    options: dict[str, Any] = {"batch_size": 32}
    if task == "token-classification":
        options["aggregation_strategy"] = "simple"
    pipeline = transformers.pipeline(task, model=model, tokenizer=tokenizer, **options)
    return PipelineModel(task, pipeline, settings.threads or 1)


def _embedder(tokenizer: Any, model: Any) -> Any:
    """Mean of the last hidden states over the real tokens, as sentence encoders are read."""
    import torch

    def embed(texts: list[str]) -> list[list[float]]:
        encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**encoded).last_hidden_state
        mask = encoded["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        found: list[list[float]] = ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).tolist()
        return found

    return embed
