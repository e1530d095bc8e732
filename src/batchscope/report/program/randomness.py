"""Random generators of a program: seeded as the search seeds them, and left alone by what is no part of a training."""

from __future__ import annotations

from .facts import Facts

__all__ = ["random_functions"]


def random_functions(facts: Facts) -> list[list[str]]:
    """Functions that seed and keep the generators that models and data may draw from, as `hardware.random_state`."""
    if not facts.known:
        return []
    seed = [
        "def seed_everything(seed):",
        "    torch.manual_seed(seed)",
        "    np.random.seed(seed % 2**32)",
        "    random.seed(seed)",
    ]
    on_gpu = facts.task.device.startswith("cuda")
    kept = [
        "@contextmanager",
        "def kept_random_state():",
        '    """Leave the random generators as they were: an evaluation draws nothing from training."""',
        "    states = torch.get_rng_state(), np.random.get_state(), random.getstate()",
        *(["    of_gpus = torch.cuda.get_rng_state_all()"] if on_gpu else []),
        "    yield",
        "    torch.set_rng_state(states[0])",
        "    np.random.set_state(states[1])",
        "    random.setstate(states[2])",
        *(["    torch.cuda.set_rng_state_all(of_gpus)"] if on_gpu else []),
    ]
    return [seed, kept]
