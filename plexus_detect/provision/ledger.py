"""Keeps the manifest true through a run: before its first request and after its last."""

from __future__ import annotations

from plexus_detect.errors import ConfigError
from plexus_detect.monitors import Manifest, Ownership, Plan
from plexus_detect.monitors.manifest import LastRun
from plexus_detect.provision.applying import ApplyResult
from plexus_detect.provision.backups import Backups
from plexus_detect.provision.manifestfile import ManifestFile, utc_now


class FileLedger:
    """The manifest of one deployment, and a backup of what ``command`` is about to change.

    Methods raise ConfigError for a file that cannot be used.
    """

    def __init__(self, file: ManifestFile, backups: Backups, command: str) -> None:
        self._file = file
        self._backups = backups
        self._command = command
        self._manifest = file.load()

    def ownership(self, *, mark: bool, overwrite: bool) -> Ownership:
        """What is ours by the manifest."""
        return Ownership(self._manifest.owner, self._manifest.owned, mark=mark, overwrite=overwrite)

    def expect(self, plan: Plan) -> None:
        """Keep what the plan is about to do, and what is there of it now; and that what it makes is ours."""
        # Also of what is only made: undo takes the newest backup for the last run.
        if plan.work:
            self._backups.write(plan.work, self._command)
        if plan.changes:
            self._keep(self._manifest.expecting(plan))

    def settle(self, plan: Plan, result: ApplyResult) -> None:
        """Write down what is ours now, and how the run ended."""
        drifted = sum(problem.kind == "drift" for problem in plan.problems)
        run = LastRun(utc_now(), len(plan.work), result.applied, drifted, result.failed - drifted)
        self._keep(self._manifest.settled(plan, result.seen, run.at), run)

    def adopt(self, plan: Plan) -> None:
        """Of a plan with nothing to do: what is as wanted already is ours, and that a run found it so."""
        now = utc_now()
        known = self._manifest
        try:
            self._keep(known.settled(plan, plan.seen, now), LastRun(now, 0, 0, 0, 0))
        except ConfigError:
            # That a run found nothing to do is no reason to fail where nothing can be written.
            if self._manifest.owned != known.owned:
                raise

    def _keep(self, manifest: Manifest, run: LastRun | None = None) -> None:
        self._manifest = manifest if run is None else manifest.ended(run)
        self._file.save(self._manifest)
