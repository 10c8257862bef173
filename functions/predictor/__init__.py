"""A transformer's way to its predictor: V1, V2 (JSON, binary) over HTTP/1.1, and V2 over gRPC.

Everything runs on the event loop, so that a slow predictor never holds a thread, and tensors go
from the buffer they are in to the socket and back without a copy of ours.

* `client.Predictor` is what the server calls: which protocol, how long, how often, waking.
* `rest`, `grpc_client`: one protocol each. `documents`: what hooks return -> what is sent.
* `target`, `dialling`: where it is, and getting a connection. `pool`, `connection`: HTTP/1.1;
  `http2`: HTTP/2. `forwarding`: header fields and deadlines that travel along.
"""

from .client import Predictor

__all__ = ["Predictor"]
