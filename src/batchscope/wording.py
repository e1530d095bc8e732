"""Numbers, intervals and units in words: the terminal, the page and messages share them. No torch, no charts."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence

from .store.records import TARGET_OF_TABLE, Estimate, Target

__all__ = [
    "about",
    "bytes_",
    "count",
    "duration",
    "duration_unit",
    "elapsed",
    "epochs_in_words",
    "joined",
    "length_in_words",
    "metric_in_words",
    "number",
    "percent",
    "plain",
    "plural",
    "quoted",
    "sentence",
    "showable",
    "target_in_words",
    "times",
    "whole",
    "with_interval",
]

Format = Callable[[float], str]

_TIME_UNITS = (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
_TIME_LIMITS = {"days": 172800.0, "h": 5400.0, "min": 90.0, "s": 0.9995, "ms": 0.9995e-3}
"""From how many seconds on a unit is used; below 1.5 minutes seconds read better."""
_LONG_S, _LONG = 36525 * 86400.0, "100 years or more"
"""A time from which on its length no longer matters."""
_METRIC_PARTS = {"train": "training", "val": "validation", "test": "test"}
_KEPT = "\N{NO-BREAK SPACE}\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
"""What does not print and does no harm; texts in many languages have it."""
_PLAIN = {
    **{"–": "-", "—": "-", "−": "-", "─": "-", "×": "x", "÷": "/", "·": "."},
    **{"±": "+-", "≤": "<=", "≥": ">=", "≈": "~", "•": "*", "│": "|", "‖": "|", "µ": "u", "μ": "u", "√": "sqrt "},
    **{"→": "->", "←": "<-", "“": '"', "”": '"', "\N{RIGHT SINGLE QUOTATION MARK}": "'"},
    **{"σ": "sigma", "α": "alpha", "ε": "epsilon", "η": "eta", "θ": "theta", "ν": "nu", "ρ": "rho", "Σ": "sum "},
    **dict.fromkeys("╭╮╰╯", "+"),
}
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def number(x: float | None) -> str:
    """Number with three significant digits, without padding, thousands separated; a negative number has a minus sign.

    >>> number(0.031623), number(1234567), number(12), number(2e-7), number(-0.5), number(None)
    ('0.0316', '1,230,000', '12', '2e-7', '−0.5', 'unknown')
    """
    if x is None or not math.isfinite(x):
        return "unknown"
    if x == 0:
        return "0"
    if x < 0:
        return f"−{number(-x)}"
    if not 1e-4 <= x < 1e9:
        mantissa, exponent = f"{x:.2e}".split("e")
        return f"{_trimmed(mantissa)}e{int(exponent)}"
    rounded = float(f"{x:.3g}")
    if rounded >= 100:
        return f"{rounded:,.0f}"
    return _trimmed(f"{rounded:.{2 - math.floor(math.log10(rounded))}f}")


def count(x: float | None) -> str:
    """Whole number, exact, thousands separated.

    >>> count(12345), count(99.6)
    ('12,345', '100')
    """
    return "unknown" if x is None or not math.isfinite(x) else f"{round(x):,}"


def whole(x: float) -> str:
    """Number with three significant digits, of something that is counted: without a fraction.

    >>> whole(28.8), whole(1234.4)
    ('29', '1,230')
    """
    return number(round(x))


def plural(n: float, noun: str, several: str = "") -> str:
    """Count with its noun.

    >>> plural(1, "run"), plural(2, "run"), plural(2, "batch", "batches")
    ('1 run', '2 runs', '2 batches')
    """
    return f"{count(n)} {noun if round(n) == 1 else several or noun + 's'}"


def duration(seconds: float | None) -> str:
    """Time in the unit that leaves one to three digits before the point.

    >>> [duration(s) for s in (0, 2.5e-5, 0.00134, 1.9, 83, 300, 7000, 2e5, 1e15)]
    ['0 s', '25 µs', '1.34 ms', '1.9 s', '83 s', '5 min', '1.94 h', '2.31 days', '100 years or more']
    """
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds == 0:
        return "0 s"
    if seconds >= _LONG_S:
        return _LONG
    unit = duration_unit(seconds)
    return f"{number(seconds / unit)} {next(name for name, size in _TIME_UNITS if size == unit)}"


def duration_unit(seconds: float) -> float:
    """Unit, in seconds, in which `duration` writes a time.

    >>> duration_unit(7000), duration_unit(83), duration_unit(0.002)
    (3600.0, 1.0, 0.001)
    """
    return next((unit for name, unit in _TIME_UNITS if abs(seconds) >= _TIME_LIMITS.get(name, 0.0)), 1.0)


def about(seconds: float) -> str:
    """Duration that is only roughly known, rounded up, in the units in which people tell it.

    >>> about(0.349), about(2.79), about(143), about(700), about(15055), about(2e5), about(1e15)
    ('1 s', '3 s', '2 min 30 s', '12 min', '4 h 11 min', '2 days 8 h', '100 years or more')
    """
    if seconds >= _LONG_S:
        return _LONG
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds <= 290:
        return elapsed(10 * math.ceil(seconds / 10))
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours + (minutes > 0), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def elapsed(seconds: float) -> str:
    """Duration that was taken by the clock, as people tell it: to the second, from an hour on to the minute.

    >>> elapsed(0.0432), elapsed(4.4949), elapsed(59.96), elapsed(192), elapsed(240), elapsed(15055)
    ('43.2 ms', '4.49 s', '60 s', '3 min 12 s', '4 min', '4 h 11 min')
    """
    if seconds < 89.5:
        return duration(seconds)
    if seconds >= 3570:
        return about(60 * round(seconds / 60))
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def bytes_(n: float | None) -> str:
    """Amount of memory in binary units.

    >>> bytes_(512), bytes_(1536), bytes_(8 * 1024**3)
    ('512 B', '1.5 KiB', '8 GiB')
    """
    if n is None or not math.isfinite(n):
        return "unknown"
    power = 0
    while abs(n) >= 999.5 and power < len(_BYTE_UNITS) - 1:
        n, power = n / 1024, power + 1
    return f"{number(n)} {_BYTE_UNITS[power]}"


def length_in_words(
    steps: float, batch_size: int, *, examples: int = 0, tokens_per_example: float | None = None
) -> str:
    """Length of a training, or of a part of it: its steps, and what they see.

    Epochs are told from one epoch on; below, and where there are none, the examples. Tokens where they are known.

    Args:
        steps: rounded up.
        batch_size: examples of a step.
        examples: in the training set; 0: unknown, or a stream.
        tokens_per_example: mean; `None`: it is not trained on tokens.

    >>> length_in_words(180, 128, examples=1437), length_in_words(11.3, 128, examples=60_000)
    ('180 steps (16 epochs)', '12 steps (1,536 examples)')
    >>> length_in_words(1200, 64, tokens_per_example=127.5), length_in_words(8, 4, examples=32)
    ('1,200 steps (76,800 examples, 9,790,000 tokens)', '8 steps (1 epoch)')
    """
    whole = max(1, math.ceil(steps))
    epochs = whole * batch_size / examples if examples else 0.0
    told = [plural(whole * batch_size, "example") if epochs < 0.9995 else epochs_in_words(epochs)]
    if tokens_per_example is not None:
        told.append(f"{number(whole * batch_size * tokens_per_example)} tokens")
    return f"{plural(whole, 'step')} ({', '.join(told)})"


def epochs_in_words(epochs: float) -> str:
    """Number of epochs, whole or not.

    >>> epochs_in_words(1), epochs_in_words(2.5)
    ('1 epoch', '2.5 epochs')
    """
    return f"{number(epochs)} {'epoch' if number(epochs) == '1' else 'epochs'}"


def target_in_words(target: Target) -> str:
    """Target as it is written, or that of a table, where it was not named.

    >>> target_in_words(Target.parse("val_loss<=0.12")), target_in_words(TARGET_OF_TABLE)
    ('val_loss<=0.12', 'the target of the table')
    """
    return "the target of the table" if target == TARGET_OF_TABLE else str(target)


def metric_in_words(metric: str) -> str:
    """A metric's name in words.

    >>> metric_in_words("train_loss_eval"), metric_in_words("val_accuracy"), metric_in_words("perplexity")
    ('training loss', 'validation accuracy', 'perplexity')
    """
    part, _, rest = metric.removesuffix("_eval").partition("_")
    return f"{_METRIC_PARTS[part]} {rest.replace('_', ' ')}" if part in _METRIC_PARTS and rest else metric


def percent(share: float | None) -> str:
    """Share in whole per cent; never a 100 % or 0 % that is not one.

    >>> percent(0.834), percent(0.998), percent(0.001), percent(1.0)
    ('83 %', 'over 99 %', 'under 1 %', '100 %')
    """
    if share is None or not math.isfinite(share):
        return "unknown"
    if 0.995 <= share < 1:
        return "over 99 %"
    return "under 1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def times(ratio: float) -> str:
    """Factor, as "times" of something.

    >>> times(3.34), times(0.5)
    ('3.3 times', '0.5 times')
    """
    return f"{number(float(f'{ratio:.2g}'))} times"


def with_interval(estimate: Estimate | None, format: Format = number) -> str:
    """Value with its 90 % interval; a unit that all three share is written once.

    >>> from batchscope.store.records import Estimate
    >>> def e(*v): return Estimate(value=v[0], low=v[1], high=v[2], n=3, unit="s", method="")
    >>> with_interval(e(1.9, 1.7, 2.3), duration), with_interval(e(85, 59, 130), duration)
    ('1.9 s (1.7–2.3)', '85 s (59 s–2.17 min)')
    >>> with_interval(e(40, 30, None)), with_interval(e(None, 30, None)), with_interval(e(None, None, None))
    ('40 (at least 30)', 'at least 30', 'not measured')
    >>> with_interval(e(-0.02, -0.03, 0.01))
    '−0.02 (−0.03 to 0.01)'
    """
    if estimate is None:
        return "not measured"
    value, low, high = (None if x is None or not math.isfinite(x) else x for x in _ends(estimate))
    if low is not None and high is not None:
        interval = _range(format(low), format(high), format(value) if value is not None else None)
    elif low is not None:
        interval = f"at least {format(low)}"
    elif high is not None:
        interval = f"at most {format(high)}"
    else:
        interval = ""
    if value is None:
        return interval or "not measured"
    if not interval or low == value == high:
        return format(value)
    return f"{format(value)} ({interval})"


def sentence(text: str) -> str:
    """Sentence made of a remark: a plain first word gets a capital, the end its full stop.

    >>> sentence("the fastest recipe found"), sentence("val_loss is noisy."), sentence("")
    ('The fastest recipe found.', 'val_loss is noisy.', '')
    """
    text = text.strip()
    if text.partition(" ")[0].removesuffix(":").isalpha():
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".!?:" else f"{text}."


def joined(parts: Sequence[str]) -> str:
    """Parts as a list in words, with commas and "and".

    >>> joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def showable(text: str) -> str:
    r"""Text of anyone on one line, without what steers a terminal, a page or the direction of writing.

    Control characters, line breaks, marks of direction and halves of characters are written as Python escapes them.

    >>> showable("val_loss"), showable("a\x1b[2J\nb"), showable("name\udcff"), showable("\u202egnp.exe")
    ('val_loss', 'a\\x1b[2J\\nb', 'name\\udcff', '\\u202egnp.exe')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _KEPT else c.encode("unicode_escape").decode() for c in text)


def plain(text: str) -> str:
    r"""Text in ASCII, for a terminal or a file that has no other characters.

    >>> plain("1.9 s (1.7–2.3) × 3 ≤ 5\xa0µs"), plain("é\u4e2d")
    ('1.9 s (1.7-2.3) x 3 <= 5 us', 'e\\u4e2d')
    """
    return "".join(_PLAIN.get(c) or _letters(c) or c.encode("unicode_escape").decode() for c in text)


def _letters(character: str) -> str:
    """ASCII that a character is made of: its letter without the accent, its digit, its space."""
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()


def quoted(value: object) -> str:
    """Simple value as Python, texts in double quotes.

    >>> print(quoted("val_loss"), quoted('say "no"'), quoted(1.5))
    "val_loss" 'say "no"' 1.5
    """
    text = repr(value)
    return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text


def _ends(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.value, estimate.low, estimate.high


def _range(low: str, high: str, value: str | None) -> str:
    units = {text.partition(" ")[2] for text in (low, high, value) if text is not None}
    dash = " to " if "−" in low[:1] + high[:1] else "–"
    if value is not None and len(units) == 1:
        return f"{low.partition(' ')[0]}{dash}{high.partition(' ')[0]}"
    if len(units) == 1 or low.partition(" ")[2] == high.partition(" ")[2]:
        return f"{low.partition(' ')[0]}{dash}{high}"
    return f"{low}{dash}{high}"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
