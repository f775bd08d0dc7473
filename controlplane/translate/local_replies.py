# pyright: standard, reportAttributeAccessIssue=false
"""The bodies of what Envoy's filters refuse, as JSON, in the form that the services use.

Each is told by its response-code details, so that what the services, backends and routes answer is left as it is.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter, ExtensionFilter
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    LocalReplyConfig,
    ResponseMapper,
)

from controlplane.translate.wire import packed

_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_WHAT_ENVOY_SAYS = "%LOCAL_REPLY_BODY%"
_UNDECIDED = "The gateway cannot decide on this request now"
_JWT = "jwt_authn_access_denied"


class _Reply(NamedTuple):
    when: str  # CEL, on the attributes of a response
    error: str
    message: str = _WHAT_ENVOY_SAYS
    status: int | None = None
    challenge: str = ""
    retries: bool = False  # says when to come back, as the header does that the filter sets


# The first that matches counts.
_REPLIES = (
    # Says the names of all requirements; and the client's token may well be good.
    _Reply(f"{{details}}.startsWith('{_JWT}{{{{Wrong_requirement_name')", "unavailable", _UNDECIDED, 503),
    _Reply(f"{{details}} == '{_JWT}{{{{Jwt_is_missing}}}}'", "missing_credentials"),
    _Reply(f"{{details}}.startsWith('{_JWT}') && response.code == 403", "forbidden"),
    _Reply(f"{{details}}.startsWith('{_JWT}')", "invalid_token"),
    _Reply("{details} == 'unknown_api_key'", "invalid_api_key", "The API key is not valid", challenge="ApiKey"),
    _Reply(
        "{details} in ['missing_api_key', 'missing_credentials', 'missing_key_sources']",
        "missing_credentials",
        "An API key is missing",
        challenge="ApiKey",
    ),
    _Reply("{details} == 'client_not_allowed'", "forbidden", "This client may not call here"),
    _Reply("{details}.startsWith('rbac_access_denied')", "forbidden", "This client may not call here"),
    _Reply("{details} == 'local_rate_limited'", "rate_limited", "Too many requests", retries=True),
    _Reply("{details} in ['ext_authz_error', 'rate_limiter_error']", "unavailable", _UNDECIDED),
)


_OF_QUOTA = _Reply("{details} == 'rate_limited_by_quota'", "rate_limited", "Too many requests")


def local_reply_config(*, quota_mode: bool = False) -> LocalReplyConfig:
    """Returns how local replies are written; the same on every listener."""
    replies = (*_REPLIES, _OF_QUOTA) if quota_mode else _REPLIES
    return LocalReplyConfig(mappers=[_mapper(reply) for reply in replies])


def _mapper(reply: _Reply) -> ResponseMapper:
    expression = reply.when.format(details="response.code_details")
    filter_ = ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel", typed_config=packed(ExpressionFilter(expression=expression))
    )
    mapper = ResponseMapper(
        filter=AccessLogFilter(extension_filter=filter_),
        body_format_override=_body(reply),
    )
    headers = {"cache-control": "no-store"} | ({"www-authenticate": reply.challenge} if reply.challenge else {})
    for name, value in headers.items():
        option = HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=_OVERWRITE)
        mapper.headers_to_add.append(option)
    if reply.status is not None:
        mapper.status_code.value = reply.status
    return mapper


def _body(reply: _Reply) -> SubstitutionFormatString:
    body = {"error": reply.error, "message": reply.message}
    if not reply.retries:
        return SubstitutionFormatString(json_format={**body, "request_id": "%REQ(X-REQUEST-ID)%"})
    # A number, which only a text can hold; so nothing of a client may be in it, for it would not be escaped.
    text = f'{json.dumps(body)[:-1]}, "retry_after": %RESP(RETRY-AFTER)%}}\n'
    return SubstitutionFormatString(text_format_source={"inline_string": text}, content_type="application/json")
