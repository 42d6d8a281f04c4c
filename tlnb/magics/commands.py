"""The table of commands: parser, help, completion and the reference page are all made from it.

A new command is an entry here and a method of the session; it needs no code of its own.
"""

from __future__ import annotations

from tlnb.engine.training.stage import AUGMENTS, KEYS
from tlnb.magics.command import Argument, Command, Option
from tlnb.magics.taking_along import TAKING_ALONG
from tlnb.magics.values import choice, number, share, stage_key, text, whole, word_or_object

# Words of the engine's options, written out because reading them there would load torch; a test holds them
# equal.
BALANCES = ("weights", "samples")
TARGETS = ("classes", "labels", "regression")
METHODS = ("pca", "umap")
COLOURS = ("class", "prediction", "correct", "part")
SCORES = (
    "accuracy", "balanced", "f1", "auroc", "ap", "kappa", "qwk", "mcc", "top5", "loss", "r2", "mae", "rmse",
)  # fmt: skip

_LAYERS = text(
    "layers such as 0:5, -1:, layer3, features.*, body, head, all or none", "LAYERS", source="layers"
)

_ADDRESS = Argument("layers", _LAYERS, "which layers; commas join several: 2:4,7", several=True)

_ADDRESSES = """Layers are numbered from 0 in the order in which data flows. An address is a number (3, -1), a
range (0:5 is 0 to 4, -1: is the last), a name or a prefix of names (layer3, layer1.0), a glob (features.*),
or one of body, head, all, none; commas join several. Layers that it does not hit stay as they are."""


def _stage_options(*names: str) -> tuple[Option, ...]:
    chosen = {name: KEYS[name] for name in names or KEYS}
    return tuple(
        Option(name, stage_key(name, key), f"{key.help}: {key.takes}") for name, key in chosen.items()
    )


_NO_CACHE = Option(
    "no-cache", None, "run frozen layers in every step, not once over the samples; the result is the same"
)

LOAD = Command(
    "tl_load",
    "load",
    "Load a trained network.",
    arguments=(
        Argument(
            "model",
            word_or_object(
                "the name of a model, a file of weights or $name", "MODEL", source="models", files=True
            ),
            "convnet5 (ships with tlnb), a classification model of torchvision, timm/NAME, hf/OWNER/NAME or a "
            "folder with a config.json (Hugging Face), a file of weights, or a variable with an nn.Module",
        ),
    ),
    options=(
        Option(
            "weights",
            text("an entry, a file or none", "ENTRY|FILE|none", source="weights", files=True),
            "which weights: an entry of the model's (Tab lists them), a file, or none for random ones",
            "the best that are published",
        ),
        Option(
            "arch",
            text("the name of an architecture", "NAME", source="models"),
            "for a file of weights: which architecture they belong to",
            "found by names and shapes",
        ),
        Option(
            "input",
            word_or_object("the shape of one sample, such as 1,28,28", "SHAPE"),
            "for a variable: the shape of one sample",
            "guessed, then told by the data",
        ),
        Option(
            "revision",
            text("a branch, a tag or a commit", "REVISION"),
            "of a network of the Hub: which version",
            "its main branch",
        ),
        Option(
            "tokenizer",
            word_or_object("a tokenizer.json, its folder, or $name", "TOKENIZER", files=True),
            "for a variable: what cuts its texts into tokens",
            "the one in the folder that it was loaded from",
        ),
        Option(
            "layers-from",
            _LAYERS,
            "these layers keep their weights; all others get He normal weights and zero biases",
            "all",
        ),
    ),
    details="""The pictures that it is shown later are prepared in the way its weights ask for. Where weights
cannot be downloaded, one line names the file that is missing; give it by --weights FILE. A file may be
safetensors or a .pth of a state dict, also as training scripts wrap it; it is never run as code. What did not
fit is listed, and a head of another size is built to the file's size. none drops the network; the data stays.""",
    examples=(
        ("%tl_load convnet5", "the network that ships with tlnb"),
        ("%tl_load resnet18 --weights none", "the architecture alone, with random weights"),
        ('%tl_load resnet18 --weights "my files/resnet18.pth"', "weights from a file"),
        ("%tl_load best.pth", "the same, the architecture found by the file's names and shapes"),
        ("%tl_load timm/convnext_atto", "a network of timm (pip install 'tlnb[timm]')"),
        (
            "%tl_load hf/sentence-transformers/all-MiniLM-L6-v2",
            "a network of the Hub (pip install 'tlnb[hf]')",
        ),
        ("%tl_load $net --input 1,28,28", "your own module"),
        ("%tl_load convnet5 --layers-from 0:5", "the five convolutions; the linear layers are new"),
    ),
)

