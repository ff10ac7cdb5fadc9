"""The only place that wires objects: settings and connections become services."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any

from neuroca_backup import engines, registry, stores
from neuroca_backup.catalog import Catalog
from neuroca_backup.catalog.null import NullCatalog
from neuroca_backup.engines import Dividing, Question
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.keyring import Recipient
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.model.backup_set import BackupSet
from neuroca_backup.model.endpoint import Connections, Endpoint
from neuroca_backup.model.identity import BackupRef, Component, whole_source
from neuroca_backup.services import asking, parts, past, targets
from neuroca_backup.services.agreement import Agreement
from neuroca_backup.services.archiving import TERTIARY
from neuroca_backup.services.audit import DONE, FAILED, Audit
from neuroca_backup.services.backup import Backups, BackupType, Subject, default_full_every
from neuroca_backup.services.checking.planning import Rules as CheckingRules
from neuroca_backup.services.checking.running import Checking
from neuroca_backup.services.checklist import Checklist
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.services.locking import Locks
from neuroca_backup.services.objectives.watching import Objectives
from neuroca_backup.services.parts import Part
from neuroca_backup.services.quiesce import Quiesce
from neuroca_backup.services.recovery.assessment import Assessment
from neuroca_backup.services.recovery.journal import Journal
from neuroca_backup.services.recovery.selection import Selection
from neuroca_backup.services.recovery.survey import Survey
from neuroca_backup.services.restore import Restores
from neuroca_backup.services.restore_tests.recording import Recording
from neuroca_backup.services.restore_tests.testing import Testing
from neuroca_backup.services.retention.applying import Retention
from neuroca_backup.services.retention.planning import Rules
from neuroca_backup.services.retention.tiers import TieredRetention, rules_of_tertiary
from neuroca_backup.services.retrieval import Retrievals
from neuroca_backup.services.rotation import Rotation
from neuroca_backup.services.safety import Safety
from neuroca_backup.services.sets import LATEST, Sets
from neuroca_backup.services.verify import Verifier
from neuroca_backup.settings import S3StoreSettings, Settings, SourceSettings, kms_region
from neuroca_backup.spool import Spool
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """Everything a task or a command needs, made when it is first asked for.

    `extra_recipients` are keys offered in this process only, such as the offline recovery key.
    `actor` is who the audit trail names; without one, the user of this process.
    With `as_of` (aware) the stores are what they were then, and nobody can write to them.
    """

    settings: Settings
    connections: Connections
    extra_recipients: Sequence[Recipient] = ()
    actor: str = ""
    as_of: datetime | None = None

    @classmethod
    def build(
        cls,
        settings: Settings,
        connections: Connections,
        *,
        extra_recipients: Sequence[Recipient] = (),
        actor: str = "",
    ) -> Runtime:
        """Return a runtime; nothing is connected to yet."""
        return cls(settings, connections, tuple(extra_recipients), actor)

    def at(self, moment: datetime | None) -> Runtime:
        """Return a runtime that reads the stores as they were at `moment` (None: as they are)."""
        return self if moment == self.as_of else replace(self, as_of=moment)

    @cached_property
    def stores(self) -> Mapping[str, Store]:
        """The configured stores by name, primary first.

        Raises:
            ConfigurationError: With `as_of`: no store can tell how it was.
        """
        found: dict[str, Store] = {
            name: registry.load(stores, one.type, "STORE").from_settings(
                name, one, self.connections
            )
            for name, one in self.settings.storage.named().items()
        }
        return found if self.as_of is None else past.as_of(found, self.as_of)

    @cached_property
    def keyring(self) -> Keyring:
        """Every recipient that settings name, and those offered to this process."""
        recipients = (*self.extra_recipients, *self._recipients())
        return Keyring(recipients, former=self._former, on_use=self._note_key_use)

    @cached_property
    def rotation(self) -> Rotation:
        """Wrapping keysets for the recipients that settings name now."""
        configured = self._recipients()
        return Rotation(
            stores=self.stores,
            recipients=configured,
            opening=Keyring((*self.extra_recipients, *configured), former=self._former),
            audit=self.audit,
            remind_after=self.settings.key_rotation.remind_after,
        )

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog in PostgreSQL, or one that keeps nothing where none is configured."""
        connection = self.settings.catalog.connection
        if connection is None:
            return NullCatalog()
        from neuroca_backup.catalog.postgres import PostgresCatalog  # noqa: PLC0415 - if used

        return PostgresCatalog(self.connections.endpoint(connection))

    @cached_property
    def audit(self) -> Audit:
        """The audit trail."""
        # Looking at how the stores were is itself something that is done now.
        return Audit(stores=self.at(None).stores, catalog=self.catalog, actor=self.actor)

    @cached_property
    def spool(self) -> Spool:
        """The spool."""
        return Spool(self.settings.pipeline.spool)

    @cached_property
    def backups(self) -> Backups:
        """Making backups."""
        return Backups(
            subject=self.subject,
            stores=self.stores,
            keyring=self.keyring,
            catalog=self.catalog,
            spool=self.spool,
            compression=self.settings.compression,
            workers=self.settings.pipeline.workers,
            audit=self.audit,
            archive=self.settings.archive.of,
            locks=Locks(period=self._kept_in, workers=self.settings.pipeline.workers),
        )

    @cached_property
    def verifier(self) -> Verifier:
        """Checking backups."""
        return Verifier(
            engine=engines.named,
            stores=self.stores,
            keyring=self.keyring,
            catalog=self.catalog,
            workers=self.settings.pipeline.workers,
            audit=self.audit,
            record=self.as_of is None,
        )

    @cached_property
    def restores(self) -> Restores:
        """Restoring backups."""
        return Restores(
            engine=engines.named,
            stores=self.stores,
            keyring=self.keyring,
            catalog=self.catalog,
            spool=self.spool,
            workers=self.settings.pipeline.workers,
            audit=self.audit,
            as_of=self.as_of,
        )

    @cached_property
    def agreement(self) -> Agreement:
        """Holding what was restored together to each other."""
        return Agreement(self.settings.agreement, spool=self.spool, engine=engines.named)

    @cached_property
    def retrievals(self) -> Retrievals:
        """Having back what lies in archives."""
        return Retrievals(stores=self.stores, workers=self.settings.pipeline.workers)

    @cached_property
    def checklist(self) -> Checklist:
        """What is looked at before a restore."""
        return Checklist(
            engine=engines.named,
            stores=self.stores,
            spool=self.spool,
            verifier=self.verifier,
            restores=self.restores,
            quiesce=self.quiesce,
        )

    @cached_property
    def safety(self) -> Safety:
        """Saving what a restore in place would overwrite."""

        def back_up(ref: BackupRef, restore_id: str) -> None:
            mode, now = self.settings.pipeline.mode, self.at(None)
            now.backups.run(ref, mode=mode, backup_type=BackupType.FULL, before_restore=restore_id)
            now.verifier.verify(ref)

        return Safety(engine=engines.named, back_up=back_up)

    @cached_property
    def assessment(self) -> Assessment:
        """Planning the recovery of a whole system."""
        return Assessment(
            settings=self.settings,
            connections=self.connections,
            stores=self.stores,
            catalog=self.catalog,
            restores=self.restores,
            selection=Selection(self.stores, self.sets),
            survey=Survey(
                settings=self.settings,
                connections=self.connections,
                stores=self.stores,
                recipients=self._recipients,
            ),
        )

    @cached_property
    def retention(self) -> Retention:
        """Deleting what has expired, taking it back, holding it."""
        rules, workers = Rules.of(self.settings), self.settings.pipeline.workers
        if self.settings.storage.tertiary is None:
            return Retention(
                stores=self.stores,
                rules=rules,
                catalog=self.catalog,
                workers=workers,
                audit=self.audit,
            )
        return TieredRetention(
            stores=self.stores,
            rules=rules,
            tertiary=rules_of_tertiary(self.settings),
            catalog=self.catalog,
            workers=workers,
            audit=self.audit,
        )

    @cached_property
    def objectives(self) -> Objectives:
        """Whether the objectives are kept."""
        return Objectives(
            settings=self.settings,
            stores=self.stores,
            catalog=self.catalog,
            audit=self.audit,
            divided=lambda name: isinstance(engines.named(self.source(name).engine), Dividing),
        )

    @cached_property
    def testing(self) -> Testing:
        """The steps of a restore test."""
        return Testing(
            settings=self.settings,
            connections=self.connections,
            spool=self.spool,
            restores=self.restores,
            engine=engines.named,
            questions=self.questions,
        )

    @cached_property
    def test_records(self) -> Recording:
        """The records of restore tests."""
        return Recording(stores=self.stores, ledger=Ledger(self.catalog), audit=self.audit)

    @cached_property
    def checking(self) -> Checking:
        """Reading stored backups back within their window."""
        return Checking(
            stores=self.stores,
            verifier=self.verifier,
            rules=CheckingRules.of(self.settings),
            audit=self.audit,
        )

    def quiesce(self, component: Component) -> Quiesce:
        """Return what stops and starts the services that use the data of `component`."""
        return Quiesce(self.settings.services.get(component, ()))

    def journal(self, recovery_id: str) -> Journal:
        """Return the journal of a recovery; a `ConfigurationError` where that is no id of one."""
        return Journal(self.stores, recovery_id)

    def sets(self) -> Sets:
        """Return the backup sets; afresh, for it remembers which stores did not answer."""
        return Sets(self.stores)

    def set_to_restore(self, wanted: str, *, component: Component) -> BackupSet:
        """Return the set `wanted`, which may be `latest`: the newest complete one of `component`.

        An id is looked for in `component` first, then in the others. Raises what `Sets` raises.
        """
        if wanted == LATEST:
            sources = tuple(self.settings.sources_of(component))
            return self.sets().newest_complete(component, sources=sources)
        others = (one for one in Component if one is not component)
        return self.sets().find(wanted, components=(component, *others))

    def source(self, name: str) -> SourceSettings:
        """Return the settings of a source; those of the whole where `name` is a part of one.

        Raises:
            ConfigurationError: There is no such source; lists those that exist.
        """
        found = self.settings.source(name)
        if found is None:
            raise ConfigurationError(
                f"{name!r} is not a source",
                remedy=f"Use one of: {', '.join(self.settings.sources)}; "
                "`sources` in backup.yaml defines them.",
                value=name,
            )
        return found

    def component(self, name: str) -> Component:
        """Return the component that the source `name` belongs to."""
        return self.source(name).component

    def endpoint(self, name: str) -> Endpoint:
        """Return the production endpoint of the source `name`."""
        return targets.own(name, self.source(name), connections=self.connections)

    def parts(self, name: str) -> tuple[Part, ...]:
        """Return what is backed up for the source `name`: itself, or every part it has now.

        Raises:
            ConfigurationError: There is no such source.
            EmptySourceError: It is many things, and has none.
        """
        source = self.source(name)
        chosen = engines.named(source.engine)
        if name not in self.settings.sources or not isinstance(chosen, Dividing):
            return (Part(source=name, name=name),)
        return parts.discover(name, chosen, self.endpoint(name), chosen.options(source.options))

    def subject(self, name: str) -> Subject:
        """Return the source `name`, or the part of one that it names, ready to be dumped.

        Raises:
            ConfigurationError: There is no such source.
            NotFoundError: There is no such part, or the source is many and `name` all of them.
        """
        source = self.source(name)
        chosen = engines.named(source.engine)
        endpoint, options = self.endpoint(name), chosen.options(source.options)
        part = ""
        if isinstance(chosen, Dividing):
            part = parts.named(name, whole_source(name), chosen, endpoint, options).name
            options = chosen.part(options, part)
        elif name not in self.settings.sources:
            raise ConfigurationError(
                f"{name!r} is not a source, and {whole_source(name)} has no parts",
                remedy=f"Write {whole_source(name)}.",
                value=name,
            )
        return Subject(
            name=name,
            component=source.component,
            kind=source.engine,
            engine=chosen,
            endpoint=endpoint,
            options=options,
            retention=self.settings.retention.of(source.component),
            full_every=source.written_full_every or default_full_every(chosen),
            part=part,
            classification=source.classification,
            questions=self.questions(name),
        )

    def questions(self, name: str) -> tuple[Question, ...]:
        """Return what backup.yaml has asked of a restored copy; nothing of a source it has lost."""
        source = self.settings.sources.get(whole_source(name))
        if source is None:
            return ()
        return asking.read(engines.named(source.engine), source.questions, source=name)

    def ref(self, set_id: str, source: str) -> BackupRef:
        """Return the backup of `source` in the set `set_id`."""
        return BackupRef.of(set_id, self.component(source), source)

    def _kept_in(self, store: str, component: Component) -> timedelta:
        """Return how long `store` keeps backups of `component`."""
        near = self.settings.retention.of(component)
        if store != TERTIARY:
            return near
        return self.settings.retention.tertiary.of(component, nearby=near)

    def _note_key_use(self, backup_id: str, recipient: str) -> None:
        result = DONE if recipient else FAILED
        self.audit.note("key use", backup_id, result=result, details={"recipient": recipient})

    @cached_property
    def _former(self) -> tuple[Recipient, ...]:
        """Those that open what was wrapped for them before; a file that is gone opens nothing."""
        from neuroca_backup.keyring.local import LocalKeyFile  # noqa: PLC0415 - if used

        section, encryption = self.settings.key_rotation, self.settings.encryption
        places = {
            store.region: encryption.kms_connection or store.connection
            for store in reversed(self.settings.storage.named().values())
            if isinstance(store, S3StoreSettings)
        }
        found: list[Recipient] = [
            self._kms(
                key_arn,
                section.previous_kms_connection
                or places.get(kms_region(key_arn), encryption.kms_connection),
            )
            for key_arn in section.previous_kms_key_ids
        ]
        for path in section.previous_local_key_files:
            if path.exists():
                found.append(LocalKeyFile(path))
            else:
                log.warning("The former key file %s is not here; other keys are tried", path)
        return tuple(found)

    def _kms(self, key_arn: str, connection: str | None) -> Recipient:
        from neuroca_backup.keyring.kms import KmsRecipient, region_of  # noqa: PLC0415 - if used

        factory: Any = partial(
            self.connections.aws_client,
            "kms",
            region=region_of(key_arn),
            connection_id=connection,
        )
        return KmsRecipient(key_arn, factory)

    def _recipients(self) -> list[Recipient]:
        from neuroca_backup.keyring.local import LocalKeyFile  # noqa: PLC0415 - if used
        from neuroca_backup.keyring.recovery import RecoveryPublicKey  # noqa: PLC0415 - if used

        encryption, storage = self.settings.encryption, self.settings.storage
        found: list[Recipient] = []
        if encryption.local_key_file is not None:
            found.append(LocalKeyFile(encryption.local_key_file))
        keys = (
            (encryption.kms_key_id, encryption.kms_connection, storage.primary),
            (
                encryption.secondary_kms_key_id,
                encryption.secondary_kms_connection,
                storage.secondary,
            ),
        )
        for key_arn, connection, store in keys:
            if key_arn is not None:
                found.append(self._kms(key_arn, connection or getattr(store, "connection", None)))
        if encryption.recovery_public_key is not None:
            found.append(RecoveryPublicKey(encryption.recovery_public_key))
        return found
