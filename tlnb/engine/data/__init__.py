"""Where samples come from, how they are split, decoded, stored and augmented."""