DATA = Command(
    "tl_data",
    "data",
    "Name the data to learn from.",
    arguments=(
        Argument(
            "source",
            word_or_object(
                "digits, glyphs, a folder, a table, torchvision/NAME or $name",
                "SOURCE",
                source="data",
                files=True,
            ),
            "digits (1,797 real handwritten digits), glyphs (drawn letters), a folder, a table (CSV, TSV; of texts "
            "also JSONL, Parquet), torchvision/NAME or $name; nothing for the data that is named",
            required=False,
        ),
    ),
    options=(
        Option("valid", number(0, 1), "share of the samples that is kept for measuring", "0.2"),
        Option("size", whole(1), "height and width of the pictures, in pixels", "what the network takes"),
        Option(
            "batch",
            whole(1),
            "samples in a step",
            "16 to 64 by the amount of data, or what a DataLoader says",
        ),
        Option("per-class", whole(1), "use only so many training samples of each class", "all"),
        Option(
            "augment",
            word_or_object("none, light, standard, strong or $name", "PRESET", *AUGMENTS),
            "random changes to training pictures: none, light (small moves; right for letters), standard "
            "(crops, mirror images, light), strong, or $name for a v2 transform",
            "none",
        ),
        Option(
            "balance", choice(*BALANCES), "even out classes: weights in the loss, or samples repeated", "off"
        ),
        Option("target", choice(*TARGETS), "what the targets are", "told by how they look"),
        Option(
            "label",
            word_or_object("the name of a column, or several joined by commas", "COLUMN[,COLUMN]"),
            "column of a table with the label, or several columns of labels or values",
            "told by the columns' names",
        ),
        Option(
            "text",
            word_or_object("the name of a column, or two joined by commas", "COLUMN[,COLUMN]"),
            "column of a table with the texts, or two for pairs of sentences",
            "told by the columns' names",
        ),
        Option(
            "length",
            whole(1),
            "tokens of the longest text; what is longer is cut at its end",
            "the 99th percentile of the training texts",
        ),
        Option(
            "path",
            text("the name of a column", "COLUMN"),
            "column with the pictures",
            "told by the columns' names",
        ),
        Option(
            "split",
            text("the name of a column, COLUMN=VALUE, or none", "COLUMN[=VALUE]"),
            "column that says which rows train and which validate (VALUE is the validation part); none splits by "
            "--valid whatever columns or folders are called",
            "split, is_valid, fold and such, where there is one",
        ),
        Option(
            "delimiter",
            text("a sign, such as | or ' '", "D"),
            "what stands between the labels of a picture in one cell",
            "; or what recurs",
        ),
        Option(
            "folder",
            word_or_object("a folder", "FOLDER", files=True),
            "where a table's pictures are; its paths may lead there",
            "the table's folder, or one below it that holds them",
        ),
        Option(
            "suffix",
            text("an ending, such as .jpg", ".SUFFIX"),
            "ending that a table's names lack",
            "tried by itself",
        ),
        Option("links", None, "follow links that lead out of the folder, such as into a store of pictures"),
        Option(
            "range",
            word_or_object("black and white, such as 0,4095, or white alone", "[BLACK,]WHITE"),
            "what is black and white in the pictures",
            "255 for 8 bits, else found over the pictures",
        ),
        Option(
            "bands",
            word_or_object("numbers from 1 up, such as 4,3,2", "B[,B]"),
            "which bands of the pictures are used, in this order; of sounds, how many mel bands they are drawn in",
            "grey, or red, green and blue; 64 for sounds",
        ),
        Option(
            "window",
            number(0),
            "seconds of a sound that the network is shown at a time; longer clips are cut into pieces",
            "what holds 95 of 100 clips whole, 5 at most",
        ),
        Option(
            "rate",
            whole(1),
            "samples a second that sounds are brought to",
            "that of most clips, 16000 at most",
        ),
        Option(
            "test",
            word_or_object("a share between 0 and 1, or nothing for the source's own part", "[X]"),
            "share of the samples that is set aside under seal; alone, the test part that the source has",
            "no test part",
            alone="own",
        ),
        Option(
            "groups",
            word_or_object("a column, parent, near, an expression with one group, or $array", "GROUPS"),
            "samples that stay on one side: those with one entry in a column, in one folder (parent), with one match "
            "in the path ('(p[0-9]+)_'), near duplicates (near), or with one entry in $array",
        ),
        Option(
            "time",
            word_or_object("a column, or $array", "COLUMN"),
            "the newest samples validate, or are the test part with those before them to validate",
        ),
        Option(
            "score",
            choice(*SCORES),
            "by which keep-best, patience, the end of a stage, advice, sweeps, folds, results and the test part go",
            "accuracy, ap or r2, and the loss for keep-best and patience",
        ),
        Option(
            "marks",
            word_or_object("a CSV of marks", "FILE", files=True),
            "samples that are relabelled, dropped or kept, as %tl_clean --save wrote them; the source stays as it is",
            "those that the session has for data of this name",
        ),
        Option("strict", None, "stop at a file that cannot be used, in place of leaving it out"),
        Option("show", None, "answer with a grid of training pictures, as the network sees them"),
        Option("seed", whole(0), "what the split, the new head and the order of samples follow from", "0"),
    ),
    details="""A folder holds a folder of pictures for each class, or such folders below train and val (valid,
test). A CSV or TSV holds a path, relative to it, and a label in each row; labels joined by ; or | or several
columns of 0 and 1 are several labels a picture; measured values are a regression. Columns are known by their
names (label, class, target …; path, image …; split, is_valid, fold …), and what was guessed is said with the option
that changes it. Pictures of more than 8 bits get one white for the whole set. Variables: (X, y) tensors,
arrays or lists of pictures, a Dataset, a DataLoader, a DataFrame of path and label, a Hugging Face data set,
or a pair (train, valid) of such.

Folders and tables may hold sounds in place of pictures, as WAV or FLAC (pip install "tlnb[sound]"): each is drawn as a
log-mel picture, so that any network of pictures learns from it; a $net that takes (B, samples) gets raw frames. Clips
longer than the window are cut into pieces that stay together, and the answers of a clip's pieces are averaged.

Every file is looked at; what cannot be used is listed with the reason and left out. A network that knows other classes
than the data's gets a new linear head. none drops the data; the network stays.

A test part is under seal: %tl_test alone reads it, and counts how often. Samples of one group, and equal ones,
are never on two sides. Of a source that comes in parts (a pair, a dict, splits), what is held out stays so; $array then
has an entry for each sample, in the order of the parts. near goes by the features of the network that is loaded, as it
was before training, else by how pictures look.""",
    examples=(
        ("%tl_data digits", "the quickstart's data"),
        ("%tl_data 'my photos' --augment standard", "a folder of class folders"),
        ("%tl_data birds.csv --target regression", "a table of path and measured value"),
        ("%tl_data scans.csv --label diagnosis --path image_id --folder scans", "columns and folder by name"),
        ("%tl_data calls.csv --label bird --groups site --window 3", "sounds of 3 s, each site on one side"),
        ("%tl_data fields --bands 4,3,2 --range 0,4095", "near infrared, red, green of 12 bits"),
        ("%tl_data torchvision/CIFAR10", "downloaded once, then kept"),
        ("%tl_data $share --batch 32", "what the variable share holds"),
        ("%tl_data --show", "look at the pictures that are trained on"),
        ("%tl_data digits --per-class 10 --seed 3", "only ten of each to learn from"),
        ("%tl_data digits --valid $share", "the value of the variable share"),
        ("%tl_data digits --test 0.2", "a fifth under seal, for %tl_test at the end"),
        ("%tl_data scans.csv --groups patient --test 0.2", "each patient on one side"),
        ("%tl_data scans --score auroc", "the best epoch is that with the largest area under the ROC curve"),
        ("%tl_data birds --test --groups parent", "the folder's own test part"),
        ("%tl_data reviews.csv --text review --label stars", "texts with their labels"),
        ("%tl_data pairs.jsonl --text premise,hypothesis --label label", "pairs of sentences"),
        ("%tl_data none", "drop the data, so that a network of another kind can be loaded"),
    ),
)

