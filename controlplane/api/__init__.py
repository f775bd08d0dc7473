"""The vocabulary: typed models of every kind that Dragoman reads, a module a kind."""
