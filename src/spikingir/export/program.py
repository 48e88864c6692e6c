"""A folded network as a program of ``torch.export``: a ``.pt2`` file that torch runs without this package."""

import copy
import io
from math import lcm

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim

from spikingir.deploy.folded import FoldedNetwork, Kernel, on_grid
from spikingir.export.errors import ExportError
from spikingir.export.npz import require_plain


class _Program(nn.Module):
    """What is exported: the network in double precision, whose sums are exact under every setting of torch."""

    def __init__(self, network: FoldedNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.network.dtype = torch.float64
        for kernel in self.network.modules():
            if isinstance(kernel, Kernel):
                kernel.double()
        self.register_buffer("grid", torch.tensor(2.0**network.image_bits, dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        """Restored image."""
        return self.network.run(image, on_grid(image.double(), self.get_buffer("grid")), None, False)


def program_content(network: FoldedNetwork, sample: Tensor) -> bytes:
    """A folded network as the bytes of a ``.pt2`` file, for any batch, and any size that its strides divide.

    The program takes images within 8 in magnitude; that is not checked.

    Args:
        network: The network.
        sample: An image of such a size.

    Raises:
        ExportError: torch cannot export it.
        TilingError: What a pixel depends on is not known, and so the sizes that the network takes.
    """
    require_plain(network)
    reaches = network.graph.reaches().values()
    stride = lcm(*(reach.stride.numerator for both in reaches for reach in both))
    rows, columns = (Dim(name, min=2) for name in ("rows", "columns"))
    sides = (rows, columns) if stride == 1 else (stride * rows, stride * columns)
    batch = sample[:1].repeat(2, 1, 1, 1)  # a batch of one would be taken for a constant
    try:
        program = torch.export.export(
            _Program(network), (batch,), dynamic_shapes=({0: Dim("batch"), 2: sides[0], 3: sides[1]},)
        )
    except UserError as error:
        raise ExportError(f"torch.export refuses the network: {str(error).splitlines()[0]}") from None
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def run_program(content: bytes, image: Tensor) -> Tensor:
    """Restored image of a ``.pt2`` file."""
    restored: Tensor = torch.export.load(io.BytesIO(content)).module()(image)
    return restored