HEAD = Command(
    "tl_head",
    "head",
    "Put a new head on the network, sized by the data, or the head of another task back.",
    arguments=(
        Argument(
            "spec",
            text("linear, mlp:512,256, nearest, knn:5 or all-layers", "SPEC", source="heads"),
            "linear (one layer, the default), mlp: and the widths of the hidden layers, nearest, knn:5 or all-layers",
            required=False,
            several=True,
        ),
    ),
    options=(
        Option(
            "task",
            text("the name of a task", "NAME", source="tasks"),
            "the task that the head is for; alone, it puts the head, classes and data of that task back",
            "the name of the data",
        ),
        Option(
            "init",
            choice("zero", "he", "fit"),
            "how the last layer starts: at zero, with He normal weights, or fitted to the data at once",
            "zero",
        ),
    ),
    details="""Hidden layers have He (Kaiming) normal weights and zero biases; the last layer starts at zero, so that
few images need not unlearn random scores. Three heads need no schedule, and are fitted at once on what the frozen
layers give: nearest is a linear layer set to the means of the classes, knn:5 keeps the training samples and lets the
five nearest vote, each by the inverse of its distance. all-layers is a linear layer on what every layer gives, pooled
(Head2Toe, Evci et al. 2022): a fit on all features ranks them, folds choose how many stay, and it keeps to those of
the last layer where others do not help. It pays where the last layer has learned another task; training that goes on
with it runs the whole network in each step. The heads of all tasks are kept, the one that
came with the weights too; they share the body.""",
    examples=(
        ("%tl_head linear", "one linear layer"),
        ("%tl_head mlp:512,256", "two hidden layers before it"),
        ("%tl_head linear --init fit", "fitted by logistic regression, in seconds"),
        ("%tl_head nearest", "the class whose mean is nearest"),
        ("%tl_head knn:5", "the five nearest training samples vote"),
        ("%tl_head all-layers", "a linear layer on what all layers give"),
        ("%tl_head --task glyphs", "back to the head that convnet5 came with"),
    ),
)

