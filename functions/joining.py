"""Batches of V2 requests: joined along the first dimension, and their answer taken apart."""

from typing import Any

import numpy as np

from .inference import InferRequest, InferResponse, Tensor, new_id


def join_key(request: InferRequest) -> tuple[int, Any]:
    """(instances, key): requests with equal keys can be joined; the key None never.

    All inputs must agree on the length of the first dimension; parameters and requested outputs
    must be the same, because a joined request can carry only one set of them.
    """
    lengths = {tensor.shape[0] if tensor.shape else 0 for tensor in request.inputs}
    if len(lengths) != 1 or 0 in lengths:
        return 1, None
    try:
        key = (
            tuple((t.name, t.datatype, t.is_binary, tuple(t.shape[1:])) for t in request.inputs),
            tuple(sorted(request.parameters.items())),
            None if request.wanted.outputs is None else tuple(request.wanted.outputs),
        )
    except TypeError:
        return 1, None
    return lengths.pop(), key


def join_requests(requests: list[InferRequest]) -> InferRequest:
    """One request with the rows of all; they must have equal `join_key`s."""
    first = requests[0]
    inputs = [
        Tensor(
            tensor.name,
            datatype=tensor.datatype,
            data=np.concatenate([request.inputs[at].as_numpy() for request in requests]),
            parameters=tensor.parameters,
        )
        for at, tensor in enumerate(first.inputs)
    ]
    return InferRequest(
        first.model_name,
        inputs,
        "",
        first.parameters,
        model_version=first.model_version,
        from_grpc=first.from_grpc,
        wanted=first.wanted,
    )


def split_response(joined: InferResponse, requests: list[InferRequest]) -> list[InferResponse]:
    """Each request's rows of a joined answer. Raises TypeError when there is not one row an
    instance."""
    counts = [request.inputs[0].shape[0] for request in requests]
    arrays = [(tensor, tensor.as_numpy()) for tensor in joined.outputs]
    for tensor, values in arrays:
        if not values.ndim or values.shape[0] != sum(counts):
            raise TypeError(
                f"output {tensor.name!r} has not one row an instance: turn batching off"
            )
    responses = []
    at = 0
    for request, count in zip(requests, counts, strict=True):
        outputs = [
            Tensor(
                t.name, datatype=t.datatype, data=values[at : at + count], parameters=t.parameters
            )
            for t, values in arrays
        ]
        responses.append(
            InferResponse(
                request.id or new_id(),
                request.model_name,
                outputs,
                joined.model_version,
                joined.parameters,
            )
        )
        at += count
    return responses
