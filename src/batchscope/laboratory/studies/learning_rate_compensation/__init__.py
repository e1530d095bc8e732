"""What a higher learning rate wins back of what a large batch loses, on a grid of both (Shen A2; Chang, Pathak).

The best learning rate of a batch size is that with the best mean over the seeds of the metric that choices are made by.
The share won back is (large batch at ten times the learning rate - large batch) / (small batch - large batch), both at
the smallest learning rate where nothing is said, means over seeds divided by each other.
"""

from __future__ import annotations

from ...published import SHEN_SETTINGS
from ...records import Length, NamedStudy, StudyQuestion
from .cells import arms
from .conclusions import SOURCE, conclude
from .sections import sections

__all__ = ["STUDY"]

STUDY = NamedStudy(
    name="learning_rate_compensation",
    summary="a grid of batch sizes and learning rates: what a higher learning rate wins back of what a large batch "
    "loses",
    source=SOURCE,
    question=StudyQuestion(
        batch_sizes=(32, 64, 128, 256, 1024),
        lrs=(0.01, 0.02, 0.04, 0.08, 0.16),
        length=Length(unit="epochs", amount=30),
    ),
    quick={
        "batch_sizes": (64, 512),
        "lrs": (0.01, 0.04),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=0.5),
    },
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    conclude=conclude,
    sections=sections,
)