LAYERS = Command(
    "tl_layers",
    "layers",
    "Show the layers: number, name, kind, output shape, parameters, frozen or not.",
    read_only=True,
    examples=(("%tl_layers", "the table"), ("table = %tl_layers", "keep it in a variable")),
)

FREEZE = Command(
    "tl_freeze",
    "freeze",
    "Freeze layers: their weights and buffers stay as they are, bit for bit, and they run in test mode.",
    arguments=(_ADDRESS,),
    details=_ADDRESSES,
    examples=(
        ("%tl_freeze 0:5", "layers 0 to 4"),
        ("%tl_freeze body", "all but the head"),
        ("%tl_freeze layer1,layer2", "by name"),
    ),
)

UNFREEZE = Command(
    "tl_unfreeze",
    "unfreeze",
    "Unfreeze layers: they train from the next stage on.",
    arguments=(_ADDRESS,),
    options=(Option("find", None, "run the range test too, and open the picker of rates"),),
    details=_ADDRESSES,
    examples=(
        ("%tl_unfreeze -1:", "the last layer"),
        ("%tl_unfreeze -3: --find", "the last three, and a rate for them"),
        ("%tl_unfreeze 3:", "layer 3 and all after it"),
        ("%tl_unfreeze all", "the whole network"),
    ),
)

ADAPT = Command(
    "tl_adapt",
    "adapt",
    "Adapt layers: their weights and buffers stay, bit for bit, and what is added to the weights trains.",
    arguments=(
        Argument("layers", _LAYERS, "which layers; commas join several: 2:4,7", required=False, several=True),
        Argument(
            "kind",
            choice("bias", "norm"),
            "bias or norm adds to biases, or to the two vectors of each norm; nothing for factors of low rank",
            required=False,
        ),
    ),
    options=(
        Option("rank", whole(1), "of the two factors beside each matrix (LoRA)", "that is 4"),
        Option(
            "file",
            text("a file of %tl_save --adapter", "FILE", files=True),
            "an adapter that was saved alone, with its head, in place of all else",
        ),
    ),
    details="""The third state of a layer beside frozen and training. The head trains as it is, layers that were adapted
stay so, and the rest of the body is frozen, so the part before the first adapted layer runs once. Beside each matrix of
a linear layer, a convolution (in groups too) or an attention come two factors of low rank (LoRA, Hu et al. 2022); bias
(BitFit) and norm add to vectors. An adapter adds nothing at first. A matrix that is no larger than its factors would
be stays as it is, such as a depthwise convolution's. BatchNorm and dropout of an adapted layer are in test mode, and a
digest proves that its weights and statistics did not change.

In a plan: adapt 3: rank 8, adapt all bias, adapt all norm, then keys as ever. %tl_save FILE --adapter writes the
adapters alone, %tl_merge adds them to the weights, and exports are merged. A step costs what it would if the layers
trained; what is saved is the optimizer's memory and the file, and the proof is won.""",
    examples=(
        ("%tl_adapt 3:", "layers 3 and on by rank 4; layers 0 to 2 are frozen and run once"),
        ("%tl_adapt 3: --rank 8", "by rank 8"),
        ("%tl_adapt all bias", "all biases of the body"),
        ("%tl_adapt all norm", "all norms"),
        ("%tl_adapt --file birds", "what %tl_save birds --adapter wrote, on the same body"),
    ),
)

MERGE = Command(
    "tl_merge",
    "merge",
    "Add what adapters learned to the weights themselves; the network answers as before.",
    details="The layers are frozen then. %tl_undo takes the merge back.",
    examples=(("%tl_merge", "after which the network is one of plain weights again"),),
)

LR = Command(
    "tl_lr",
    "find_lr",
    "Find a learning rate by a range test; nothing is changed by it.",
    options=(
        Option(
            "rule",
            text("the name of a rule", "RULE", source="rules"),
            "how the rate is read off the curve",
            "basin; minimum with schedule constant",
        ),
        Option("start", number(0), "the lowest rate that is tried", "1e-7"),
        Option("stop", number(0), "the highest rate that is tried", "10"),
        Option("steps", whole(12), "steps of training that it may cost", "half an epoch, and at least 12"),
        *_stage_options(
            "decay", "batch", "optimizer", "schedule", "momentum", "weight_decay", "smoothing", "bn"
        ),
        _NO_CACHE,
    ),
    details="""A few batches give the direction of the optimizer's step, and the loss is measured along it on other
batches: a curve of loss against rate, for half an epoch's work. It shows the suggestion and the answers of the other
rules. A suggestion of None means that the curve has no place to read it off; the curve then says why. The same test
is not run twice.""",
    examples=(
        ("curve = %tl_lr", "curve.suggestion, curve.rates and curve.losses are numbers to go on with"),
        ("%tl_lr --rule steepest --stop 1", "another rule, and a shorter sweep"),
    ),
)

