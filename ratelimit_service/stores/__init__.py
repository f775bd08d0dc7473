"""Where counters live: in this process, or in Redis."""
