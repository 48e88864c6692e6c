"""Commands that train."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spikingir.cli.console import CommandError, say, sentence


def train(
    recipe: str,
    /,
    *,
    data_root: Annotated[Path, Parameter(env_var="SPIKINGIR_DATA")],
    runs: Path = Path("runs"),
    stage: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
) -> None:
    """Train a model by a recipe; what is done is skipped, what was interrupted goes on.

    Args:
        recipe: Name of a recipe that ships (see: spikingir recipes), or a .toml file.
        data_root: Folder of the image collection.
        runs: Folder for the results; the recipe gets a folder in it.
        stage: Stages to run; all unless given.
    """
    from spikingir.training.recipe import follow, load_recipe

    try:
        loaded = load_recipe(recipe)
        done = follow(loaded, data_root, runs / loaded.name, stages=stage, progress=sys.stderr.isatty(), announce=say)
    except ValueError as error:  # unfit images, a checkpoint of another configuration: said in one sentence too
        raise CommandError(sentence(error)) from error
    for name, path in done.items():
        say(f"{name}: {path}")


def recipes() -> None:
    """List the recipes that ship."""
    from spikingir.training.recipe import recipe_names

    for name in recipe_names():
        say(name)
