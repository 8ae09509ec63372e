"""The command: take the pass, print the table and the ratios, keep the rows."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from .catalogue import SYSTEMS
from .report import headline, table
from .runner import measure


@click.command()
@click.option("--quick", is_flag=True, help="The best known systems only, briefly: half a minute.")
@click.option("--only", multiple=True, type=click.Choice([system.name for system in SYSTEMS]), metavar="NAME")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out/bench-peers.json"))
def main(quick: bool, only: tuple[str, ...], output: Path) -> None:
    """Compare voicebus with other systems, one client and one worker each, all in Python."""
    begun = time.monotonic()
    found = measure(quick, only, lambda line: click.echo(line, err=True))
    ratios = headline(found["rows"])
    for line in table(found["rows"]):
        click.echo(line)
    for ours, row in ratios.items():
        click.echo(f"{ours}: " + "  ".join(f"{name} {value:.2f}" for name, value in row.items()))
    if quick:
        click.echo("the fastest ways to use the same peers are in the full pass")
    for what in ("skipped", "failed"):
        for name, reason in found[what].items():
            click.echo(f"{what}: {name}: {reason}")
    before, after = found["load_average"]
    click.echo(f"load average {before:.2f} before, {after:.2f} after; {time.monotonic() - begun:.0f} s")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**found, "headline": ratios}, indent=1) + "\n", encoding="utf-8")
    if found["failed"] or any(row["errors"] for row in found["rows"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
