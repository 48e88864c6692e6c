"""The command that lists the models that ship."""

import json as json_
from typing import Any

from spikingir.cli.console import say
from spikingir.cli.tables import table


def models(*, json: bool = False) -> None:
    """List the models that ship: what each is for, and its spiking networks.

    Args:
        json: Print JSON.
    """
    from spikingir.zoo.catalogue import Model, model_names, read_shipped

    def describe(model: Model) -> dict[str, Any]:
        variants = [
            {
                "file": variant.file,
                "schedule": variant.schedule,
                "time_steps": variant.time_steps,
                "default": variant.file == model.default,
            }
            for variant in model.variants
        ]
        return {
            "name": model.name,
            "task": model.task,
            "purpose": model.purpose,
            "channels": model.channels,
            "sigma": model.sigma,
            "takes_level": model.takes_level,
            "architecture": model.architecture,
            "licence": model.licence,
            "bytes": sum(path.stat().st_size for path in model.folder.glob("*.safetensors")),
            "variants": variants,
        }

    found = [describe(read_shipped(name)) for name in model_names()]
    if json:
        say(json_.dumps(found, indent=2))
        return
    rows = [["model", "removes", "spiking networks", "MB"]]
    for entry in found:
        clocks = [f"{v['schedule']} T = {v['time_steps']}{' *' * v['default']}" for v in entry["variants"]]
        rows.append([entry["name"], entry["purpose"], ", ".join(clocks), f"{entry['bytes'] / 1e6:.1f}"])
    say(table(rows, words=3))
    say("* runs unless --schedule or --time-steps ask for another")
