"""A network's body as data: its graph, its operations, and how torch.fx traces a module to it."""
