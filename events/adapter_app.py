"""The adapter's HTTP door (Flask)."""

from flask import Flask, Response, request

from . import web
from .adapter import Adapter, Answer, Credentials, RateLimit
from .errors import DeliveryFailed
from .front import AdapterFront
from .http import Client
from .http_async import AsyncClient
from .sender import Sender
from .settings import AdapterSettings
from .sources.sns_signature import Verifier

SNS_TIMEOUT_S = 10.0


def make_front(settings: AdapterSettings) -> AdapterFront:
    """What `python -m events adapter` serves."""
    sender = settings.sender
    certs = sender.ca_certs
    client = Client(sender.proxies, connections=settings.server.threads, ca_certs=certs)
    adapter = make_adapter(settings, client, AsyncClient(sender.proxies, ca_certs=certs))
    return AdapterFront(
        adapter, lambda: make_app(adapter, settings.max_body_bytes), settings.max_in_flight
    )


def make_adapter(
    settings: AdapterSettings, client: Client, async_client: AsyncClient | None = None
) -> Adapter:
    """The adapter these settings describe; `async_client` serves `handle_async`."""
    sender = Sender(
        client,
        async_client,
        settings.sender.sink,
        extensions=settings.sender.extensions,
        timeout_s=settings.sender.timeout_s,
    )
    return Adapter(
        sender,
        credentials=Credentials(
            token=settings.token, user=settings.user, password=settings.password
        ),
        buckets=settings.buckets,
        partition_by_object=settings.partition_by_object,
        rate=RateLimit(settings.rate_per_s),
        verifier=Verifier(
            enabled=settings.verify_sns,
            topics=settings.topics,
            fetch=lambda url: _fetched(client, url),
        ),
    )


def _fetched(client: Client, url: str) -> bytes:
    """What SNS has at one of its URLs. Raises `DeliveryFailed`, so that SNS sends again."""
    answer = client.get(url, SNS_TIMEOUT_S)
    if not 200 <= answer.status < 300:
        raise DeliveryFailed(f"SNS answered {answer.status} for its own URL")
    return answer.body


def make_app(adapter: Adapter, max_body_bytes: int) -> Flask:
    """Routes: POST / (any path a producer was configured with is fine), OPTIONS, health,
    metrics."""
    app = web.make_app("events.adapter", adapter.metrics.text, max_body_bytes)

    @app.post("/", defaults={"path": ""}, provide_automatic_options=False)
    @app.post("/<path:path>", provide_automatic_options=False)
    def take(path: str) -> Response:
        refusal = adapter.refusal(
            request.headers.get("Authorization", ""), request.args.get("access_token", "")
        )
        if refusal is not None:
            return _respond(refusal)
        body = request.get_data(cache=False)
        return _respond(adapter.handle(list(request.headers.items()), body))

    @app.route("/", methods=["OPTIONS"], defaults={"path": ""})
    @app.route("/<path:path>", methods=["OPTIONS"])
    def consent(path: str) -> Response:
        return web.handshake(adapter.per_minute)

    return app


def _respond(answer: Answer) -> Response:
    if answer.error:
        return web.problem(answer.status, answer.error, dict(answer.headers))
    return Response(status=answer.status, headers=dict(answer.headers))
