"""Where S3 credentials come from: the environment, else whatever boto3's chain finds.

The only door to botocore. Static keys in the environment, which is what KServe's Secrets become,
need no SDK at all (start-up!). Everything else (profiles, web identity/IRSA, container and
instance roles, SSO) is botocore's credential chain itself: the reference, not an imitation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from storage_initializer.errors import (
    AccessDenied,
    MissingExtra,
    StorageError,
    TransferFailed,
)
from storage_initializer.logs import Log

from .s3_sign import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

logger = Log(__name__)

Resolve = Callable[[], Credentials | None]
"""Current credentials (refreshed when they expire); None means: ask anonymously."""

_ROLE_HINTS = (
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
)


def resolver(environ: Mapping[str, str], *, own_endpoint: bool) -> tuple[Resolve, str]:
    """(how to get credentials, the region that a profile names or empty).

    `own_endpoint`: not AWS itself; then instance metadata is not asked (its roles mean nothing
    there, and the question costs seconds where nobody answers).
    """
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        fixed = Credentials(access, secret, environ.get("AWS_SESSION_TOKEN", ""))
        return (lambda: fixed), ""
    hinted = [name for name in _ROLE_HINTS if environ.get(name)]
    files = os.path.exists(os.path.join(environ.get("HOME", "/nonexistent"), ".aws"))
    if own_endpoint and not hinted and not files:
        logger.info("no AWS credentials in the environment: asking anonymously")
        return (lambda: None), ""
    return _botocore(own_endpoint, needed=bool(hinted))


def _botocore(own_endpoint: bool, *, needed: bool) -> tuple[Resolve, str]:
    try:
        import botocore.exceptions
        import botocore.session
    except ImportError:
        if needed:
            what = "an AWS profile, role or web identity"
            raise MissingExtra(what, "boto3", "s3") from None
        logger.info("no AWS keys in the environment and no boto3: asking anonymously")
        return (lambda: None), ""
    session: Any = botocore.session.Session()
    try:
        if own_endpoint:
            session.get_component("credential_provider").remove("iam-role")
        found: Any = session.get_credentials()
        region = session.get_config_variable("region") or ""
    except (botocore.exceptions.BotoCoreError, OSError) as exc:
        raise _refused(exc) from exc
    if found is None:
        logger.info("boto3 finds no AWS credentials: asking anonymously")
        return (lambda: None), region

    def current() -> Credentials:
        try:
            frozen = found.get_frozen_credentials()
        except (
            botocore.exceptions.BotoCoreError,
            botocore.exceptions.ClientError,
            OSError,
        ) as exc:
            raise _refused(exc) from exc
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    return current, region


def _refused(exc: Exception) -> StorageError:
    """Why there are no credentials: a service that cannot be reached may be there the next time."""
    import botocore.exceptions

    unreachable = botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError
    if isinstance(exc, unreachable):
        return TransferFailed("s3", f"the credentials cannot be fetched: {exc}")
    advice = "check the AWS profile or role"
    if isinstance(exc, OSError) and exc.filename:
        advice = "check that the token or profile file is mounted there"
    return AccessDenied("s3", str(exc), advice)