TRAIN = Command(
    "tl_train",
    "train",
    "Train what is unfrozen; as a cell magic, train the plan in the cell.",
    options=(
        *_stage_options(),
        _NO_CACHE,
        Option("keep-best", None, "end with the weights of the epoch with the lowest validation loss"),
        Option("continue", None, "go on where training was stopped, through the rest of the plan"),
        Option("advised", None, "run the plan of %tl_advise (in Python: tl.train_advised())"),
        Option(
            "budget",
            text("a time such as 90s, 5min or 1.5h", "TIME"),
            'run the best plan that takes no longer (in Python: tl.train_advised(budget="5min"))',
        ),
    ),
    bare=True,
    switches=(("continue", "go_on"), ("advised", "train_advised"), ("budget", "train_advised")),
    cell="run",
    body="a plan: a stage a line, each a verb (freeze, unfreeze, train, fit, adapt), layers, then keys and values",
    details="""With nothing said it trains the default plan: a new head is fitted first, then what is unfrozen trains
at a low rate, and of what was learned as much is kept as serves the validation samples best. With any setting it
trains one stage. A stage that ends worse than the one before, on the validation samples, is taken back, and the
answer says so; guard off keeps it.

With --budget a few batches are timed, and the best plan that fits runs: the advised one, with fewer epochs where all
do not fit, or the last part of the body, or the head alone. Its seconds are said before it runs; a budget that is too
small is refused, with what is enough.

The learning rate is found by a range test unless lr says otherwise; schedule constant takes a more cautious one from
the same curve (rule minimum), as it is held from the first step.

In a plan, train L trains exactly the layers L; freeze and unfreeze change what the line before left. fit head fits
the last layer to convergence: logistic regression on what the frozen layers give, its strength chosen by folds. The
whole plan is checked before anything trains. Keys on the line of %%tl_train hold for every stage that does not say
otherwise. adapt 3: rank 8 trains what is added to the weights of layers 3 and on, and the head (%tl_adapt?).""",
    examples=(
        ("%tl_train", "the default plan: the head first, then the rest"),
        ("%tl_train epochs 3 lr 1e-3", "one stage"),
        ("%tl_train epochs 20 patience 3 --keep-best", "ends early, with the best epoch's weights"),
        ("%tl_train --advised", "the plan of %tl_advise, which is asked first where it was not"),
        ("%tl_train --budget 5min", "as much of it as fits into that time; what it takes is said first"),
        ("%tl_train --continue", "after the stop button or %tl_resume (in Python: tl.go_on())"),
        (
            "%%tl_train\nfit head                              # logistic regression on frozen features\n"
            "unfreeze -3:   epochs 2   init soft\nunfreeze all   epochs 3   lr 1e-4   decay 2.6",
            "three stages; in the last, each earlier layer learns 2.6 times slower",
        ),
    ),
)

STEP = Command(
    "tl_step",
    "step",
    "Train with a step of your own: the cell body sees model, x and y, and sets loss.",
    arguments=(Argument("off", choice("off"), "go back to the usual step (cross-entropy)", required=False),),
    cell="step",
    body="plain PyTorch that sets loss to a tensor of one number; it can use your variables and imports",
    details="""x is a batch of pictures as the network takes them, y holds their class numbers. The body is
one function: tlnb calls it for each batch, then takes the gradient of loss and the optimizer's step.""",
    examples=(
        (
            "%%tl_step\nscores = model(x)\nloss = torch.nn.functional.multi_margin_loss(scores, y)",
            "another loss, from the next stage on",
        ),
        ("%tl_step off", "the usual step again"),
        ("%tl_step", "which step is set"),
    ),
)

TASKS = Command(
    "tl_tasks",
    "tasks",
    "Show the tasks whose heads share the body, each measured on its own validation samples as they are now.",
    details="A task comes with its data: %tl_data makes a new head where the classes are not those it knows.",
    examples=(("%tl_tasks", "classes, data, loss and accuracy of each task"),),
)

STATUS = Command(
    "tl_status",
    "status",
    "Say where the session stands: network, data, what is frozen, what was trained.",
    options=(Option("env", None, "say what is installed and what can be done here, with what to do if not"),),
    examples=(
        ("%tl_status", "a few lines"),
        ("%tl_status --env", "versions, device, threads, folders, widgets"),
    ),
)

HISTORY = Command(
    "tl_history",
    "history",
    "Show every epoch of every stage, and each look at the test part.",
    read_only=True,
    options=(Option("plot", None, "draw stages, rates and curves: tl.history.plot()"),),
    examples=(
        ("%tl_history", "the table"),
        ("history = %tl_history", "keep it in a variable"),
        ("%tl_history --plot", "the picture; .save('curves.svg') writes it"),
    ),
)

SAVE = Command(
    "tl_save",
    "save",
    "Save the whole state of the session to a file.",
    arguments=(Argument("path", text("a file", "FILE", files=True), "where; .safetensors is added"),),
    options=(
        Option("adapter", None, "the adapters and the head alone, for %tl_adapt --file on the same body"),
    ),
    details="""Network, heads, buffers, the optimizer's moments, the place in the plan, in the schedule and in the
order of the samples, random states and history: training can go on from it as if it had never stopped. The file
is safetensors with JSON in its header; nothing in it can run. It is there as a whole or not at all. It takes about
three times the size of the weights that train and once that of the others; what training has changed is kept once
more as it was before, for %tl_forget, %tl_blend and keep, and keep ewc adds the size of the body.""",
    examples=(
        ("%tl_save birds", "birds.safetensors"),
        ("%tl_save birds --adapter", "a few parts in a hundred of the weights"),
    ),
)

