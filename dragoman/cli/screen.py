"""What `dragoman up` prints: progress, addresses, lines to try, and what every change did."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from controlplane.api.meta import ObjectKey
from controlplane.provision.binding import Endpoint, PortOf
from controlplane.provision.tries import Try
from controlplane.status.report import Finding

_MOST_NAMES = 4


class Screen:
    """Prints to the terminal; one that is no terminal gets the same lines without colours."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._known: dict[tuple[str, ...], Finding] = {}

    def step(self, text: str) -> None:
        """Says what is being started."""
        self._console.print(f"  [dim]{escape(text)}[/dim]", highlight=False)

    def ready(self, bound: Mapping[PortOf, tuple[Endpoint, ...]], lines: Sequence[Try], status: str | None) -> None:
        """Says where everything is, and how to try it."""
        out = self._console
        out.print("\n[bold green]Dragoman is up.[/bold green] Ctrl-C stops everything.\n")
        for (gateway, port), endpoints in sorted(bound.items()):
            places = ", ".join(_endpoint(endpoint) for endpoint in endpoints)
            out.print(f"  Gateway [bold]{escape(gateway)}[/bold] port {port}: {places}", highlight=False)
        if status is not None:
            out.print(f"  status: http://{status}/status", highlight=False)
        if lines:
            out.print("\nTry:\n")
        route: ObjectKey | None = None
        for each in lines:
            if each.route != route:
                route = each.route
                out.print(f"  [dim]# {escape(str(route))}[/dim]", highlight=False)
            # In one piece, however narrow the terminal is: it is there to be copied.
            expect = f"  [dim]# {escape(each.expect)}[/dim]" if each.expect else ""
            out.print(f"  {escape(each.command)}{expect}", soft_wrap=True, highlight=False)
        out.print("\nEdit a file of the folder: it takes effect at once.\n")

    def changed(
        self,
        keys: Collection[ObjectKey],
        milliseconds: float,
        *,
        acknowledged: bool,
        refused: Container[ObjectKey] = (),
    ) -> None:
        """Says what a change was about, and when it was in force; of objects that have faults, that it is not."""
        taken = [str(key) for key in sorted(keys) if key not in refused]
        if taken:
            verdict = "[green]in force[/green]" if acknowledged else "[yellow]sent, not yet acknowledged[/yellow]"
            self._console.print(f"{_named(taken)}: {verdict} after {milliseconds:.1f} ms", highlight=False)
        left = [str(key) for key in sorted(keys) if key in refused]
        if left:
            self._console.print(f"{_named(left)}: the change is [red]not in force[/red]", highlight=False)

    def findings(self, found: Collection[Finding]) -> None:
        """Says what has become wrong, and what is right again.

        A fault that is on another line now is no new one. Of a file that cannot be read nobody knows what is right
        in it: what was wrong there is told when it can be read again.
        """
        now = {_what(finding): finding for finding in found}
        unread = {finding.file for finding in found if not finding.object and not finding.field}
        told = [finding for what, finding in now.items() if what not in self._known]
        for finding in sorted(told, key=lambda each: (each.file, each.line)):
            self._console.print(f"[red]✗[/red] {escape(str(finding))}", soft_wrap=True, highlight=False)
        gone = {what: finding for what, finding in self._known.items() if what not in now}
        hidden = {what: finding for what, finding in gone.items() if finding.file in unread}
        wrong = {_where(finding) for finding in found}
        mended = {_where(finding): finding for what, finding in gone.items() if what not in hidden}
        for where, finding in sorted(mended.items(), key=lambda each: (each[1].file, each[1].line)):
            if where not in wrong:
                what = " ".join(part for part in (finding.object, finding.field) if part) or finding.file
                self._console.print(f"[green]✓[/green] {escape(what)} is mended", soft_wrap=True, highlight=False)
        self._known = now | hidden

    def ended(self, name: str, exit_code: int) -> None:
        """Says that one of the processes has ended by itself."""
        how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        self._console.print(f"[red]✗[/red] {escape(name)} {how}; it is started again", soft_wrap=True, highlight=False)

    def line(self, name: str, text: str) -> None:
        """Passes on a line of one of the processes."""
        self._console.print(f"[dim]{escape(name)}:[/dim] {escape(text)}", soft_wrap=True, highlight=False)


def _where(finding: Finding) -> tuple[str, ...]:
    return finding.file, finding.object, finding.field


def _what(finding: Finding) -> tuple[str, ...]:
    return *_where(finding), finding.message


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return escape(", ".join(names[:_MOST_NAMES]) + more)


def _endpoint(endpoint: Endpoint) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
