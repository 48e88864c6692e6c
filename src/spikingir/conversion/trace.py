"""From a module to a body as data: torch.fx tracing, batch-norm folding, refusal of what is not linear."""

from torch import fx, nn

from spikingir.conversion.builder import Builder, TracedBody
from spikingir.conversion.errors import ConversionError
from spikingir.conversion.handlers import TABLES
from spikingir.conversion.qcfs import QCFS

__all__ = ["TracedBody", "trace_body"]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QCFS) or super().is_leaf_module(m, module_qualified_name)


def trace_body(body: nn.Module) -> TracedBody:
    """Trace ``body`` into nodes.

    Args:
        body: Convolutional network in eval mode; its parameters are copied, not shared.

    Raises:
        ConversionError: It cannot be traced, or holds an operation that a spiking network cannot do.
    """
    try:
        graph = _Tracer().trace(body)
    except ConversionError:
        raise
    except Exception as error:  # fx raises what the body's own code raises on a proxy
        raise ConversionError(
            f"cannot trace {type(body).__name__}: {error}. Its forward must neither branch on values nor write into "
            "slices; give convert a module whose forward is a fixed sequence of operations"
        ) from error
    return Builder(body, graph, TABLES).build()