RESUME = Command(
    "tl_resume",
    "resume",
    "Come back to what was saved, exactly: to the last autosave, or to a file of %tl_save.",
    arguments=(
        Argument("path", text("a file", "FILE", files=True), "none for the last autosave", required=False),
    ),
    details="""Training is saved by itself after every epoch and once a minute inside one, in .tlnb beside the
notebook or where TLNB_HOME says; TLNB_AUTOSAVE=0 switches that off. Data that has a name is read again; a
variable must be named again, and so must a network of your own be loaded before. The heads of other tasks are
back too; %tl_head --task NAME reads their data. Strict transfer: after
%tl_resume, %tl_data may name other data with as many classes; the head stays, and %tl_train --continue goes on
with the optimizer's moments.""",
    examples=(
        ("%tl_resume", "after the kernel has died"),
        ("%tl_resume birds.safetensors", "what %tl_save wrote"),
    ),
)

UNDO = Command(
    "tl_undo",
    "undo",
    "Go one stage back: weights, buffers, history and what was frozen are those before it.",
    details="""Up to five stages can be taken back, one at a time, as far as memory reaches. They are kept in this
kernel only: after %tl_resume there is nothing to undo, so %tl_save before a stage that you may want to take back
in another kernel.""",
    examples=(("%tl_undo", "the last stage never was"),),
)

MAP = Command(
    "tl_map",
    "map",
    "Draw a map of the samples: what comes out of a layer, in two dimensions.",
    arguments=(
        Argument("layer", _LAYERS, "one layer; nothing for the last one before the head", required=False),
    ),
    options=(
        Option("by", choice(*METHODS), "how vectors become points", "pca"),
        Option("colour", choice(*COLOURS), "what colour stands for in the static picture", "class"),
        Option(
            "samples",
            whole(2),
            "how many are drawn at most, as evenly over the classes as they are",
            "10,000",
        ),
    ),
    details="""Training and validation samples, never the test part. Features that training keeps serve here too. In a
notebook the map can be moved, coloured by class, prediction, right or wrong, or part, and a sample is shown where the
mouse or the arrow keys are; a lasso chooses samples, which the answer has as .selected and .selection, the view as its
trait `selected`, and a variable of yours where you name one. The answer holds .coordinates, .frame() and .figure.""",
    examples=(
        ("%tl_map", "what the head sees"),
        ("m = %tl_map 3 --colour correct", "behind layer 3; m.selection has what the lasso chose"),
        ("%tl_map --by umap", 'neighbours together; pip install "tlnb[map]"'),
    ),
)

PANEL = Command(
    "tl_panel",
    "panel",
    "Open a panel with network, data, layers, rate and training in one place, to click.",
    details="""Where a notebook is open, the panel does the whole main job by clicks, and writes down the
magics that do the same. Pictures of your own are dropped, picked or filmed into classes, below a folder beside the
notebook; a picture that is dropped, or the webcam, is answered with a bar for each class. Elsewhere the answer is a few
lines of text.""",
    examples=(("%tl_panel", "the panel"),),
)

ADVISE = Command(
    "tl_advise",
    "advise",
    "Say how much to transfer: data size against similarity, measured, and a plan that can be run.",
    options=(Option("images", whole(10), "how many training images are looked at, at most", "2000"),),
    details="""What it takes is said before it runs, from one timed batch, and the answer says about how long the plan
takes here. One pass through the network gives every layer's features; they stay in the cache for training.
Similarity is read off the BatchNorm layers, which remember means and spreads of the old data; a linear probe,
LogME and H-score say what each layer's features are worth for the new classes. The answer names its evidence,
and says where that is thin.""",
    examples=(
        ("advice = %tl_advise", "advice.cell, advice.kept, advice.plan and advice.figures to go on with"),
        ("%tl_advise --images 500", "sooner, from fewer images"),
    ),
)

