"""One pass over all that is measured of the bus: `make bench`, or `make bench QUICK=1`.

    python -m bench [--quick] [--only STAGE]... [--output FOLDER] [--draw]

The full pass writes `results.json`, `results.md` and two pictures beside this file. A quick one, or one of
some stages only, writes to `out/bench`, for its figures are not those that are quoted. The last line on
stdout is the headline as one JSON object, for scripts; what is said on the way goes to stderr. The exit code
is 1 if an answer was wrong, and says nothing about how fast anything was.

How well voices are cloned, and how soon the engine is heard, is no matter of the bus: `make bench-cloning`.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from . import drawing
from .headline import merged
from .machine import describe
from .processes import ROOT, load_average
from .stages import QUICK, STAGES, Outcome, Say, peers_taken
from .tables import page

RESULTS: Final = "results.json"
HERE: Final = Path(__file__).parent
OUT: Final = Path("out/bench")


def take(names: list[str], quick: bool, say: Say) -> dict[str, Any]:
    """Go through stages, one after the other; what goes wrong in one does not end the others."""
    before, begun = load_average(), time.monotonic()
    outcomes: dict[str, Outcome] = {}
    wrong: list[str] = []
    for name in names:
        say(f"== {name}")
        try:
            outcomes[name] = STAGES[name](quick, say)
        except Exception as error:  # whatever a stage did not expect: the others still have their say
            wrong.append(f"{name}: {error.__class__.__name__}: {error}")
    stages = {name: outcome.found for name, outcome in outcomes.items()}
    setup_s = sum(outcome.setup_s for outcome in outcomes.values())
    return {
        "quick": quick,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe(),
        "load_average": [before, load_average()],
        "seconds": time.monotonic() - begun - setup_s,
        "setup_seconds": setup_s,
        "headline": merged(stages, names, peers_taken(quick)),
        "wrong": wrong + [line for outcome in outcomes.values() for line in outcome.wrong],
        "skipped": {what: why for outcome in outcomes.values() for what, why in outcome.skipped.items()},
        "stages": stages,
    }


def rounded(value: Any) -> Any:
    """The same with six digits of each float: more is noise, and noise makes long files."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def written(value: Any, indent: str = "") -> str:
    """JSON with a line for each row, so that a change of one row is a change of one line."""
    nested = [
        item
        for item in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        if isinstance(item, dict | list) and item
    ]
    if not nested:
        return json.dumps(value, ensure_ascii=False)
    more = f"{indent} "
    if isinstance(value, dict):
        items = [f"{more}{json.dumps(key)}: {written(item, more)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(f"{more}{written(item, more)}" for item in value) + f"\n{indent}]"


def save(found: dict[str, Any], folder: Path) -> None:
    """Write the rows and the page. Where this tree lies is nobody's business."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((RESULTS, written(rounded(found)) + "\n"), ("results.md", page(found))):
        (folder / name).write_text(text.replace(f"{ROOT}/", ""), encoding="utf-8")


def last_line(found: dict[str, Any]) -> str:
    """The headline for scripts, with what else they need to judge it."""
    more = {
        "seconds": found["seconds"],
        "setup_seconds": found["setup_seconds"],
        "load_average_before": found["load_average"][0],
        "load_average_after": found["load_average"][1],
        "wrong": len(found["wrong"]),
    }
    return json.dumps(rounded({**found["headline"], **more}))


@click.command()
@click.option("--quick", is_flag=True, help=f"Only {', '.join(QUICK)}, and briefly: under a minute.")
@click.option("--only", multiple=True, type=click.Choice(list(STAGES)), help="Only this stage; repeatable.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The folder to write to.")
@click.option("--draw", is_flag=True, help="Draw the pictures also of a pass that is not the full one.")
@click.option("--again", is_flag=True, help="Measure nothing: page and pictures from the folder's rows.")
def main(quick: bool, only: tuple[str, ...], output: Path | None, draw: bool, again: bool) -> None:
    """Measure, write, and print the headline as the last line."""

    def say(line: str) -> None:
        click.echo(line, err=True)

    names = [name for name in STAGES if name in (only or (QUICK if quick else STAGES))]
    full = not quick and not only
    folder = output or (HERE if full else OUT)
    if again:
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    else:
        found = take(names, quick, say)
        found["command"] = " ".join(["python -m bench", *sys.argv[1:]])
    found["pictures"] = []
    if full or draw:
        try:
            found["pictures"] = drawing.draw(found["stages"], folder, say)
        except drawing.NotDrawnError as error:
            found["skipped"]["pictures"] = str(error)
    save(found, folder)
    click.echo(page(found))
    for what, why in found["skipped"].items():
        say(f"skipped {what}: {why}")
    for line in found["wrong"]:
        say(f"wrong: {line}")
    say(f"{found['seconds']:.0f} s measured, {found['setup_seconds']:.1f} s of installs and builds before")
    say(f"written to {folder}")
    click.echo(last_line(found))
    if found["wrong"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
