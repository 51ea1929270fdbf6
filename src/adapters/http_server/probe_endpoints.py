"""`/healthz` and `/readyz`, which container health checks ask without a token."""

from dataclasses import dataclass

from starlette.responses import PlainTextResponse, Response

from ...domain.readiness import Readiness
from .replies import method_not_allowed
from .request import FileRequest


@dataclass(frozen=True)
class ProbeEndpoints:
    """Answers in the very words that upstream's checks compare; what else there is to say follows them."""

    readiness: Readiness

    async def health(self, request: FileRequest) -> Response:
        """The process serves."""
        if request.method not in {"GET", "HEAD"}:
            return method_not_allowed("GET", "HEAD")
        return PlainTextResponse("ok")

    async def ready(self, request: FileRequest) -> Response:
        """Work can come; 503 when it cannot."""
        if request.method not in {"GET", "HEAD"}:
            return method_not_allowed("GET", "HEAD")
        report = await self.readiness.check()
        return PlainTextResponse(report.text, 200 if report.ready else 503)
