"""The commands of layers and heads: what is replaced, stays, trains or is adapted."""

from __future__ import annotations

from tlnb.magics.command import Argument, Command, Option
from tlnb.magics.values import choice, text, whole

ADDRESS_WORDS = text(
    "layers such as 0:5, -1:, layer3, features.*, body, head, all or none", "LAYERS", source="layers"
)

_ADDRESS = Argument("layers", ADDRESS_WORDS, "which layers; commas join several: 2:4,7", several=True)

_ADDRESSES = """Layers are numbered from 0 in the order in which data flows. An address is a number (3, -1), a
range (0:5 is 0 to 4, -1: is the last), a name or a prefix of names (layer3, layer1.0), a glob (features.*),
or one of body, head, all, none; commas join several. Layers that it does not hit stay as they are."""

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

TASKS = Command(
    "tl_tasks",
    "tasks",
    "Show the tasks whose heads share the body, each measured on its own validation samples as they are now.",
    details="A task comes with its data: %tl_data makes a new head where the classes are not those it knows.",
    examples=(("%tl_tasks", "classes, data, loss and accuracy of each task"),),
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
        Argument(
            "layers", ADDRESS_WORDS, "which layers; commas join several: 2:4,7", required=False, several=True
        ),
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
trained; what is saved is the optimizer's memory and the file, and the proof is won.

What it pays, on photos: biases before all weights come 1.8 points further than all weights at once with 20 pictures
a class, which is why the default plan has them there. Alone they are about as good as all weights on photos, and 4 to 7
points below on handwritten digits, which are far from what such networks know; rank 8 is 1 to 3 below there.""",
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
