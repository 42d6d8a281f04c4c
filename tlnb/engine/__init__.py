"""Plain PyTorch: layers, freezing, rates, training. No IPython, no widgets, no printing."""
