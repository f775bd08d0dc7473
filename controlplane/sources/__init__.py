"""Where objects come from: each source yields the same change events."""
