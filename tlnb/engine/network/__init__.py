"""The network as layers in data order: reading its graph, cutting it, freezing it, giving it a new head."""
