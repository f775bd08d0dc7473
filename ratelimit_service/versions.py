"""Other versions of a policy than the one that a request names: what to go by where that one is not known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ratelimit_service.model import Config, Domain

_MOST_TRIED = 8


class Versions:
    """The domains that are named by their content, `POLICY/HASH`, by policy.

    The control plane names them so, and counters without the domain. So what an edit left as it is counts on, also
    where an Envoy has heard of the edit and this process has not, or the other way round.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._found: Mapping[str, Sequence[Domain]] | None = None

    def of(self, name: str) -> Sequence[Domain]:
        """Returns the versions that are known of what a domain is one of, the newest first."""
        policy, slash, _ = name.rpartition("/")
        if not slash:
            return ()
        if self._found is None:
            # Made when first asked for: nearly never.
            self._found = _by_policy(self._config)
        return self._found.get(policy, ())[:_MOST_TRIED]

    def closest(self, name: str, descriptors: Sequence[Iterable[tuple[str, str]]]) -> Domain | None:
        """Returns the version of a domain that knows most of the descriptors, the newest of several; None for none."""
        best, known = None, 0
        for domain in self.of(name):
            count = sum(domain.root.rule_of(entries) is not None for entries in descriptors)
            if count > known:
                best, known = domain, count
        return best


def _by_policy(config: Config) -> Mapping[str, Sequence[Domain]]:
    found: dict[str, list[Domain]] = {}
    # What came last stands last.
    for domain in reversed(tuple(config.domains.values())):
        if domain.counters_without_domain:
            found.setdefault(domain.name.rpartition("/")[0], []).append(domain)
    return found
