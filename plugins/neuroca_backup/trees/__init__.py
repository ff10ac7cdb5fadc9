"""Trees of files: what every engine over files of this machine is made of.

`walking` lists, `reading` reads a file until it is stable, `dumping` writes both into a backup:

    index.jsonl     one entry a line, in the order of `entries.order`
    tree.tar        PAX: everything but the contents of large files; `tar -xpf` restores it
    files/<path>    a member for each file from `dumping.LARGE_BYTES` on

`archive` reads that layout again, entry by entry. `placing` makes a copy beside its place and
renames it in, `restoring` fills the copy, `comparing` compares it, and `changes` says what a
restore would change. Paths are relative to a base directory, with `/` between their parts and
without `.` or `..`; bytes that are no UTF-8 are kept as Python's surrogate escapes. Nothing here
holds more in memory than the names of the directories it is in, and one small file.
"""
