"""Stands for election in a process of its own, and prints what comes of it.

Arguments: KUBECONFIG NAMESPACE NAME LEASE_S.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from controlplane.kube.client import Api
from controlplane.kube.lease import Election, LeaseTiming


async def main(kubeconfig: str, namespace: str, name: str, lease_s: float) -> None:
    async with Api.connect(kubeconfig=Path(kubeconfig)) as api:
        await Election(
            api,
            namespace=namespace,
            name="elected",
            identity=name,
            address=f"{name}:1",
            on_change=lambda leading: print("leads" if leading else "leads no more", flush=True),
            timing=LeaseTiming(lease_s=lease_s, renew_within_s=lease_s * 0.7, retry_s=0.2),
        ).run()


asyncio.run(main(*sys.argv[1:4], lease_s=float(sys.argv[4])))
