"""How results look: tables, figures, progress; it knows nothing of networks."""
