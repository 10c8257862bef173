"""Clients in a closed loop, for calls that take long: each sends its next request when it has its
answer.

python -m benchmarks._functions_load PORT PATH BODY_FILE CLIENTS SECONDS

Prints one JSON object: answers, rate (per second, between the first and the last answer within
SECONDS), p50 and p99 in seconds, errors. What is under way at the end is waited for, so that no
work is left for whoever is measured next; it counts for the answers alone (CPU time is divided by
them). One thread and no parsing beyond the length: 0.3 ms of CPU a call.
"""

import json
import selectors
import socket
import sys
import time

PATIENCE_S = 60.0


class Client:
    """One connection that stays open."""

    def __init__(self, port: int, request: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.answer = b""

    def send(self) -> None:
        self.since = time.perf_counter()
        self.sock.setblocking(True)  # the server reads while its model works
        self.sock.sendall(self.request)
        self.sock.setblocking(False)
        self.answer = b""

    def receive(self) -> bool:
        """True when the answer is complete."""
        piece = self.sock.recv(1 << 20)
        if not piece:
            raise ConnectionError("the server closed the connection")
        self.answer += piece
        head, end, body = self.answer.partition(b"\r\n\r\n")
        if not end:
            return False
        return len(body) >= int(head.lower().split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])


def run(port: int, path: str, body: bytes, clients: int, seconds: float) -> dict[str, float]:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    selector = selectors.DefaultSelector()
    request = head.encode() + body
    for _ in range(clients):
        client = Client(port, request)
        selector.register(client.sock, selectors.EVENT_READ, client)
        client.send()
    times: list[float] = []
    ends: list[float] = []
    errors = 0
    until = time.perf_counter() + seconds
    under_way, late = clients, 0
    while under_way:
        if time.perf_counter() > until + PATIENCE_S:
            raise TimeoutError(f"{under_way} requests are not answered")
        for key, _ in selector.select(1.0):
            client = key.data
            if not client.receive():
                continue
            now = time.perf_counter()
            errors += not client.answer.startswith(b"HTTP/1.1 200")
            if now < until:
                times.append(now - client.since)
                ends.append(now)
                client.send()
            else:
                under_way -= 1
                late += 1
                selector.unregister(client.sock)
    times.sort()
    return {
        "answers": len(times) + late,
        "rate": (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0,
        "p50": times[len(times) // 2] if times else 0.0,
        "p99": times[len(times) * 99 // 100] if times else 0.0,
        "errors": errors,
    }


if __name__ == "__main__":
    with open(sys.argv[3], "rb") as file:
        sent = file.read()
    print(
        json.dumps(run(int(sys.argv[1]), sys.argv[2], sent, int(sys.argv[4]), float(sys.argv[5])))
    )
