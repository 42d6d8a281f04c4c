"""What the network has learned: scores, mistakes, where it looks, predictions, runs side by side."""
