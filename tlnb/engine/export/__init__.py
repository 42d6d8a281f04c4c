"""Taking the network along: exported files with their model card, and the session as a plain script."""
