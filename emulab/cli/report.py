"""`emulab report`: the page of a result again, from its JSON alone."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command("report", short_help="Make the HTML report of a result.json again.")
@click.argument("result", metavar="RESULT.json", type=click.Path())
@click.option("-o", "--output", metavar="FILE", default="report.html", show_default=True, help="Where to; - is standard output.")
def command(result: str, output: str) -> int:
    """Render the HTML report of a RESULT.json that --artifacts wrote.  Needs no lab, no privileges and no network.

    The page is one file that needs nothing but itself; send it, attach it, open it from a disk.

    \b
    Examples:
      emulab report evidence/result.json
      emulab report evidence/result.json -o report.html
      emulab report - -o - < evidence/result.json > report.html
    """
    from emulab.errors import InputError
    from emulab.report import page
    from emulab.report.reading import read

    try:
        text = sys.stdin.buffer.read() if result == "-" else Path(result).read_bytes()
    except OSError as error:
        raise InputError(f"{result}: cannot be read: {error.strerror}") from None
    html = page.render(read(text, "standard input" if result == "-" else result))
    if output == "-":
        click.echo(html, nl=False)
        return 0
    try:
        Path(output).write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output}: cannot write there: {error.strerror}") from None
    return 0
