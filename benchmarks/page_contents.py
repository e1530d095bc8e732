"""What the published pages say, as committed in `results/contents/`: their texts, tables and charts, without a look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from batchscope.laboratory.claims.files import read_claims
from batchscope.laboratory.claims.page.page import claims_contents
from batchscope.laboratory.files import read_study
from batchscope.laboratory.page.page import study_contents
from batchscope.laboratory.studies import named_study
from batchscope.report.blocks import Block, Section
from batchscope.report.page import Contents, Head
from batchscope.store.codec import decode, encode
from batchscope.store.files import write_text
from batchscope.store.runs import read_runs

__all__ = ["contents_of", "read", "write"]

FOLDER = Path(__file__).parent / "results" / "contents"
BLOCKS: Mapping[str, type[Any]] = {block.kind: block for block in get_args(Block)}


def contents_of(out: Path) -> Contents:
    """What the page of a results folder says, of a study or of the claims."""
    runs = tuple(run for run in read_runs(out) if run.result is not None)
    if (out / "claims.json").exists():
        found, plan = read_claims(out)
        return claims_contents(found, runs, plan)
    study = read_study(out)
    return study_contents(study, runs, named_study(study.study).sections(study, runs))


def write(name: str, contents: Contents) -> None:
    """Write `results/contents/NAME.json`, a section a line."""
    sections = [
        {**encode(section), "blocks": [{"kind": block.kind, **encode(block)} for block in section.blocks]}
        for section in contents.sections
    ]
    lines = ",\n".join(json.dumps(section, ensure_ascii=False, separators=(",", ":")) for section in sections)
    head = json.dumps(encode(contents.head), ensure_ascii=False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(FOLDER / f"{name}.json", f'{{"head": {head},\n"sections": [\n{lines}\n]}}\n')


def read(name: str) -> Contents:
    """What `write` wrote."""
    data = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Contents(head=decode(Head, data["head"]), sections=tuple(_section(each) for each in data["sections"]))


def _section(data: Mapping[str, Any]) -> Section:
    blocks = tuple(
        decode(BLOCKS[each["kind"]], {k: v for k, v in each.items() if k != "kind"}) for each in data["blocks"]
    )
    return Section(name=data["name"], title=data["title"], blocks=blocks, folded=data["folded"])
