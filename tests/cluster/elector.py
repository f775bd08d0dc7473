"""Stands for election in a process of its own, and prints what comes of it: `elector.py KUBECONFIG NAMESPACE NAME`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from controlplane.kube.client import Api
from controlplane.kube.lease import Election, LeaseTiming


async def main(kubeconfig: str, namespace: str, name: str) -> None:
    async with Api.connect(kubeconfig=Path(kubeconfig)) as api:
        await Election(
            api,
            namespace=namespace,
            name="elected",
            identity=name,
            address=f"{name}:1",
            on_change=lambda leading: print("leads" if leading else "leads no more", flush=True),
            timing=LeaseTiming(lease_s=2.0, renew_within_s=1.4, retry_s=0.2),
        ).run()


asyncio.run(main(*sys.argv[1:]))
