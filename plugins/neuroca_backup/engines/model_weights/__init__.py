"""Model weights, checkpoints and what training left beside them: each model backed up by itself.

What has not changed since the last backup is referred to there, not stored again.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from neuroca_backup.engines import (
    DIRECTORY,
    Difference,
    Engine,
    Parent,
    Restorable,
    RestoreTarget,
    Sink,
    checked_options,
)
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import FILES, Endpoint
from neuroca_backup.model.manifest import Dump, Manifest


class Options(BaseModel):
    """`options` of a source of this engine.

    `roots`: absolute paths; every directory and file in one of them is a model. `checkpoints`,
    `weights` and `artefacts`: patterns of files, in this order; what matches none is left out.
    `exclude`: patterns of what is left out in any case. `trust`: `stat` believes that a file is
    unchanged whose size, times and inode are; `content` reads it. `model`: only this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: tuple[str, ...] = Field(default=("/var/lib/neuroca/models",), min_length=1)
    checkpoints: tuple[str, ...] = (
        "*.ckpt",
        "*/checkpoint-*/*",
        "*/checkpoints/*",
        "optimizer.*",
        "scheduler.*",
        "rng_state*",
    )
    weights: tuple[str, ...] = (
        "*.safetensors",
        "*.gguf",
        "*.bin",
        "*.pt",
        "*.pth",
        "*.onnx",
        "*.h5",
        "*.npz",
        "*.msgpack",
        "*.index.json",
    )
    artefacts: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ("*.incomplete", "*.lock", "*.part", "*.tmp", "lost+found")
    trust: Literal["stat", "content"] = "stat"
    model: str = ""

    @field_validator("roots")
    @classmethod
    def _are_absolute(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        for root in roots:
            path = PurePosixPath(root)
            if not path.is_absolute() or ".." in path.parts or path.parent == path:
                raise ValueError(f"{root} is no absolute path of a directory below /")
        return roots


class ModelWeightsEngine:
    """See `neuroca_backup.engines.Engine`, and `Dividing`, `Reusing` and `Previewing` there."""

    kind: ClassVar[str] = "model_weights"
    default_port: ClassVar[int] = 0
    sandbox: ClassVar[str] = DIRECTORY
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = True
    reuses: ClassVar[bool] = True
    preview: ClassVar[tuple[str, ...]] = ("index.jsonl",)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        return checked_options(Options, given, kind=self.kind).model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the version of this machine's system, e.g. `6.1.0`.

        Raises:
            ConfigurationError: `endpoint` is a server.
        """
        if endpoint.kind != FILES:
            raise ConfigurationError(
                f"{endpoint.label} is a server, and {self.kind} reads files of this machine",
                remedy="Remove `connection` from the source.",
                value=endpoint.label,
            )
        return platform.release()

    def parts(self, endpoint: Endpoint, options: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG002 - the contract
        """Return the names of all models, sorted."""
        from neuroca_backup.engines.model_weights import discovery  # noqa: PLC0415 - if used

        return tuple(discovery.models(Options.model_validate(options)))

    def part(self, options: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """Return the options with which the model `name` alone is dumped."""
        return {**options, "model": name}

    def dump(
        self,
        endpoint: Endpoint,  # noqa: ARG002 - it is this machine
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Dump the chosen models; what the parent has of them already is referred to."""
        from neuroca_backup.engines.model_weights import dump  # noqa: PLC0415 - if used

        return dump.dump(sink, Options.model_validate(options), parent)

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every entry and every content, and the structure of the files of known formats."""
        from neuroca_backup.engines.model_weights import parse  # noqa: PLC0415 - if used

        parse.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return how many models and files the backup holds."""
        from neuroca_backup.trees.totals import said  # noqa: PLC0415 - if used

        facts = manifest.dump.facts
        return f"{len(facts['models'])} models, {said(facts)}"

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse parts that the backup has not, and places that may not be replaced."""
        from neuroca_backup.engines.model_weights import restore  # noqa: PLC0415 - if used

        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Make a copy beside each place that it will take."""
        from neuroca_backup.engines.model_weights import restore  # noqa: PLC0415 - if used

        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare contents and metadata of every entry with the copy."""
        from neuroca_backup.engines.model_weights import restore  # noqa: PLC0415 - if used

        return restore.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Move the copies into place by renames, keeping what they replace."""
        from neuroca_backup.engines.model_weights import restore  # noqa: PLC0415 - if used

        return restore.publish(backup, target)


ENGINE: Engine = ModelWeightsEngine()
