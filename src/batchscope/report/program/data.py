"""Data in a program: the order of the examples, their batches, and the examples that are held back."""

from __future__ import annotations

from ...wording import quoted
from ..loading import loader_arguments
from .facts import Facts

__all__ = [
    "batches_lines",
    "evaluate_function",
    "held_back_lines",
    "indices_function",
    "to_device_function",
    "two_examples",
]

_EVALUATION_CHUNK = 1000


def indices_function(facts: Facts) -> list[str]:
    """Generator of the indices of one batch after another; a stream has none."""
    if facts.task.loading == "stream":
        return []
    order = f"torch.Generator().manual_seed({facts.data_seed})"
    more = ["pool = torch.cat([pool, torch.randperm(examples, generator=order)])"]
    if facts.has("sampler"):
        order = f"itertools.count({facts.data_seed})"
        among = " if i in examples" if facts.task.held_back else ""
        more = [
            "seed = next(order)",
            "with kept_random_state():",
            "    seed_everything(seed)",
            f"    epoch = [int(i) for i in task.sampler(seed){among}]",
            "pool = torch.cat([pool, torch.tensor(epoch)])",
        ]
    batch = "pool[:BATCH_SIZE]" if facts.in_memory else "pool[:BATCH_SIZE].tolist()"
    return [
        f"def batches_of_indices({_given(facts)}):",
        '    """Yield batches without end; one may run on into the next epoch, so that all are full."""',
        f"    order = {order}",
        "    pool = torch.empty(0, dtype=torch.int64)",
        "    while True:",
        "        while len(pool) < BATCH_SIZE:",
        *(f"            {line}" for line in more),
        f"        yield {batch}",
        "        pool = pool[BATCH_SIZE:]",
    ]


def _given(facts: Facts, examples: str = "examples") -> str:
    """What the indices of batches follow from: how many examples there are, or the sampler and those it may give."""
    if not facts.has("sampler"):
        return examples
    return "task, examples" if facts.task.held_back else "task"


def to_device_function(facts: Facts) -> list[str]:
    """Function that moves a batch to the device, where it is not there."""
    if not facts.device or facts.in_memory:
        return []
    return [
        "def to_device(batch):",
        "    if isinstance(batch, dict):",
        "        return {name: to_device(value) for name, value in batch.items()}",
        "    if isinstance(batch, (list, tuple)):",
        "        return [to_device(value) for value in batch]",
        f'    return batch.to({facts.device}) if hasattr(batch, "to") else batch',
    ]


def held_back_lines(facts: Facts) -> list[str]:
    """Parting of the data into what is trained on and what is evaluated on, as the search did it."""
    held = facts.task.held_back
    if not held:
        return []
    trained_on = (
        f"examples = set(shuffled[{held}:])"
        if facts.has("sampler")
        else f"train_data = Subset(train_data, shuffled[{held}:])"
    )
    return [
        "order = torch.Generator().manual_seed(0)",
        "shuffled = torch.randperm(len(train_data), generator=order).tolist()",
        f"held_back = Subset(train_data, shuffled[:{held}])",
        trained_on,
    ]


def batches_lines(facts: Facts) -> list[str]:
    """Batches without end: as a loader makes them, or cut from tensors in memory."""
    indices = f"batches_of_indices({_given(facts, 'len(train_data)')})"
    if facts.in_memory:
        moved = f"[t.to({facts.device}) for t in train_data[:]]" if facts.device else "train_data[:]"
        return [
            f"tensors = {moved}  # whole batches are cut from them",
            f"batches = ([t[i] for t in tensors] for i in {indices})",
        ]
    options = [f"batch_sampler={indices}"]
    if facts.task.loading == "stream":
        options = ["batch_size=BATCH_SIZE", "drop_last=True"]
    if facts.has("collate"):
        options.append("collate_fn=task.collate")
    options.append(f"generator=torch.Generator().manual_seed({facts.data_seed})")
    arguments = loader_arguments(facts.task.loader_options)
    if facts.has("loader_options"):
        changed = "".join(f", {quoted(name)}: {value}" for name, value in arguments)
        arguments = [("", f"{{**task.loader_options{changed}}}" if changed else "task.loader_options")]
    options += [f"{name}={value}" if name else f"**{value}" for name, value in arguments]
    given = (f"    {option}," for option in ("train_data", *options))
    return ["loader = DataLoader(", *given, ")", "batches = iter(loader)"]


def two_examples(facts: Facts) -> str:
    """A batch of two examples."""
    if facts.in_memory:
        moved = f".to({facts.device})" if facts.device else ""
        return f"[t{moved} for t in train_data[:2]]"
    collate = "collate_fn=task.collate, " if facts.has("collate") else ""
    batch = f"next(iter(DataLoader(train_data, 2, {collate}generator=torch.Generator())))"
    return f"to_device({batch})" if facts.device else batch


def evaluate_function(facts: Facts) -> list[str]:
    """Metric of a task without `evaluate`: its loss on the examples that are held back."""
    if not facts.task.held_back:
        return []
    collate = "task.collate" if facts.has("collate") else "default_collate"
    batch = f"{collate}([held_back[i] for i in chunk])"
    if facts.in_memory:
        batch = "held_back[chunk.start : chunk.stop]"
        batch = f"[t.to({facts.device}) for t in {batch}]" if facts.device else batch
    elif facts.device:
        batch = f"to_device({batch})"
    weight = "float(task.loss_weight(batch))" if facts.has("loss_weight") else "len(chunk)"
    return [
        "def evaluate(model, task, held_back):",
        '    """Mean loss of the examples that are held back."""',
        "    total = terms = 0.0",
        f"    for start in range(0, len(held_back), {_EVALUATION_CHUNK}):",
        f"        chunk = range(start, min(start + {_EVALUATION_CHUNK}, len(held_back)))",
        f"        batch = {batch}",
        f"        weight = {weight}",
        f"        total += float(task.loss(model, batch){facts.task.loss_at}) * weight",
        "        terms += weight",
        '    return {"val_loss": total / terms}',
    ]
