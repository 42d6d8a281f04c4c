"""The commands by which one looks at what was learned, and takes it along."""

from __future__ import annotations

from tlnb.magics.command import Argument, Command, Option
from tlnb.magics.values import choice, percentage, text, whole, word_or_object
from tlnb.tracking.tracker import OFF, TRACKERS

_RUN = word_or_object("a run ($name) or a file of %tl_save", "RUN", files=True)

RESULTS = Command(
    "tl_results",
    "results",
    "Show how good the network is, and where it goes wrong.",
    options=(
        Option("worst", whole(0), "how many of the worst mistakes are shown", "8"),
        Option("sure", percentage(), "how often sets of classes should hold the right one", "90 %"),
    ),
    details="""Accuracy with its 95 % interval (Wilson), precision, recall and F1 of each class, the
confusion matrix, how sure the network is against how often it is right, and the worst mistakes with
what in the picture spoke for the wrong class. How sure it is: the temperature by which its scores must be divided
for probabilities to mean what they say, before and after; how often sets of classes hold the right one, how large
they are, and for which class they hold least; and what is wrong among the surest, for each share of them. All of it
on the validation samples; for the sets, each fifth of them by the bound of the others. The answer holds it as arrays
too: .confusion, .answers, .targets, .losses, .calibration, .temperature, .coverage, .risk, and .frame() as a table of
pandas.""",
    examples=(
        ("%tl_results", "the figures and the pictures"),
        ("results = %tl_results --worst 20", "results.plot('mistakes') is a figure of matplotlib"),
        ("%tl_results --sure 95", "sets that hold the right class 95 times of 100"),
    ),
)

TEST = Command(
    "tl_test",
    "test",
    "Measure the test part, once: the number that you may report.",
    details="""The data is named with a test part (%tl_data SOURCE --test 0.2, or --test for the source's own), and no
other command reads it. The score comes with its 95 % interval (Wilson, or a bootstrap over groups), each class and the
confusion matrix. Each look is counted, in the session, its file, the model card and the script: what was chosen after
a look at the test part is too good there, so the first number is the one to report.""",
    examples=(
        ("%tl_test", "after all choices are made"),
        ("result = %tl_test", "result.value, result.interval, result.confusion and result.frame()"),
    ),
)

PREDICT = Command(
    "tl_predict",
    "predict",
    "Say what is in pictures or sounds: files, a folder, or arrays.",
    arguments=(
        Argument(
            "source",
            word_or_object("a file, a folder or $name", "SOURCE", files=True),
            "a picture or sound file, a folder (with all below it), or $name: paths a line each, arrays, or "
            "(samples, rate) of a sound",
        ),
    ),
    options=(
        Option("views", whole(1), "average so many views: the picture and small changes of it", "1"),
        Option(
            "sure",
            percentage(),
            "sets of classes that hold the right one so often, or `none of these`",
        ),
        Option(
            "false-alarms", percentage(), "samples of the classes that may be answered `none of these`", "5 %"
        ),
    ),
    details="""The network runs on a copy with batch norm folded into the layers before it. Files
that cannot be read are listed with the reason. Of up to eight pictures it is shown what in them spoke for the answer,
of texts which words did. The answer holds .labels, .answers (probabilities) and .frame(). A sound that is longer than
the window is answered for by the mean over its pieces.

With --sure 90 each answer is a set of classes (split conformal prediction): of samples like those of the validation
part, 90 of 100 sets hold the right class, whatever the network; of measured values it is an interval. A sample that
is like nothing that was learned is answered `none of these`: what enters the head lies far from all training samples
and no class is likely, more so than for all but 5 of 100 validation samples (--false-alarms). The answer then holds
.sets, .none, .strangeness, .probabilities (at the temperature that fits the validation samples) and .intervals too.
Validation samples were perhaps used to choose, and are like the training samples: what comes from another camera or
clinic may be held less often.""",
    examples=(
        ("%tl_predict photos/cat.jpg", "one picture"),
        ("answers = %tl_predict 'new photos' --views 8", "a folder, the mean of eight views"),
        ("%tl_predict $share", "an array or a list of paths in a variable"),
        ("%tl_predict photos --sure 90", "sets of classes, and what is none of them"),
    ),
)

COMPARE = Command(
    "tl_compare",
    "compare",
    "Draw stages, rates and curves of runs into one picture, and say whether they differ by more than luck.",
    arguments=(
        Argument(
            "a", _RUN, "a run in a variable, or a file of %tl_save; nothing for this session", required=False
        ),
        Argument("b", _RUN, "another one", required=False),
    ),
    details="""A run is what %tl_train answers. Two runs that were measured on the same validation samples are tested
on those, whatever networks they trained: the difference with its 95 % interval from a bootstrap of pairs (of groups
where the data has groups), McNemar's exact test for accuracy, and what they say. Where the samples are others, that is
said, and nothing is paired. Two answers of %tl_cv are compared by their out-of-fold answers.

The answer's .difference holds the figures; .save("curves.svg") writes the picture for a paper, and .png likewise. More
than two runs: tl.compare(a, b, c), each against the first.""",
    examples=(
        ("%tl_compare $first $second", "two runs that were kept: first = %tl_train epochs 3"),
        ("%tl_compare monday.safetensors tuesday.safetensors", "two sessions that were saved"),
    ),
)

