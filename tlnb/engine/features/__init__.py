"""The frozen prefix, run once: what it costs, how exactly it is computed, and where its output is kept."""
