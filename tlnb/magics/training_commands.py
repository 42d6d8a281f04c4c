"""The commands of training: rates, stages, where a session stands, and how it goes on."""

from __future__ import annotations

from tlnb.engine.training.stage import KEYS
from tlnb.magics.command import Argument, Command, Option
from tlnb.magics.values import choice, number, stage_key, text, whole


def _stage_options(*names: str) -> tuple[Option, ...]:
    chosen = {name: KEYS[name] for name in names or KEYS}
    return tuple(
        Option(name, stage_key(name, key), f"{key.help}: {key.takes}") for name, key in chosen.items()
    )


NO_CACHE = Option(
    "no-cache", None, "run frozen layers in every step, not once over the samples; the result is the same"
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
        NO_CACHE,
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
        NO_CACHE,
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
at a low rate, and of what was learned as much is kept as serves the validation samples best. In a deep pretrained
network for pictures the biases adapt in between, and what the weights learn after them stays only where it is better
by more than luck. With any setting it trains one stage. A stage that ends worse than the one before, on the
validation samples, is taken back, and the answer says so; guard off keeps it.

contrast 0.1 compares the samples of a batch in place of the task's loss (SupCon, Khosla et al. 2020): those of a class
are drawn together. It trains the body alone (train body … contrast 0.1 blend 0.5), and fit head follows. Few texts of
many classes pay for it (ten of each of 77: 0.9 points; thirty: none); a batch should hold several of most classes.
average gained nothing beyond luck where it was measured (ema 0.3 points, last:3 0.4), so no plan has it unasked.

With --budget a few batches are timed, and the best plan that fits runs: the advised one, with fewer epochs where all
do not fit, or the last part of the body, or the head alone. Its seconds are said before it runs; a budget that is too
small is refused, with what is enough.

The learning rate is found by a range test unless lr says otherwise; schedule constant takes a more cautious one from
the same curve (rule minimum), as it is held from the first step.

In a plan, train L trains exactly the layers L, and adapters that lines before it trained become a part of the weights
first; freeze and unfreeze change what the line before left. fit head fits
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
