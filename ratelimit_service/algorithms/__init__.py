"""How hits are counted: a module an algorithm, each the same for Redis (a script) and for memory (a step)."""
