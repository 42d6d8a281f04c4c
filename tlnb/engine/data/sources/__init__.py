"""Where data comes from: each file reads one kind of source and answers with a ``Found``."""
