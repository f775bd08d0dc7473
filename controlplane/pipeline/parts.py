"""The collections behind what is sent, for who explains it: to be read, never set."""

from __future__ import annotations

from typing import NamedTuple

from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.http import HttpRoutes
from controlplane.pipeline.listeners import Listeners
from controlplane.pipeline.objects import Objects
from controlplane.pipeline.policies import PolicyIndex


class Parts(NamedTuple):
    """What a snapshot is made from."""

    objects: Objects
    policies: PolicyIndex
    attachments: Attachments
    listeners: Listeners
    http: HttpRoutes
