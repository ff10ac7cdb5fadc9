"""What an earlier backup has of a model's large files, and which of them are still the same."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from neuroca_backup.engines import Parent, Sink
from neuroca_backup.streams import CHUNK_BYTES, Unclosed
from neuroca_backup.trees.archive import INDEX, read_index
from neuroca_backup.trees.entries import Entry, member_of
from neuroca_backup.trees.reading import Opened, attributes, stable
from neuroca_backup.trees.walking import Found

_BLOCK = 512  # bytes that st_blocks counts in


@dataclass
class Earlier:
    """The large files of the parent, each of which is a member there, by path and by size.

    `large` (bytes) is from where on a file is a member of its own. `files` and `bytes` count what
    was found to be stored already.
    """

    sink: Sink
    trust_stat: bool
    large: int
    by_path: Mapping[str, Entry]
    by_size: Mapping[int, Sequence[Entry]]
    files: int = 0
    bytes: int = 0

    @classmethod
    def read(cls, parent: Parent | None, sink: Sink, *, trust_stat: bool, large: int) -> Earlier:
        """Return what `parent` has, which is nothing without one.

        Raises:
            DamagedError: Its index is not what was written.
        """
        by_path: dict[str, Entry] = {}
        by_size: dict[int, list[Entry]] = {}
        if parent is not None and any(one.name == INDEX for one in parent.manifest.members):
            with parent.open(INDEX) as raw:
                # A raw stream would give a line byte by byte.
                index = io.BufferedReader(Unclosed(raw), CHUNK_BYTES)
                for entry in read_index(lambda _: index):
                    if entry.member:
                        by_path[entry.path] = entry
                        by_size.setdefault(entry.size, []).append(entry)
        return cls(sink, trust_stat, large, by_path, by_size)

    def unchanged(self, found: Found) -> Entry | None:
        """Return the earlier entry of a file that nobody has touched, once the sink refers to it.

        Size, both times and inode are what they were. The change time (ctime) cannot be set by a
        program, only the clock can, so a changed file that looks the same is no accident.
        """
        before = self.by_path.get(found.path)
        if before is None or not self.trust_stat:
            return None
        status = found.status
        state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        if state != (before.size, before.mtime_ns, before.ctime_ns, before.inode):
            return None
        return self._referred(found, before)

    def same_content(self, found: Found) -> Entry | None:
        """Return the earlier entry whose content a file has under whatever name, or None.

        It is read for that only if the parent has a file of its size.
        """
        candidates = self.by_size.get(found.status.st_size, ())
        if not candidates or found.status.st_size < self.large:
            return None

        def read(opened: Opened) -> tuple[str, Mapping[str, str], os.stat_result]:
            running, size = hashlib.sha256(), 0
            while data := opened.stream.read(CHUNK_BYTES):
                running.update(data)
                size += len(data)
            opened.confirm(size)
            return running.hexdigest(), attributes(opened.stream.fileno()), opened.before

        digest, xattrs, status = stable(found, read)
        if _state(status) != _state(found.status):
            return None  # it has changed since it was listed, and is read as any other
        for before in candidates:
            if before.sha256 == digest:
                sparse = status.st_blocks * _BLOCK < status.st_size
                return self._referred(found, replace(before, xattrs=xattrs, sparse=sparse))
        return None

    def _referred(self, found: Found, before: Entry) -> Entry | None:
        name = member_of(found.path)
        if not self.sink.reuse(name, of=before.member):
            return None
        self.files += 1
        self.bytes += before.size
        return replace(before, member=name)


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
