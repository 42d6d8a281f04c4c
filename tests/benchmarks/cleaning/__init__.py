"""How many wrong labels and copies are found, and what mending them is worth."""