CHOOSE = Command(
    "tl_choose",
    "choose",
    "Say which network to start from: the data passes once through each, and they are ranked.",
    arguments=(
        Argument(
            "models",
            word_or_object("the names of models, files or $names", "MODEL", source="models", files=True),
            "networks as %tl_load takes them: names, timm/NAME, hf/OWNER/NAME, folders, files, variables",
            repeats=True,
        ),
    ),
    options=(
        Option(
            "weights", choice("none"), "none for random weights in all of them", "the best that are published"
        ),
        Option("images", whole(10), "how many training samples take part, at most", "2000"),
        Option("folds", whole(2), "on which the heads are fitted and judged", "5"),
        Option("load", None, "load the best one then; else the network of the session stays as it is"),
    ),
    details="""What enters the head of each network is kept, and folds of the training samples fit a logistic head to
it, as fit head does; its score on what is left out ranks them, with its 95 % interval. Beside it: the five nearest
samples' vote, LogME (You et al. 2021), the seconds of the pass, and what training all layers would take: seconds an
epoch, as one step was timed, and memory for weights, gradients, moments and one batch. A test of pairs says which may
be as good as the first. The validation part is not looked at.

A name that nothing has is refused before anything runs; a network that cannot be loaded, or takes other samples, is
said in the table. choice.load() loads the best, choice.load("NAME") another.""",
    examples=(
        ("%tl_choose convnet5 mobilenet_v2 resnet18", "the table; the session stays as it is"),
        (
            "choice = %tl_choose mobilenet_v2 timm/convnext_atto",
            "choice.best, choice.rows, choice.load() to go on with",
        ),
        (
            "%tl_choose convnet5 $net best.pth --load",
            "a module and a file among them; the best one is loaded",
        ),
    ),
)

SWEEP = Command(
    "tl_sweep",
    "sweep",
    "Measure accuracy against the number of layers kept, frozen and fine-tuned, over seeds.",
    options=(
        Option("epochs", whole(1), "of each run", "5"),
        Option("seeds", whole(1), "runs of each kind", "3"),
        Option("images", whole(10), "training images at most, and as many to measure on", "400"),
        Option("lr", number(0), "learning rate of all runs", "1e-3"),
        Option("blocks", None, "keep all weights and train one block alone, each in turn"),
    ),
    details="""After Yosinski et al. 2014: the first k layers keep their weights, all behind them start at
random; k = 0 is the floor. Everything runs on copies, so the network of the session stays as it is. After the
stop button the same line goes on where it stopped.""",
    examples=(
        ("%tl_sweep", "table and plot"),
        ("%tl_sweep --seeds 1 --epochs 2", "a first look"),
        ("%tl_sweep --blocks", "which block alone is worth training (Lee et al. 2023)"),
    ),
)

CV = Command(
    "tl_cv",
    "cross_validate",
    "Train a plan once for each fold of the samples, and measure it on those that it never saw.",
    arguments=(
        Argument("folds", whole(2), "how many; 5 where nothing is said", required=False),
        Argument(
            "plan",
            text("a plan in quotes, or in the cell", "PLAN"),
            "a stage a line; else what the session trained on this data, the advised plan, or the default one",
            required=False,
        ),
    ),
    options=(
        Option("repeats", whole(1), "how often all samples are dealt into folds anew", "1"),
        Option("keep-best", None, "end each stage with the weights of its best epoch"),
        _NO_CACHE,
        Option("continue", None, "go on with the folds that were stopped (in Python: tl.go_on_with_folds())"),
    ),
    switches=(("continue", "go_on_with_folds"),),
    cell="cross_validate",
    body="the plan: a stage a line",
    body_as="plan",
    details="""Training and validation samples take part; the test part stays under seal. Groups and equal samples are
in one fold, and each class is in every fold as far as that goes; with --time each fold is newer than what it learned
from. Each fold starts from the network as it was before training, with a new head, on a copy: the session stays as it
is. A frozen first part runs once over all samples and serves every fold.

The interval of the mean is corrected for the samples that folds share (Nadeau and Bengio 2003). The answer holds each
sample's out-of-fold answer: .positions, .labels, .predictions, .probabilities, .fold, and .frame() as a table of
pandas. After the stop button the same line goes on, or --continue.""",
    examples=(
        ("%tl_cv 5", "the plan that was trained last, over five folds"),
        ("cv = %tl_cv 10 --repeats 3", "cv.mean, cv.spread, cv.interval and cv.frame() to go on with"),
        ('%tl_cv 5 "freeze body  epochs 3  lr 1e-2"', "another plan"),
        ("%%tl_cv 5\nfit head\nunfreeze -3:   epochs 2   init soft", "a plan of several stages"),
        ("%tl_cv --continue", "after the stop button"),
    ),
)

CLUSTER = Command(
    "tl_cluster",
    "cluster",
    "Let training, sweeps, folds and long passes of frozen layers run on a cluster; the cells stay the same.",
    arguments=(
        Argument(
            "address",
            text("local, auto, off or HOST:PORT", "ADDRESS"),
            "local starts one on this machine, auto is the one that this machine is a node of, HOST:PORT the head of "
            "another; off comes back; nothing says where things run",
            required=False,
        ),
    ),
    options=(
        Option(
            "workers",
            whole(1),
            "processes that work at once",
            "one a CPU, or as many as the GPUs suffice for",
        ),
        Option("gpus-per-worker", number(0), "how many GPUs each of them has", "none"),
    ),
    details="""The cluster is one of Ray (pip install "tlnb[ray]", in the same versions on each machine). Network, data
and history stay in this notebook; what a worker needs is sent to it, and what it learned comes back. Files are read
where the work is, so each machine must see them under the same path. A sweep and folds give the same numbers as here,
bit for bit, where the workers compute with as many threads; training in several processes gives those of one process to
rounding. A worker that dies is replaced, and its work done again.

Who may connect: a cluster that is started here listens on the loopback interface alone, without a dashboard; every
connection asks for the token in ~/.ray/auth_token, which this user alone can read; Ray's usage statistics are off.
While several processes train, torch's own meeting point listens on one port more, without a token. A cluster of several
machines belongs into a network of its own, as nothing that they send is encrypted, and whoever has the token can run
any code on them.""",
    examples=(
        ("%tl_cluster local --workers 2", "two processes on this machine"),
        ("%tl_cluster 10.0.0.1:6379 --workers 8", "a cluster that runs already"),
        ("%tl_cluster auto --gpus-per-worker 1", "every GPU of the cluster that this machine is in"),
        ("%tl_cluster off", "back in this notebook"),
    ),
)

