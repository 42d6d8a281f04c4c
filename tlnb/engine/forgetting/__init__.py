"""What becomes of the old task: the network of before, guards, blends, measures."""
