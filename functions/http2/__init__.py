"""HTTP/2 (RFC 9113) as far as gRPC needs it, on the event loop: what both of its ends share, and
the server's. The client's end is `functions.predictor.http2`.

grpcio's asyncio polls on a thread of its own and wakes the loop for every event; that, and its
copies of every message, cost more than all of the protocol here.
"""
