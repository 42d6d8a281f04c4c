"""The commands that say what is trained on what: networks, data, and a look at both."""

from __future__ import annotations

from tlnb.engine.training.stage import AUGMENTS
from tlnb.magics.command import Argument, Command, Option
from tlnb.magics.layer_commands import ADDRESS_WORDS
from tlnb.magics.values import choice, number, text, whole, word_or_object

# Words of the engine's options, written out because reading them there would load torch; a test holds them
# equal.
BALANCES = ("weights", "samples")
TARGETS = ("classes", "labels", "regression")
METHODS = ("pca", "umap")
COLOURS = ("class", "prediction", "correct", "part")
SCORES = (
    "accuracy", "balanced", "f1", "auroc", "ap", "kappa", "qwk", "mcc", "top5", "loss", "r2", "mae", "rmse",
)  # fmt: skip

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
            ADDRESS_WORDS,
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
            "digits (1,797 real handwritten digits), glyphs (drawn letters), a folder, a table (CSV, TSV, JSONL, "
            "Parquet) or a tar, a pattern of such (shards/*.tar) or their address (s3://…), torchvision/NAME or $name; "
            "nothing for the data that is named",
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

Many tables of the same columns are one: name a pattern, or a folder that holds nothing else. Tars as WebDataset lays
them out (1.jpg beside 1.cls, or beside 1.json and --label KEY) are read in place. Tables of texts and tars at an
address that fsspec opens are fetched once, into at most half of the free disk.

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
    details="""Wrong labels are told by a linear classifier on kept features that answers for each sample that
it has not seen, twice, the second time without what the first one doubts, and by which classes are mistaken for each
other (Dawid and Skene 1979). This takes one class a sample; of several labels a sample, or of values, none is doubted.
Copies are told by features and hashes, also where they are re-encoded, resized, cropped a little or mirrored; of texts
by their letters. Training and validation samples take part, the test part is never read.

Marks belong to the samples, by content: they are saved with the session, hold again where the same data is named again,
and no file is touched. Training goes on with the mended data, and kept features of the others stay. Where a notebook is
open the suspects show as a grid to click through.""",
    examples=(
        (
            "suspects = %tl_clean",
            "the table; suspects[0], .frame(), suspects.relabel(0), suspects.drop(1)",
        ),
        ("%tl_clean --relabel 3=cat,8=dog --drop 5", "by the numbers of the samples"),
        ("%tl_clean --undo", "the last mark never was"),
        ("%tl_clean --save marks.csv", "then %tl_data photos --marks marks.csv, anywhere"),
    ),
)

MAP = Command(
    "tl_map",
    "map",
    "Draw a map of the samples: what comes out of a layer, in two dimensions.",
    arguments=(
        Argument(
            "layer", ADDRESS_WORDS, "one layer; nothing for the last one before the head", required=False
        ),
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
