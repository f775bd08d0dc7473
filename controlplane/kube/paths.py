"""Where objects live in the Kubernetes API."""

from __future__ import annotations

from urllib.parse import quote


def path_of(group: str, version: str, plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Returns the path of a collection, of an object or of a subresource; the core group's name is empty."""
    parts = ["/apis", group, version] if group else ["/api", version]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    if name:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def group_version(api_version: str) -> tuple[str, str]:
    """Returns group and version of an `apiVersion`."""
    group, slash, version = api_version.partition("/")
    return (group, version) if slash else ("", group)
