"""Decides, without I/O, whether what a request carries satisfies its policy."""

from collections.abc import Mapping
from dataclasses import dataclass

from ext_authz import api_keys, claims
from ext_authz.credentials import Found, credentials
from ext_authz.identity import Identity, Outcome, Reason, Refusal
from ext_authz.jwt_verify import verify
from ext_authz.policy import ApiKeyRules, Authorization, Policy, Rule
from ext_authz.stores.records import KeyRecord

Records = Mapping[str, KeyRecord | None]
MISSING = Refusal(Reason.MISSING, "Credentials are required")


@dataclass(frozen=True, slots=True)
class NeedKeys:
    """The decision needs these keys of the store."""

    key_ids: tuple[str, ...]


Decision = tuple[Identity, ...] | Refusal


def decide(policy: Policy, found: Found, now: float, records: Records | None = None) -> Decision | NeedKeys:
    """Returns who calls, why not, or which keys of the store it takes to say (then call again with their records)."""
    token = _token(policy, found, now)
    if isinstance(token, Identity) and not policy.require_all:
        return _authorize(policy.authorization, (token,))
    key = _key(policy.api_keys, found, now, records) if policy.api_keys is not None else None
    if isinstance(key, NeedKeys):
        # A token that is refused decides alone when both are asked for.
        return token if policy.require_all and isinstance(token, Refusal) else key
    return _combine(policy, token, key)


def _combine(policy: Policy, token: Outcome | None, key: Outcome | None) -> Decision:
    presented = tuple(outcome for outcome in (token, key) if outcome is not None)
    passed = tuple(outcome for outcome in presented if isinstance(outcome, Identity))
    if not presented:
        return _authorize(policy.authorization, ()) if policy.allow_anonymous else MISSING
    if passed and (len(passed) == 2 or not policy.require_all):
        return _authorize(policy.authorization, passed)
    refused = [outcome for outcome in presented if isinstance(outcome, Refusal)]
    return _telling(refused) if refused else MISSING


def _telling(refused: list[Refusal]) -> Refusal:
    """The refusal that tells the client most: one field may be read as a token and as a key, and be meant as either."""
    vague = (Reason.MALFORMED_TOKEN, Reason.KEY_UNKNOWN)
    return next((refusal for refusal in refused if refusal.reason not in vague), refused[0])


def _token(policy: Policy, found: Found, now: float) -> Outcome | None:
    """What the tokens of the request prove; None when it has none."""
    first: Refusal | None = None
    tokens: dict[str, None] = {}
    for provider in policy.providers:
        tokens.update(dict.fromkeys(credentials(provider.sources, found)))
    for token in list(tokens)[:4]:
        providers = [provider for provider in policy.providers if token in credentials(provider.sources, found)]
        outcome = verify(token, providers, now)
        if isinstance(outcome, Identity):
            return outcome
        first = first or outcome
    return first


def _key(rules: ApiKeyRules, found: Found, now: float, records: Records | None) -> Outcome | NeedKeys | None:
    """What the keys of the request prove; None when it has none."""
    values = credentials(rules.sources, found)
    if not values:
        return None
    keys = [key for key in map(api_keys.read, values) if key is not None]
    for key in keys:
        inline = api_keys.check_inline(rules, key)
        if inline is not None:
            return inline
    stored = [(key, key.key_id) for key in keys if key.key_id is not None] if rules.use_store else []
    if not stored:
        return api_keys.bad(Reason.KEY_UNKNOWN)
    if records is None:
        return NeedKeys(tuple(key_id for _, key_id in stored))
    outcomes = [api_keys.check_record(rules, key, records.get(key_id), now) for key, key_id in stored]
    return next((outcome for outcome in outcomes if isinstance(outcome, Identity)), outcomes[0])


def _authorize(authorization: Authorization | None, identities: tuple[Identity, ...]) -> Decision:
    if authorization is None:
        return identities
    rule = next((rule for rule in authorization.rules if _applies(rule, identities)), None)
    if rule.allow if rule is not None else authorization.default_allow:
        return identities
    return Refusal(Reason.FORBIDDEN, "Access is not allowed")


def _applies(rule: Rule, identities: tuple[Identity, ...]) -> bool:
    """Whether one identity has all that the rule names; one that names nothing applies to anybody, also without one."""
    if not (rule.provider or rule.clients or rule.scopes or rule.claims):
        return True
    return any(
        (not rule.provider or identity.provider == rule.provider)
        and (not rule.clients or identity.client in rule.clients)
        and identity.scopes.issuperset(rule.scopes)
        and all(claims.matches(claims.find(identity.claims, match.name), match.values) for match in rule.claims)
        for identity in identities
    )
