"""Resuming: a restarted worker goes on as the node it was, without registering.

A registration makes the frontend drop its rows of the node, and with them requests in flight lose their
place. So a worker that took its backends over first asks whether the frontend's view is still true.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass

import anyio

from .bus_credentials import BusCredentials, WrongCredentials
from .enrol import PENDING, Enrolment
from .errors import FrontendRefused, FrontendUnavailable, NodeForgotten
from .masking import mask_url
from .messages.node_status import LoadedModel
from .node import NodeId
from .node_identity import IdentityStore, NodeIdentity, stated_by
from .ports.clock import Clock
from .ports.frontend import FrontendClient
from .process_table import RunningReplica

log = logging.getLogger(__name__)

_TRIES = 3  # while the frontend is away; registering then tries longer
_WAIT_S = 2.0
_CREDENTIALS_LAST_S = 60.0  # less is not worth going on with: they would be renewed by registering anyway


@dataclass(frozen=True)
class ResumeNode:
    """Decides whether this start is a resumption, and makes it one.

    `needs_credentials`: the node may not connect to NATS without a login that the frontend minted.
    """

    enrolment: Enrolment
    identities: IdentityStore
    frontend: FrontendClient
    clock: Clock
    needs_credentials: bool = False

    async def resume(self, replicas: Collection[RunningReplica]) -> NodeId | None:
        """The id of the node this worker goes on as; None when it has to register.

        `replicas` are those that were taken over. Every one of these must hold: the identity was kept, so
        no drain or deregistration was sent; the node was not waiting for an approval; nothing it registered
        with has changed; its NATS credentials, if it was given any, are good for a while; the frontend
        answers a heartbeat with success; and each of its rows names a replica that runs here, on its port.
        """
        identity = await self.identities.load()
        if identity is None:
            return None
        reason = await self._changed(identity) or await self._asked(identity, replicas)
        if reason:
            log.info("not resuming node %s, registering: %s", identity.node_id, reason)
            return None
        self.enrolment.registered = identity.reply
        log.info(
            "resumed: node=%s replicas=%d; the frontend's rows are still true, nothing is registered again",
            identity.node_id,
            len(replicas),
        )
        return self.enrolment.node_id

    async def _changed(self, identity: NodeIdentity) -> str:
        """What is not as it was when the node registered; "" if all is."""
        if identity.status == PENDING:
            return "it was waiting for approval"
        if identity.frontend != self.enrolment.frontend_url:
            return f"it was registered at {mask_url(identity.frontend)}"
        stated = stated_by(await self.enrolment.request())
        changed = sorted(
            name
            for name in stated.keys() | identity.stated.keys()
            if stated.get(name) != identity.stated.get(name)
        )
        if changed:
            return f"it registered with another {', '.join(changed)}"
        return self._credentials_problem(identity)

    def _credentials_problem(self, identity: NodeIdentity) -> str:
        if not identity.nats_jwt and not identity.nats_user_seed:
            return "it has no NATS credentials" if self.needs_credentials else ""
        try:
            credentials = BusCredentials.parse(identity.nats_jwt, identity.nats_user_seed)
        except WrongCredentials as error:
            return str(error)
        if credentials.expires_at is None:
            return ""
        left_s = (credentials.expires_at - self.clock.now()).total_seconds()
        return "" if left_s > _CREDENTIALS_LAST_S else "its NATS credentials are at their end"

    async def _asked(self, identity: NodeIdentity, replicas: Collection[RunningReplica]) -> str:
        """What of the frontend's view is not true; "" if all is."""
        node_id = NodeId(identity.node_id)
        for attempt in range(1, _TRIES + 1):
            try:
                await self.frontend.heartbeat(node_id, await self.enrolment.heartbeat())
                rows = await self.frontend.loaded_models(node_id)
            except (FrontendRefused, NodeForgotten) as error:
                return str(error)
            except FrontendUnavailable as error:
                if attempt == _TRIES:
                    return str(error)
                await anyio.sleep(_WAIT_S)
            else:
                return _disagreement(rows, replicas)
        raise AssertionError("the last try returns")


def _disagreement(rows: Collection[LoadedModel], replicas: Collection[RunningReplica]) -> str:
    """The first row of the frontend that names no replica of ours.

    A replica without a row is fine: the frontend has forgotten it or never knew it, and the next install
    of its model finds it. A load that had not got an address yet fails or begins anew at the frontend.
    """
    ports = {(replica.key.model, replica.key.replica): replica.port for replica in replicas}
    for row in rows:
        if not row.address and row.state != "loaded":
            continue
        port = ports.get((row.model_name, row.replica_index or 0))
        if port is None or not row.address.endswith(f":{port}"):
            return f"the frontend's row of {row.model_name} at {row.address or '?'} is not true any more"
    return ""
