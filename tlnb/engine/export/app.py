"""A small page in the browser with the network, for people who are to try it: Gradio on the exported loader."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.sound.clips import PieceReader
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.export.script.sounds import reader_of
from tlnb.engine.export.script.text import literal
from tlnb.engine.results.conformal import needed
from tlnb.engine.results.sure import Sure
from tlnb.engine.results.sureness import SURE
from tlnb.errors import ExportError

WORD = "app"
"""What asks for such a folder in place of a file."""
NETWORK = "network.safetensors"
PAGE, NEEDS = "app.py", "requirements.txt"
SHOWN = 5  # classes

_APP = '''"""A page in the browser that tries the network on what people give it.

    pip install -r requirements.txt
    python app.py

Then open the address that is printed. GRADIO_SERVER_PORT is another port, and with GRADIO_SHARE=True others reach it
through the servers of Gradio.
"""

import gradio
import torch

import network

MODEL = network.load()


def answer(given):
    """What the network says of {what}."""
    if given is None or given == "":
        return {nothing}
    try:
        inputs = {read}
    except Exception as error:
        raise gradio.Error(f"cannot be read: {{error}}") from None
    with torch.inference_mode():
        found = network.predict(MODEL, inputs).mean(0).tolist()
{judge}    return {answers}


page = gradio.Interface(
    answer,
    {taken},
    {shown},
    title={title},
    description={description},
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
'''
_JUDGE = """    sets, none = network.judge(MODEL, inputs)
    sure = "none of these" if none[0] else ", ".join(sets[0]) or "no class"
"""
_PROBABILITIES = "dict(zip(network.CLASSES, found))"
_VALUES = "[[name, value] for name, value in zip(network.CLASSES, found)]"


def files(samples: Samples, kind: str, name: str, data: str, sure: Sure | None) -> dict[str, str]:
    """The page and what it needs, by file name; the network and its loader lie beside them.

    Args:
        samples: what the network takes.
        kind: of the task: ``classes``, ``labels`` or ``values``.
        name: of the network.
        data: that it learned.
        sure: what the loader judges by; None where it does not.

    Raises:
        ExportError: inputs that nobody can give a page.
    """
    sounds = reader_of(samples)
    what, read, taken = _way_in(samples, sounds)
    judged = sure is not None and kind == "classes" and sounds is None and sure.samples >= needed(SURE)
    judged = judged and sure is not None and sure.conformal is not None
    if kind == "values":
        outputs = ["gradio.Dataframe(headers=['value', 'answer'], label='answers')"]
    else:
        outputs = [
            f"gradio.Label(num_top_classes={SHOWN}, label={'class' if kind == 'classes' else 'labels'!r})"
        ]
    if judged:
        outputs.append("gradio.Textbox(label='90 % sure: one of')")
    answers = _VALUES if kind == "values" else _PROBABILITIES
    code = _APP.format(
        what=what, read=read, taken=taken, title=literal(f"{name} on {data}"),
        description=literal("The network runs here; nothing is sent elsewhere."),
        nothing="None, None" if judged else "None", judge=_JUDGE if judged else "",
        answers=f"{answers}, sure" if judged else answers,
        shown=f"[{', '.join(outputs)}]" if judged else outputs[0],
    )  # fmt: skip
    return {PAGE: code, NEEDS: "\n".join([*_needed(samples, sounds is not None), ""])}


def _way_in(samples: Samples, sounds: PieceReader | None) -> tuple[str, str, str]:
    """What is given in words, how it is read, and the part of the page that takes it."""
    if isinstance(samples, TextSamples):
        return "a text", "network.tokens([given])", "gradio.Textbox(label='text', lines=3)"
    if sounds is not None:
        taken = "gradio.Audio(type='filepath', format='wav', sources=['upload', 'microphone'], label='sound')"
        return "a sound", "network.read_sound(given)", taken
    if isinstance(samples, PictureSamples):
        # The file as it came, which the loader reads as training read its own.
        sources = "sources=['upload', 'webcam', 'clipboard'], label='picture'"
        taken = f"gradio.Image(type='filepath', image_mode=None, {sources})"
        return "a picture", "network.read_picture(given)", taken
    raise ExportError(
        "a page takes pictures, sounds or texts; %tl_export FILE.safetensors takes inputs of any kind"
    )


def _needed(samples: Samples, sounds: bool) -> list[str]:
    """Packages of the page, torch and torchvision from the version that wrote the weights."""
    names = ["torch", "torchvision", "safetensors", "pillow", "numpy"]
    names += ["tokenizers", "transformers"] if isinstance(samples, TextSamples) else []
    names += ["scipy"] if sounds else []
    found = []
    for name in names:
        try:
            found.append(f"{name}>={version(name).partition('+')[0]}" if name.startswith("torch") else name)
        except PackageNotFoundError:
            continue
    return ["gradio>=5", *found]
