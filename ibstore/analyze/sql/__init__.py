"""DuckDB lives here: counting keys, the tables that queries see, and the sandbox they run in."""
