"""What boto3 raises, put into the domain's terms: each text names the setting to look at."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.exceptions import HTTPError

from ...domain.errors import WorkerError
from ...domain.store_errors import ObjectChanged, ObjectMissing, StoreRefused, StoreUnavailable

_KEYS = "check LOCALAI_STORAGE_ACCESS_KEY and LOCALAI_STORAGE_SECRET_KEY"
_EXPIRED = (
    "the credentials have expired; renew them (AWS_SESSION_TOKEN, the role, or the shared credentials file)"
)
_REGION = "check LOCALAI_STORAGE_REGION"
_BUCKET = "check LOCALAI_STORAGE_BUCKET"
_URL = "check LOCALAI_STORAGE_URL and the network"
_POLICY = (
    "the credentials may not do this; allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"
    " on the bucket"
)

_ADVICE = {
    "NoSuchBucket": f"there is no such bucket; {_BUCKET}",
    "InvalidBucketName": f"the bucket's name is not valid; {_BUCKET}",
    "InvalidAccessKeyId": f"the store does not know the access key; {_KEYS}",
    "SignatureDoesNotMatch": "the secret key is not that of the access key; check LOCALAI_STORAGE_SECRET_KEY",
    "InvalidToken": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "AccessDenied": _POLICY,
    "AllAccessDisabled": _POLICY,
    "AuthorizationHeaderMalformed": f"the bucket is in another region; {_REGION}",
    "IllegalLocationConstraintException": f"the bucket is in another region; {_REGION}",
    "PermanentRedirect": f"the bucket is at another endpoint; {_REGION} and LOCALAI_STORAGE_URL",
    "XAmzContentSHA256Mismatch": "the body was changed on its way; look for a proxy that rewrites it",
    "BadDigest": "the body was damaged on its way; try again",
    "KeyTooLongError": "the key is longer than the 1024 bytes S3 takes; shorten the model's name",
    "EntityTooLarge": "the object is larger than the store takes",
}
_SKEW = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_MISSING = {"NoSuchKey", "404", "NotFound"}
_CHANGED = {"PreconditionFailed", "412"}
_BUSY = 500  # from here on the store is at fault, and 429 asks for patience
_MANY_REQUESTS = 429


def code_of(error: ClientError) -> str:
    """The store's own word for what went wrong; a HEAD has only the status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def explained(error: Exception, operation: str, *, key: str, where: str) -> WorkerError:
    """The failure of `operation` in the domain's terms; `where` is the bucket, in words."""
    cause = error.kwargs.get("error") if isinstance(error, HTTPClientError) else None
    if isinstance(cause, WorkerError):  # from reading the file that was being sent
        return cause
    if isinstance(error, ClientError):
        return _answered(error, operation, key=key, where=where)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        reason = "no credentials were found; set LOCALAI_STORAGE_ACCESS_KEY and LOCALAI_STORAGE_SECRET_KEY"
        return StoreRefused(operation, reason)
    if isinstance(error, ParamValidationError):
        return StoreRefused(operation, f"{' '.join(str(error).split())}; {_BUCKET}")
    if isinstance(error, SSLError):
        reason = (
            "TLS failed: {}; check that LOCALAI_STORAGE_URL has the right scheme and its certificate is known"
        )
        return StoreUnavailable(operation, reason.format(_short(error)))
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        return StoreUnavailable(operation, f"{where} cannot be reached: {_short(error)}; {_URL}")
    if isinstance(error, ReadTimeoutError):
        return StoreUnavailable(operation, f"{where} does not answer: {_short(error)}; {_URL}")
    return StoreUnavailable(operation, f"{where}: {_short(error)}")


def _answered(error: ClientError, operation: str, *, key: str, where: str) -> WorkerError:
    code, status = code_of(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return ObjectMissing(operation, where)
    if code in _CHANGED:
        return ObjectChanged(key)
    message = error.response.get("Error", {}).get("Message", "") or f"status {status}"
    if code in _SKEW:
        return StoreRefused(operation, f"{code}: {message}; this machine's clock is wrong: set it (NTP)")
    if code in _ADVICE:
        return StoreRefused(operation, f"{where}: {code}: {_ADVICE[code]}")
    if status >= _BUSY or status == _MANY_REQUESTS:
        return StoreUnavailable(operation, f"{where} answers {status} {code}: {message}")
    return StoreRefused(operation, f"{where} answers {status} {code}: {message}")


@contextmanager
def store_errors(operation: str, *, key: str, where: str) -> Iterator[None]:
    """Turn what boto3 raises inside into the domain's errors."""
    try:
        yield
    except (BotoCoreError, ClientError, HTTPError, OSError) as error:
        raise explained(error, operation, key=key, where=where) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
