"""Who answers: every source, every store, every key that would open a backup; asked side by side.

Nothing is changed, and who does not answer is no failure here: it is what a plan has to say.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLongError
from dataclasses import dataclass
from functools import partial

from neuroca_backup import engines
from neuroca_backup.errors import BackupError
from neuroca_backup.keyring import Recipient
from neuroca_backup.keyring.kms import KmsRecipient
from neuroca_backup.keyring.recovery import RecoveryPublicKey
from neuroca_backup.model.endpoint import Connections
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.services import targets
from neuroca_backup.services.inventory import read_keys, read_manifest
from neuroca_backup.services.recovery.plan import Reached
from neuroca_backup.settings import Settings
from neuroca_backup.stores import Store

# Longer than every client's own time limit; who has said nothing by then says nothing.
_PATIENCE_SECONDS = 90.0
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Survey:
    """Asks around."""

    settings: Settings
    connections: Connections
    stores: Mapping[str, Store]
    recipients: Callable[[], Sequence[Recipient]]

    def ask(self, names: Sequence[str]) -> tuple[Reached, ...]:
        """Ask the sources `names` and all stores; of files there is nobody to be asked."""
        files = [name for name in names if targets.of_files(self.settings.sources[name].engine)]
        servers = [name for name in names if name not in files]
        found = _side_by_side(
            [
                *(("source", name, partial(self._source, name)) for name in servers),
                *(("store", name, partial(_store, store)) for name, store in self.stores.items()),
            ]
        )
        words = "files of this machine"
        unasked = (Reached(kind="source", name=one, answers=None, detail=words) for one in files)
        return (*unasked, *found)

    def keys(self, ref: BackupRef) -> tuple[Reached, ...]:
        """Let every key unwrap the keys of the backup `ref`: who can, can open what is like it."""
        try:
            recipients = self.recipients()
        except BackupError as error:
            return (Reached(kind="key", name="recipients", answers=False, detail=str(error)),)
        wanted: list[tuple[str, str, Callable[[], str]]] = []
        unasked = []
        for one in recipients:
            if isinstance(one, RecoveryPublicKey):
                unasked.append(
                    Reached(
                        kind="key",
                        name=_named(one),
                        answers=None,
                        detail="not asked: its private half is kept offline",
                    )
                )
            else:
                wanted.append(("key", _named(one), partial(self._key, one, ref)))
        return (*_side_by_side(wanted), *unasked)

    def _source(self, name: str) -> str:
        source = self.settings.sources[name]
        endpoint = targets.own(name, source, connections=self.connections)
        endpoint = targets.with_default_port(endpoint, source.engine)
        version = engines.named(source.engine).probe(endpoint)
        return f"version {version} at {endpoint.label}"

    def _key(self, recipient: Recipient, ref: BackupRef) -> str:
        failures = []
        for name, store in self.stores.items():
            try:
                document = read_keys(store, read_manifest(store, ref).manifest)
                for entry in document.recipients:
                    if (entry.kind, entry.id) == (recipient.kind, recipient.id):
                        wrapped = base64.b64decode(entry.wrapped, validate=True)
                        recipient.unwrap(wrapped, backup_id=ref.backup_id)
                        return f"opens {ref.backup_id}"
                failures.append(f"{name}: {ref.backup_id} was not sealed for it")
            except BackupError as error:
                failures.append(f"{name}: {error.problem}")
            except binascii.Error:
                failures.append(f"{name}: the wrapped key is damaged")
        raise _NoAnswerError("; ".join(failures), remedy="Any other key is enough.")


class _NoAnswerError(BackupError):
    """Nobody gave an answer."""


def _store(store: Store) -> str:
    store.check()
    return store.location


def _named(one: Recipient) -> str:
    return f"{one.kind} {one.id}" if isinstance(one, KmsRecipient) else f"{one.kind} {one.id[:16]}"


def _side_by_side(wanted: Sequence[tuple[str, str, Callable[[], str]]]) -> tuple[Reached, ...]:
    if not wanted:
        return ()
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="survey")
    try:
        asked = [(kind, name, pool.submit(ask)) for kind, name, ask in wanted]
        return tuple(_answer(kind, name, future) for kind, name, future in asked)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(kind: str, name: str, future: Future[str]) -> Reached:
    answers, detail = False, ""
    try:
        answers, detail = True, future.result(timeout=_PATIENCE_SECONDS)
    except BackupError as error:
        detail = error.problem
    except TookTooLongError:
        detail = f"no answer within {_PATIENCE_SECONDS:.0f} s"
    except Exception as error:  # noqa: BLE001 - a driver's own error; its text may hold a password
        detail = f"no answer ({type(error).__name__})"
    return Reached.model_validate(
        {"kind": kind, "name": name, "answers": answers, "detail": detail}
    )
