"""A folded network in formats of other tools, each checked by running what was written.

``npz`` (plain arrays), ``onnx`` (integers), ``program`` (torch.export), ``nir`` and ``spikingjelly`` know one format
each; ``export`` chooses.
"""
