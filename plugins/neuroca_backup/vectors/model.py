"""What a collection of vectors is, in words that every store shares."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from neuroca_backup.model import document

Kind = Literal[
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "float",
    "double",
    "string",
    "json",
    "array",
    "float_vector",
    "float16_vector",
    "bfloat16_vector",
    "int8_vector",
    "binary_vector",
    "sparse_vector",
]


class Name(NamedTuple):
    """A collection of a server: `database` is "" for the one that the connection names."""

    database: str
    collection: str

    @property
    def label(self) -> str:
        """`database.collection`, or the collection alone; how reports and `only` name it."""
        return f"{self.database}.{self.collection}" if self.database else self.collection


class Field(BaseModel):
    """One field of a collection.

    `dimension` is that of a vector (in bits of a binary one), 0 for others and for sparse ones;
    `element` the kind of an array's elements. `native` holds what else the store says of it, in
    the store's own words; the same store's adapter reads them when it creates the field again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    dimension: int = 0
    element: Kind | None = None
    nullable: bool = False
    native: dict[str, Any] = {}

    @property
    def is_vector(self) -> bool:
        """Whether it holds vectors."""
        return self.kind.endswith("_vector")


class Index(BaseModel):
    """An index: `kind` and `params` in the store's words, `metric` in ours for a vector field.

    `metric` is one of cosine, l2, ip, hamming, jaccard, or the store's own word in lower case
    where it is something else; "" for an index of a scalar field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    name: str = ""
    kind: str = ""
    metric: str = ""
    params: dict[str, Any] = {}


class Collection(BaseModel):
    """A collection as it can be created again.

    `key` names the field of the primary key (int64 or string). `partitions` are its parts with
    rows of their own (Milvus partitions, Pinecone namespaces); ("",) stands for "not divided".
    `new_keys` says that the server makes the keys and would make others for a restored row.
    `native` holds what else the store needs to create it again, in its own words; `transient`
    words of it (aliases, whether it was loaded) are part of `native` but not of `fingerprint`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: str = ""
    name: str
    key: str
    fields: tuple[Field, ...]
    indexes: tuple[Index, ...] = ()
    partitions: tuple[str, ...] = ("",)
    new_keys: bool = False
    native: dict[str, Any] = {}
    transient: dict[str, Any] = {}

    @property
    def at(self) -> Name:
        """Where it was."""
        return Name(self.database, self.name)

    @property
    def vectors(self) -> tuple[Field, ...]:
        """The vector fields."""
        return tuple(field for field in self.fields if field.is_vector)

    def field(self, name: str) -> Field:
        """Return the field called `name`; there must be one."""
        return next(field for field in self.fields if field.name == name)

    def metric(self, field: str) -> str:
        """Return the metric of a vector field's index, "" where it has none."""
        return next((one.metric for one in self.indexes if one.field == field and one.metric), "")

    def definition(self) -> dict[str, Any]:
        """Return what a restored copy must have in common with it, wherever it is called what."""
        return self.model_dump(mode="json", exclude={"database", "name", "transient"})

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the definition."""
        return hashlib.sha256(document.canonical(self.definition())).hexdigest()
