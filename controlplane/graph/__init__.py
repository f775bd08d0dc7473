"""Derived collections: keyed functions whose reads are recorded; a change recomputes exactly what depended on it.

Inputs are `Table`s. A `Derived` is a function of a key that may read tables, indexes and other derived values. An
`Index` inverts a table: each row says under which keys it wants to be found. A `Fold` is made from many values, and
learns of a change only what is new. `Graph.stabilise` brings everything that a `Root` asks for up to date and says what
changed; between two calls nothing is computed.
"""

from controlplane.graph.folds import Change, Fold
from controlplane.graph.graph import Graph
from controlplane.graph.indexes import Index, Posting
from controlplane.graph.nodes import CycleError
from controlplane.graph.roots import Root
from controlplane.graph.tables import Derived, Table

__all__ = ["Change", "CycleError", "Derived", "Fold", "Graph", "Index", "Posting", "Root", "Table"]
