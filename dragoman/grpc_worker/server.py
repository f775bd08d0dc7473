"""Starts a gRPC server on the engine asked for, or on grpcio where that engine cannot be had."""

import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import Literal

from dragoman.batch import Batch
from dragoman.grpc_worker.api import Address, CallObserver, GrpcServer, Handler, Limits, TlsFiles
from dragoman.grpc_worker.sockets import UNIX_MODE

log = logging.getLogger("dragoman.grpc_worker")

Engine = Literal["ngh2", "grpcio"]


async def serve(
    methods: Mapping[str, Handler],
    *,
    listen: Address,
    engine: Engine = "ngh2",
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    tls: TlsFiles | None = None,
    observe: CallObserver | None = None,
    unix_mode: int = UNIX_MODE,
    health_names: Sequence[str] = (),
    batch: Batch | None = None,
) -> GrpcServer:
    """Serves unary methods, keyed by path (`/package.Service/Method`), and grpc.health.v1 beside them, which answers
    for the services by name and for `health_names`. `batch` is shared with those whom handlers ask.

    Raises OSError, naming the address, when it cannot listen.
    """
    # Only here: who needs no more than an address does not wait for the engines.
    start = None
    if engine == "ngh2":
        try:
            start = importlib.import_module("dragoman.grpc_worker.ngh2_engine").start
        except ImportError as error:
            log.warning("ngh2 cannot be imported (%s): serving gRPC with grpcio, which is many times slower", error)
    if start is None:
        start = importlib.import_module("dragoman.grpc_worker.grpcio_engine").start
    return await start(
        methods,
        listen=listen,
        limits=limits,
        tls=tls,
        observe=observe,
        unix_mode=unix_mode,
        health_names=health_names,
        batch=batch,
    )
