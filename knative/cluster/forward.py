"""Port-forward through the API server, as a connection that `reach.exchange` can use."""

import http.client
from typing import Any

from knative.cluster.client import Api
from knative.cluster.errors import ClusterError


class ForwardedConnection(http.client.HTTPConnection):
    """HTTP/1.1 over one forwarded port of a pod."""

    def __init__(self, api: Api, namespace: str, pod: str, port: int, *, timeout_s: float) -> None:
        super().__init__(pod, port, timeout=timeout_s)
        self._api = api
        self._namespace = namespace
        self._forward: Any = None

    def connect(self) -> None:
        """Open the forward and take its socket."""
        from kubernetes import client, stream
        from kubernetes.client.exceptions import ApiException

        core = client.CoreV1Api(self._api.client)
        try:
            self._forward = stream.portforward(
                core.connect_get_namespaced_pod_portforward,
                self.host,
                self._namespace,
                ports=str(self.port),
            )
        except ApiException as error:
            raise ClusterError(
                f"port-forward to {self._namespace}/{self.host} failed: {error.reason}"
            ) from error
        self.sock = self._forward.socket(self.port)
        self.sock.settimeout(self.timeout)

    def close(self) -> None:
        """Close the connection and the forward."""
        super().close()
        if self._forward is not None:
            self._forward.close()
            self._forward = None
