"""How the page looks, and its API: Gradio's components around a :class:`~spikingir.web.service.Service`."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import pandas as pd

from spikingir.errors import SpikingIRError
from spikingir.evaluation.energy import in_words
from spikingir.restoration.formats import SUFFIXES, ImageError
from spikingir.web.service import AUTO, FORGOTTEN_AFTER, MAX_SIGMA, SCHEDULES, TRAINED, Answer, RequestError, Service

if TYPE_CHECKING:
    from collections.abc import Callable

_UPRIGHT = 9  # numbers that have room side by side under a chart on a phone
_TURN = "restore"  # one photograph at a time, whether page or API sent it

_API = """Restore a photograph.

Returns the restored file, in the format and depth of the one that was sent, and a report: size, model, time, spikes,
energy in mJ of the spiking and of the conventional network (operations alone, as the paper counts), spikes per neuron
and time step of each layer, notes."""

_ABOUT = """Restores photographs with a spiking neural network, on the machine that serves this page: photographs go
nowhere else, and are deleted after an hour. PNG, JPEG, TIFF, WebP and BMP; 16 bits, transparency and metadata are kept.
"""

CSS = """
.figures { width: 100%; border-collapse: collapse; }
.figures, .figures tbody, .figures tr { border: 0 !important; }
.figures th, .figures td { border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
.figures th { text-align: left; font-weight: normal; opacity: .75; padding: .3em 1em .3em 0 !important; width: 40%; }
.figures td { font-variant-numeric: tabular-nums; padding: .3em 0 !important; }
.energy { height: .55em; border-radius: .3em; margin-top: .2em; min-width: 2px; }
.energy.snn { background: var(--primary-500); }
.energy.ann { background: var(--neutral-400); }
"""


def theme() -> Any:
    """Gradio's own, in the fonts of the visitor's system: the usual ones come from another host."""
    return gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="teal"
    )


def build(service: Service) -> Any:
    """The page of a service, as Gradio's ``Blocks``.

    Args:
        service: What restores.
    """
    limits = service.limits
    choices = service.choices
    automatic = AUTO in choices.values()
    with gr.Blocks(
        title="SpikingIR", analytics_enabled=False, delete_cache=(FORGOTTEN_AFTER // 6, FORGOTTEN_AFTER)
    ) as page:
        gr.Markdown(f"# SpikingIR\n{_ABOUT}")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                photo = gr.File(
                    label=f"Photograph (up to {limits.megabytes} MiB, {limits.megapixels:g} MP)",
                    file_types=list(SUFFIXES),
                    height=150,
                )
                model = gr.Dropdown(
                    list(choices.items()), value=next(iter(choices.values()), None), label="What to remove"
                )
                sigma = gr.Dropdown(
                    [AUTO, "15", "25", "50"],
                    value=AUTO,
                    allow_custom_value=True,
                    visible=automatic,
                    label="Noise level (sigma)",
                    info=f"auto estimates it; or a number up to {MAX_SIGMA:g}",
                )
                with gr.Row():
                    schedule = gr.Dropdown(
                        list(SCHEDULES), value=TRAINED, label="Schedule", info="of the spikes", min_width=130
                    )
                    time_steps = gr.Number(
                        label="Time steps",
                        info="0: as trained",
                        precision=0,
                        minimum=0,
                        maximum=limits.time_steps,
                        value=0,
                        min_width=130,
                    )
                start = gr.Button("Restore", variant="primary", elem_id="restore")
            with gr.Column(scale=5, min_width=320):
                slider = gr.ImageSlider(
                    label="Before and after", interactive=False, max_height=560, buttons=["fullscreen"], type="filepath"
                )
                file = gr.DownloadButton("Download", variant="primary", interactive=False, elem_id="download")
                figures = gr.HTML()
                rates = gr.BarPlot(
                    x="layer",
                    y="rate",
                    y_title="spikes per neuron and step",
                    label="Firing rates, by layer",
                    height=260,
                    visible=False,
                    buttons=[],
                )
                report = gr.JSON(visible=False, label="report")
        asked = [photo, model, sigma, time_steps, schedule]
        _refuse_addresses(photo)
        model.input(
            lambda chosen: gr.update(visible=chosen == AUTO), model, sigma, api_visibility="private", queue=False
        )
        gr.on(
            [start.click],
            _shown(service),
            asked,
            [slider, file, figures, rates],
            show_progress_on=slider,
            api_visibility="private",
            concurrency_limit=1,
            concurrency_id=_TURN,
        )
        # The API's endpoint needs a trigger, and outputs that are values alone: a button that is never seen.
        answer = gr.File(visible=False, label="restored")
        gr.Button(visible=False).click(
            _answered(service),
            asked,
            [answer, report],
            api_name="restore",
            api_description=_API,
            concurrency_limit=1,
            concurrency_id=_TURN,
        )
    page.queue(max_size=limits.waiting, api_open=False)
    return page


def _refuse_addresses(file: Any) -> None:
    """Let a component take files that are sent alone: Gradio would fetch one whose address a client names."""
    move = file.async_move_resource_to_block_cache

    async def move_here(place: str | Path | None) -> Any:
        if str(place).lower().startswith(("http:", "https:")):
            raise gr.Error("an address was given; expected a file: send the photograph itself", print_exception=False)
        return await move(place)

    file.async_move_resource_to_block_cache = move_here


def _answered(service: Service) -> "Callable[..., tuple[str, dict[str, Any]]]":
    def restore(
        photo: str | None, model: str, sigma: str | float, time_steps: float, schedule: str
    ) -> tuple[str, dict[str, Any]]:
        answer = _restore(service, photo, model, sigma, time_steps, schedule, pictures=False)
        return str(answer.file), answer.report

    return restore


def _shown(service: Service) -> "Callable[..., tuple[Any, ...]]":
    bar = gr.Progress()

    def show(
        photo: str | None,
        model: str,
        sigma: str | float,
        time_steps: float,
        schedule: str,
        progress: Any = bar,
    ) -> tuple[Any, ...]:
        answer = _restore(
            service,
            photo,
            model,
            sigma,
            time_steps,
            schedule,
            progress=lambda done, total: progress((done, total), desc="restoring", unit="tiles"),
        )
        report = answer.report
        label = f"Download {report['file']} ({report['bits']} bits, {_size(answer.file)})"
        return (
            (str(answer.before), str(answer.after)),
            gr.DownloadButton(label=label, value=str(answer.file), interactive=True),
            figures_of(report),
            _bars(report["firing_rates"]),
        )

    return show


def _restore(
    service: Service,
    photo: str | None,
    model: str,
    sigma: str | float,
    time_steps: float,
    schedule: str,
    *,
    pictures: bool = True,
    progress: "Callable[[int, int], None]" = lambda done, total: None,
) -> Answer:
    """What can be wrong, as Gradio says it."""
    try:
        return service.restore(photo, model, sigma, time_steps, schedule, pictures=pictures, progress=progress)
    except (RequestError, ImageError) as error:
        # a file goes by the name that the visitor knows it by
        said = str(error) if photo is None else str(error).replace(photo, Path(photo).name)
        raise gr.Error(escape(said, quote=False), duration=None, print_exception=False) from error
    except MemoryError as error:
        raise gr.Error("there is not enough memory for this; give a smaller photograph") from error
    except SpikingIRError as error:
        raise gr.Error(escape(str(error), quote=False), duration=None, print_exception=False) from error


def figures_of(report: Mapping[str, Any]) -> str:
    """Spikes and energy beside the conventional network's, as HTML."""
    snn, ann = report["snn_mj"], report["ann_mj"]
    longest = max(snn, ann)
    bars = {
        kind: f'{in_words(spent)}<div class="energy {kind}" style="width: {100 * spent / longest:.1f}%"></div>'
        for kind, spent in (("snn", snn), ("ann", ann))
    }
    sigma = "" if report["sigma"] is None else f", for sigma {report['sigma']:.3g}"
    rows = {
        "Photograph": f"{report['width']} x {report['height']}, {report['bits']} bits",
        "Model": f"{escape(report['model'])}{sigma}",
        "Time": f"{report['schedule']}, T = {report['time_steps']}; {report['seconds']:.1f} s",
        "Spikes": f"{report['spikes']:,} ({report['spikes_per_neuron']:.2f} per neuron)",
        "Energy, spiking network": bars["snn"],
        "Energy, conventional network": bars["ann"],
        "Spiking / conventional": f"{100 * snn / ann:.0f} %; operations alone, as the paper counts them",
    }
    cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in report["notes"])
    return f'<table class="figures">{cells}</table>' + (f"<ul>{notes}</ul>" if notes else "")


def _bars(firing_rates: Mapping[str, float]) -> Any:
    numbers = [str(i + 1) for i in range(len(firing_rates))]
    return gr.BarPlot(
        value=pd.DataFrame({"layer": numbers, "rate": list(firing_rates.values())}),
        sort=numbers,
        x_label_angle=-90 if len(numbers) > _UPRIGHT else 0,
        # from zero, or small differences look large
        y_lim=[0, 1.05 * max(firing_rates.values()) or 1],
        visible=True,
    )


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
