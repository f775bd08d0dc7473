"""Certificates of clients: whom a Gateway trusts on a port (Gateway API: GatewaySpec.tls.frontend)."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.api.gateway import FrontendTLSValidation, Gateway
from controlplane.compile import trust
from controlplane.compile.view import View
from controlplane.conditions import Condition, false
from controlplane.ir import ClientValidation


@dataclass(frozen=True, slots=True)
class Frontend:
    """How clients are checked on a port (None: not at all), and what is wrong with that, per type of condition."""

    validation: ClientValidation | None = None
    accepted: Condition | None = None
    resolved: Condition | None = None


def frontend(view: View, gateway: Gateway, port: int) -> Frontend:
    """Returns what a Gateway asks of the clients of an HTTPS port; without a trusted authority nobody is let in."""
    asked, trusted = _asked(gateway, port)
    if asked is None or trusted is None:
        return Frontend()
    faults = trust.faults(view, trusted)
    resolved = faults[0] if faults else None
    required = asked.mode == "AllowValidOnly"
    if trust.authorities(view, trusted) is None:
        message = "none of the references to certificate authorities can be used"
        accepted = false("Accepted", "NoValidCACertificate", message, trusted.field)
        return Frontend(None, accepted, resolved)
    return Frontend(ClientValidation(trusted.secret, required), None, resolved)


def authorities(view: View, gateway: Gateway, secret: str) -> trust.Authorities | None:
    """Returns the authorities that SDS knows by a name; None where the Gateway has none of that name."""
    # Of every port that is named, a listener's or not: it may be one of a ListenerSet's.
    for port in (None, *_own_settings(gateway)):
        _, trusted = _asked(gateway, port)
        if trusted is not None and trusted.secret == secret:
            return trust.authorities(view, trusted)
    return None


def insecure(gateway: Gateway) -> Condition | None:
    """Returns the condition that says that clients without a valid certificate are let in somewhere."""
    tls = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if tls is None:
        return None
    every = (tls.default, *(each.tls for each in tls.per_port))
    if not any(each.validation is not None and each.validation.mode == "AllowInsecureFallback" for each in every):
        return None
    message = "clients may connect without a valid certificate (mode AllowInsecureFallback)"
    return Condition("InsecureFrontendValidationMode", "True", "ConfigurationChanged", message)


def _own_settings(gateway: Gateway) -> tuple[int, ...]:
    tls = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    return tuple(each.port for each in tls.per_port) if tls is not None else ()


def _asked(gateway: Gateway, port: int | None) -> tuple[FrontendTLSValidation | None, trust.Trust | None]:
    """Returns the setting of a port, and whom it trusts; None stands for the ports that have none of their own."""
    tls = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if tls is None:
        return None, None
    for index, each in enumerate(tls.per_port):
        if each.port == port:
            return _with_trust(gateway, each.tls.validation, f"spec.tls.frontend.perPort[{index}].tls", port)
    return _with_trust(gateway, tls.default.validation, "spec.tls.frontend.default", None)


def _with_trust(
    gateway: Gateway, asked: FrontendTLSValidation | None, field: str, port: int | None
) -> tuple[FrontendTLSValidation | None, trust.Trust | None]:
    return asked, trust.of_frontend(gateway.key, asked, field, port) if asked is not None else None