EXPORT = Command(
    "tl_export",
    "export",
    "Write the network to a file that others can use; checked where there is no tlnb.",
    arguments=(
        Argument(
            "path",
            text(
                "a file that ends in .safetensors, .pt2, .onnx, .xml or .tflite, hf/OWNER/NAME, or app",
                "FILE",
            ),
            ".safetensors (weights and a loader), .pt2 (torch.export), .onnx (needs tlnb[onnx]), .xml (OpenVINO, needs "
            "tlnb[openvino]) or .tflite (LiteRT, needs tlnb[litert]); hf/OWNER/NAME for a folder as the Hub of Hugging "
            "Face keeps it; app for a page in the browser",
        ),
        Argument("folder", text("a folder", "FOLDER"), "of the page: %tl_export app FOLDER", required=False),
    ),
    options=(
        Option(
            "to",
            choice("safetensors", "torch", "onnx", "openvino", "litert"),
            "the form by name, in place of the ending",
        ),
        Option(
            "int8",
            None,
            "whole numbers of eight bits, for .onnx, .xml and .tflite; says what that costs and gains",
        ),
        Option("push", None, "send the folder hf/OWNER/NAME to the Hub"),
    ),
    details="""Preprocessing and class names are inside. Graphs (.pt2, .onnx, .xml, .tflite) take pixels and give
probabilities; OpenVINO's weights stand in a .bin beside the .xml, and a .tflite takes one sample at a time. After
writing, a fresh process that cannot import tlnb loads the file and predicts 100 validation samples; a difference above
0.0001 is an error (0.001 for OpenVINO and LiteRT). A model card (Markdown) is written beside it; the licence is yours
to fill in.

--int8 quantises layers and what flows between them, by ranges that 100 validation samples give (static quantisation).
Both files answer up to 1000 validation samples in a fresh process, and it says the score before and after, how long
one sample takes, and the size; where more than a point is lost, nothing is written. It is faster where the processor
has instructions for it (VNNI, AMX, Arm's dot products), and may be slower where it has none.

%tl_export app FOLDER writes a page in the browser that takes pictures (a file or the webcam), sounds (a file or the
microphone) or a text: the weights, their loader, app.py and requirements.txt. It needs no tlnb:
pip install -r requirements.txt && python app.py.

hf/OWNER/NAME is a folder of that name: weights as safetensors, labels, preprocessing, and a card with the scores, as
transformers, timm or torchvision read them, by where the network came from. It is read back and compared bit for bit,
and %tl_load hf/OWNER/NAME takes it. Nothing is sent unless --push says so; then it goes to the Hub, as whoever is
logged in there (hf auth login).""",
    examples=(
        ("%tl_export digits.safetensors", "weights, digits.py that loads them, digits.json, digits.md"),
        ("%tl_export digits.onnx", "for other languages and machines"),
        ("%tl_export digits --to openvino --int8", "for small machines: digits.xml, digits.bin"),
        ("%tl_export app digits-page", "a page that tries it: python app.py"),
        ("%tl_export hf/me/birds", "a folder for the Hub; with --push it is sent there"),
    ),
)

SCRIPT = Command(
    "tl_script",
    "script",
    "Write the session as one plain PyTorch script that gives the same figures.",
    arguments=(
        Argument(
            "path", text("a file that ends in .py", "FILE"), "where to; nothing to show it", required=False
        ),
    ),
    options=(
        Option(
            "with-weights", None, "keep the starting weights beside it, where torchvision would load them"
        ),
        Option("network", text("code that sets model", "CODE"), "how a module of yours is made"),
    ),
    details="""The script needs torch, not tlnb: it loads, freezes, trains each stage at the rate
that was found, and measures. What it reads (starting weights, the list of files, samples from a
variable) is written beside it. On a CPU with as many threads, the weights that it ends with are
those of the session, bit for bit.""",
    examples=(
        ("%tl_script", "show it"),
        ("%tl_script train.py", "write it; then: python train.py"),
    ),
)

TRACK = Command(
    "tl_track",
    "track",
    "Tell a tracker of experiments what happens: stages, rates, curves, scores, mistakes, plan and script.",
    arguments=(
        Argument(
            "tracker",
            choice(*TRACKERS, OFF),
            "whom to tell; off ends it, nothing says where it stands",
            required=False,
        ),
        Argument(
            "where",
            text("a folder, an address or the name of a project"),
            "a folder (tensorboard, mlflow), an address (mlflow, trackio) or a project (trackio, wandb); "
            "nothing for the tracker's usual place",
            required=False,
        ),
    ),
    details="""A step is an epoch; the numbers are those of %tl_history, and what was trained already is sent first.
At the end of a run come the plan, every epoch in full (history.json) and the session as a script; with %tl_results
the mistakes as pictures. All of it goes over a queue to a thread of its own: a tracker that is slow, full or gone
changes nothing in training, and is reported once in one line. Each needs its own library, such as
pip install "tlnb[tensorboard]".""",
    examples=(
        ("%tl_track tensorboard runs/birds", "event files in that folder"),
        ("%tl_track mlflow", "a run where MLflow is set to (MLFLOW_TRACKING_URI)"),
        ("%tl_track wandb team/birds", "offline where nobody is logged in"),
        ("%tl_track off", "waits for what is on its way"),
    ),
)

TAKING_ALONG = (RESULTS, TEST, PREDICT, COMPARE, EXPORT, SCRIPT, TRACK)
