"""Make before break, as data: in which order types travel, and how long each may wait for another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controlplane.xds.resources import (
    AUTHZ_POLICY,
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ORDER,
    RATE_LIMIT_CONFIG,
    ROUTE,
    SECRET,
)

# A type that is not listed has nothing to wait for, and nothing waits for it.
RANK: Final = {type_url: rank for rank, type_url in enumerate(ORDER)}
UNRANKED: Final = -1

# A type is removed after everything that may refer to it: listeners name routes, routes name clusters, and so on.
REMOVAL_ORDER: Final = (
    LISTENER,
    ROUTE,
    EXTENSION_CONFIG,
    CLUSTER,
    ENDPOINT,
    SECRET,
    RATE_LIMIT_CONFIG,
    AUTHZ_POLICY,
)

# What is asked for by name as soon as its referrer is there: waiting could only hold up the referrer.
# It is also always sent from the newest snapshot: endpoints and secrets refer to nothing.
IMMEDIATE: Final = frozenset({ENDPOINT, SECRET})

# In state-of-the-world xDS, absence means removal for these (envoyproxy/ratelimit takes each response for all of its
# configuration); for the others a response speaks of what it holds.
FULL_STATE: Final = frozenset({CLUSTER, LISTENER, AUTHZ_POLICY, RATE_LIMIT_CONFIG})
WILDCARD_BY_DEFAULT: Final = FULL_STATE

SERVICE_POLICIES: Final = frozenset({AUTHZ_POLICY, RATE_LIMIT_CONFIG})


@dataclass(frozen=True, slots=True)
class Timing:
    """Bounds, in seconds, on what one client or type may wait for; after each the push goes on, and it is counted."""

    warm_wait_s: float = 5.0
    """How long listeners and routes wait for the endpoints of new clusters to be acknowledged."""
    subscribe_grace_s: float = 1.0
    """How long after a cluster's acknowledgement the subscription to its endpoints may take."""
    nack_hold_s: float = 1.0
    """How long later types wait, after a rejection, for a snapshot that puts it right."""
    drain_s: float = 5.0
    """How long a cluster stays after the last reference: requests that hold its route may still retry."""
    patience_s: float = 2.0
    """How long newer snapshots may restart a push; then it is finished as it is, and the newest follows."""
    policy_wait_s: float = 0.5
    """How long routes wait until the services have acknowledged their policies."""
    workers_wait_s: float = 5.0
    """How long, after a start, routes wait for the first worker of a service: it may come later than Envoys."""
    linger_s: float = 60.0
    """How long a service's policy stays after it left the snapshot: routes in force may still name it."""
