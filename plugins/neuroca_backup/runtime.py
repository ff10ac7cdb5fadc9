"""The only place that wires objects: settings and connections become services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from neuroca_backup.services import asking, parts, targets
from neuroca_backup.services.backup import Backups, BackupType, Subject, default_full_every
from neuroca_backup.services.checklist import Checklist
from neuroca_backup.services.parts import Part
from neuroca_backup.services.quiesce import Quiesce
from neuroca_backup.services.recovery.assessment import Assessment
from neuroca_backup.services.recovery.journal import Journal
from neuroca_backup.services.recovery.selection import Selection
from neuroca_backup.services.recovery.survey import Survey
from neuroca_backup.services.restore import Restores
from neuroca_backup.services.retention.applying import Retention
from neuroca_backup.services.retention.planning import Rules
from neuroca_backup.services.safety import Safety
from neuroca_backup.services.sets import LATEST, Sets
from neuroca_backup.services.verify import Verifier
from neuroca_backup.settings import Settings, SourceSettings
from neuroca_backup.spool import Spool
from neuroca_backup.stores import Store


@dataclass(frozen=True)
class Runtime:
    """Everything a task or a command needs, made when it is first asked for.

    `extra_recipients` are keys offered in this process only, such as the offline recovery key.
    """

    settings: Settings
    connections: Connections
    extra_recipients: Sequence[Recipient] = ()

    @classmethod
    def build(
        cls,
        settings: Settings,
        connections: Connections,
        *,
        extra_recipients: Sequence[Recipient] = (),
    ) -> Runtime:
        """Return a runtime; nothing is connected to yet."""
        return cls(settings, connections, tuple(extra_recipients))

    @cached_property
    def stores(self) -> Mapping[str, Store]:
        """The configured stores by name, primary first."""
        return {
            name: registry.load(stores, one.type, "STORE").from_settings(
                name, one, self.connections
            )
            for name, one in self.settings.storage.named().items()
        }

    @cached_property
    def keyring(self) -> Keyring:
        """Every recipient that settings name, and those offered to this process."""
        return Keyring((*self.extra_recipients, *self._recipients()))

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog in PostgreSQL, or one that keeps nothing where none is configured."""
        connection = self.settings.catalog.connection
        if connection is None:
            return NullCatalog()
        from neuroca_backup.catalog.postgres import PostgresCatalog  # noqa: PLC0415 - if used

        return PostgresCatalog(self.connections.endpoint(connection))

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
        )

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
            mode = self.settings.pipeline.mode
            self.backups.run(ref, mode=mode, backup_type=BackupType.FULL, before_restore=restore_id)
            self.verifier.verify(ref)

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
        return Retention(
            stores=self.stores,
            rules=Rules.of(self.settings),
            catalog=self.catalog,
            workers=self.settings.pipeline.workers,
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

    def _recipients(self) -> list[Recipient]:
        from neuroca_backup.keyring.kms import KmsRecipient, region_of  # noqa: PLC0415 - if used
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
                chosen = connection or getattr(store, "connection", None)
                factory: Any = partial(
                    self.connections.aws_client,
                    "kms",
                    region=region_of(key_arn),
                    connection_id=chosen,
                )
                found.append(KmsRecipient(key_arn, factory))
        if encryption.recovery_public_key is not None:
            found.append(RecoveryPublicKey(encryption.recovery_public_key))
        return found
