"""Gateway API semantics and policy merge: objects in, IR and conditions out; a module a concern."""
