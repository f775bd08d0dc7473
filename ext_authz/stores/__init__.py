"""Where API keys live: a SQLite file by default, Redis when its URL is given."""