FORGET = Command(
    "tl_forget",
    "forgetting",
    "Measure what the network still knows of its old task, and how far each layer has moved.",
    options=(
        Option(
            "source",
            word_or_object("glyphs, a folder, a CSV or $name", "SOURCE", source="data", files=True),
            "data of the old task; its validation part is measured on",
            "what was named before; glyphs for convnet5",
        ),
    ),
    details="""The head that came with the weights is kept, and answers for the old task on the body as it is
now. Without old data the drift of each layer's features is shown: CKA with the old network, 1 where nothing
moved.""",
    examples=(
        ("%tl_forget --source glyphs", "letters in fonts that convnet5 was not trained on"),
        ("%tl_forget", "the old data that was named, or drift alone"),
    ),
)

BLEND = Command(
    "tl_blend",
    "blend",
    "Set the body between what it was before training (0) and what it is after (1).",
    arguments=(
        Argument("a", share(), "how much of the new; nothing to see the curve alone", required=False),
    ),
    options=(
        Option(
            "between",
            word_or_object("two points of the history, such as 1,2", "N,M"),
            "blend two other points: 0 is before training, k is after stage k",
            "before training and now",
        ),
    ),
    details="""Weights and buffers of the body are averaged (WiSE-FT, Wortsman et al. 2022); the head stays the
new one. The curve shows accuracy on the new task and, where old data is known, on the old one. Every later blend
is between the same two ends, until the body is trained again.""",
    examples=(
        ("%tl_blend 0.5", "halfway"),
        ("%tl_blend 1", "what training gave, bit for bit"),
        ("%tl_blend", "the curve"),
        ("%tl_blend 0.5 --between 1,2", "halfway between what stages 1 and 2 left"),
    ),
)

CLEAN = Command(
    "tl_clean",
    "clean",
    "Show what is suspicious in the data: likely wrong labels, copies, odd and unusable samples; and mend it.",
    options=(
        Option(
            "relabel",
            word_or_object("numbers of samples with classes, such as 3=cat,8=dog", "N=CLASS[,N=CLASS]"),
            "give samples another label",
        ),
        Option(
            "drop",
            word_or_object("numbers of samples, such as 3,8", "N[,N]"),
            "leave samples out of training and validation",
        ),
        Option(
            "keep",
            word_or_object("numbers of samples, such as 3,8", "N[,N]"),
            "these are right as they are, and no suspects again",
        ),
        Option("undo", None, "take the last mark back"),
        Option("forget", None, "take all marks of this data back"),
        Option(
            "save",
            word_or_object("a file", "FILE", files=True),
            "write the marks to a CSV, which %tl_data SOURCE --marks FILE takes",
        ),
    ),
    details="""Wrong labels are found by confident learning (Northcutt et al. 2021): a linear classifier on kept
features answers for each sample that it has not seen, twice, the second time without what the first one doubts.
Copies are told by features and hashes, also where they are re-encoded, resized, cropped a little or mirrored; of texts
by their letters. Training and validation samples take part, the test part is never read.

Marks belong to the samples, by content: they are saved with the session, hold again where the same data is named again,
and no file is touched. Training goes on with the mended data, and kept features of the others stay. Where a notebook is
open the suspects show as a grid to click through.""",
    examples=(
        (
            "suspects = %tl_clean",
            "the table; suspects[0], suspects.frame(), suspects.relabel(0), suspects.drop(1)",
        ),
        ("%tl_clean --relabel 3=cat,8=dog --drop 5", "by the numbers of the samples"),
        ("%tl_clean --undo", "the last mark never was"),
        ("%tl_clean --save marks.csv", "then %tl_data photos --marks marks.csv, anywhere"),
    ),
)

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        LOAD,
        DATA,
        HEAD,
        TASKS,
        LAYERS,
        FREEZE,
        UNFREEZE,
        ADAPT,
        MERGE,
        LR,
        TRAIN,
        STEP,
        STATUS,
        HISTORY,
        SAVE,
        RESUME,
        UNDO,
        MAP,
        PANEL,
        ADVISE,
        CHOOSE,
        SWEEP,
        CV,
        CLEAN,
        CLUSTER,
        FORGET,
        BLEND,
        *TAKING_ALONG,
    )
}
