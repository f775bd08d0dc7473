"""Unary gRPC servers for trusted peers (Envoy): a handler takes a request's bytes and a call to finish."""

from dragoman.grpc_worker.api import (
    Address,
    Call,
    CallObserver,
    GrpcServer,
    Handler,
    Limits,
    StatusCode,
    TlsFiles,
)
from dragoman.grpc_worker.server import Engine, serve

__all__ = [
    "Address",
    "Call",
    "CallObserver",
    "Engine",
    "GrpcServer",
    "Handler",
    "Limits",
    "StatusCode",
    "TlsFiles",
    "serve",
]
