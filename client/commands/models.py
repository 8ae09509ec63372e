"""`vc models`: model files on this machine."""

from __future__ import annotations

import click

from .shared import Setting, console, is_terminal, note, with_setting


@click.group()
def models() -> None:
    """Pull, list and verify model files."""


@models.command()
@click.argument("name")
@click.option("--from", "from_dir", type=click.Path(), metavar="DIR", help="A folder to look in first.")
@with_setting
def pull(setting: Setting, name: str, from_dir: str | None) -> None:
    """Bring the files of model NAME to this machine; what is there and right stays."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from ...common.models import PullProgress, find_manifest
    from ...common.models import pull as pull_model

    manifest = find_manifest(name)
    if is_terminal():
        with Progress(
            TextColumn("{task.description:.60}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
        ) as bar:
            task = bar.add_task(f"pulling {name}", total=manifest.size_bytes)

            def shown(progress: PullProgress) -> None:
                bar.update(
                    task,
                    completed=progress.done_bytes,
                    total=progress.total_bytes,
                    description=progress.message,
                )

            report = pull_model(manifest, from_dir=from_dir, progress=shown)
    else:
        said_tenths = -1

        def said(progress: PullProgress) -> None:
            nonlocal said_tenths
            tenths = 10 * progress.done_bytes // max(1, progress.total_bytes)
            if tenths > said_tenths:  # a log wants to know that it goes on, not each of 57 files
                said_tenths = tenths
                done, total = _megabytes(progress.done_bytes), _megabytes(progress.total_bytes)
                note(f"{done} of {total}: {progress.message}")

        report = pull_model(manifest, from_dir=from_dir, progress=said)
    done = f"{len(report.fetched)} files pulled in {report.seconds:.1f} s" if report.fetched else "complete"
    click.echo(f"{name}: {done}, {_megabytes(report.size_bytes)} in {report.folder}")


@models.command("list")
@with_setting
def list_models(setting: Setting) -> None:
    """List the models that installed engines know, and whether they are here."""
    from rich.table import Table

    from ...common.errors import ModelMissing
    from ...common.models import find_manifest, manifest_names, require

    table = Table(box=None, pad_edge=False)
    for title in ("model", "version", "size", "licence", "here"):
        table.add_column(title, justify="right" if title == "size" else "left")
    for name in manifest_names():
        manifest = find_manifest(name)
        try:
            here = str(require(manifest))
        except ModelMissing:
            here = f"no: vc models pull {name}"
        table.add_row(name, manifest.version, _megabytes(manifest.size_bytes), manifest.licence, here)
    console().print(table, soft_wrap=True)


@models.command()
@click.argument("name")
@with_setting
def verify(setting: Setting, name: str) -> None:
    """Read every file of model NAME and compare its hash."""
    from ...common.models import find_manifest
    from ...common.models import verify as verify_model

    manifest = find_manifest(name)
    folder = verify_model(manifest)
    click.echo(f"{name}: all {len(manifest.files)} files in {folder} are as pinned")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
