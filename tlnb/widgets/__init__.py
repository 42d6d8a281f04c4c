"""Views of a session in a notebook: layers, learning rate, training, and a panel of all three."""
