"""``lakehouse.toml`` and the environment into frozen settings, each value with its provenance.

Every key has a default; ``LAKEHOUSE__SECTION__KEY`` wins over the file; an unknown key or variable
is an error that names the nearest known one (ADR-006). Sections are dataclasses that belong to the
roles which use them; this module alone reads them.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.ingestd.compaction.settings import CompactionSettings
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.janitor.settings import JanitorSettings
from lakehouse.kit.secrets import SECRET_FORMS
from lakehouse.model.buckets import TENANT, check_bucket_class, check_bucket_name
from lakehouse.model.refs import PRIMARY, name_key
from lakehouse.model.residency import check_label
from lakehouse.model.vectors import Chunking, Profile
from lakehouse.node import values
from lakehouse.node.settings import (
    ROLES,
    BucketEntry,
    ListenSettings,
    NodeSettings,
    TelemetrySettings,
)
from lakehouse.objectstore.places import overlap, site_of
from lakehouse.objectstore.rescue import RescueSettings
from lakehouse.objectstore.settings import ResilienceSettings, SecretsSettings
from lakehouse.queryd.settings import QuerySettings
from lakehouse.storaged.settings import JournalSettings, RegistrySettings
from lakehouse.vectord.settings import (
    EmbeddingSettings,
    RagSettings,
    RetrievalSettings,
    VectorSettings,
)

ENV_PREFIX: Final = "LAKEHOUSE__"
FILE_NAME: Final = "lakehouse.toml"
_SECTIONS: Final[dict[str, tuple[type, ...]]] = {
    "gateway": (ListenSettings, GatewaySettings),
    "node": (NodeSettings,),
    "catalog": (CatalogSettings,),
    "ingest": (IngestSettings,),
    "compaction": (CompactionSettings,),
    "janitor": (JanitorSettings,),
    "query": (QuerySettings,),
    "vectors": (VectorSettings,),
    "embedding": (EmbeddingSettings,),
    "retrievals": (RetrievalSettings,),
    "rag": (RagSettings,),
    "storage": (JournalSettings, RegistrySettings, ResilienceSettings, SecretsSettings),
    "rescue": (RescueSettings,),
    "telemetry": (TelemetrySettings,),
}
# Fields of a profile, and how what is inside a field begins.
_PROFILE: Final = ((Profile, ""), (Chunking, "chunking."))
# How a key is called in the file where the field cannot be called so in Python.
_RENAMED: Final = {"bucket_class": "class"}
_DEFAULT_PRIMARY: Final = "file:./data/primary"
LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1", "[::1]")

# Fields that the node sets itself, or that no file may move.
_NOT_IN_FILES: Final = frozenset(
    [
        *((CatalogSettings, name) for name in ("bucket", "prefix", "store_id", "take_over")),
        *((Profile, name) for name in ("name", "builtin")),
    ]
)

D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Value:
    """A value in force and where it came from: ``default``, the file's name, or the variable."""

    value: values.Scalar
    source: str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a node is told. ``base`` is what relative paths are relative to."""

    file: Path | None
    base: Path
    listen: ListenSettings
    gateway: GatewaySettings
    node: NodeSettings
    catalog: CatalogSettings
    ingest: IngestSettings
    janitor: JanitorSettings
    query: QuerySettings
    vectors: VectorSettings
    embedding: EmbeddingSettings
    retrievals: RetrievalSettings
    rag: RagSettings
    journal: JournalSettings
    registry: RegistrySettings
    resilience: ResilienceSettings
    secrets: SecretsSettings
    rescue: RescueSettings
    telemetry: TelemetrySettings
    buckets: dict[str, BucketEntry]
    values: dict[str, Value]


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read ``path`` (None: ``lakehouse.toml`` in the working directory if there is one).

    Raises:
        invalid: not TOML, an unknown key or variable, a value of the wrong type or out of range,
            a relation that does not hold; ``key`` and, for a typo, ``nearest`` say where.
        not_found: ``path`` is given and is not there.
    """
    file = _find(path)
    base = (file.parent if file else Path.cwd()).resolve()
    given = _from_file(file) | _from_environment(environ)
    buckets = sorted({key.split(".")[1] for key in given if key.startswith("buckets.")} | {PRIMARY})
    merged = _merge(given, buckets)
    config = Config(
        file=file,
        base=base,
        listen=_section(ListenSettings, "gateway", merged, base),
        gateway=_gateway(merged, base),
        node=_section(NodeSettings, "node", merged, base),
        catalog=_section(CatalogSettings, "catalog", merged, base),
        ingest=_ingest(merged, base),
        janitor=_section(JanitorSettings, "janitor", merged, base),
        query=_section(QuerySettings, "query", merged, base),
        vectors=_vectors(merged, base),
        embedding=_section(EmbeddingSettings, "embedding", merged, base),
        retrievals=_section(RetrievalSettings, "retrievals", merged, base),
        rag=_section(RagSettings, "rag", merged, base),
        journal=_section(JournalSettings, "storage", merged, base),
        registry=_section(RegistrySettings, "storage", merged, base),
        resilience=_section(ResilienceSettings, "storage", merged, base),
        secrets=_section(SecretsSettings, "storage", merged, base),
        rescue=_section(RescueSettings, "rescue", merged, base),
        telemetry=_section(TelemetrySettings, "telemetry", merged, base),
        buckets={name: _section(BucketEntry, f"buckets.{name}", merged, base) for name in buckets},
        values=merged,
    )
    _check(config)
    return config


def config_keys() -> list[str]:
    """Every key there is, in the order of the file; ``<name>`` stands for a name of yours."""
    keys = [f"{name}.{key}" for name, kinds in _SECTIONS.items() for key in _fields(kinds)]
    return [
        *keys,
        "node.peers.<name>",
        *(f"buckets.<name>.{key}" for key in _fields([BucketEntry])),
        *(f"profiles.<name>.{key}" for key in _profile_fields()),
    ]


def _find(path: Path | None) -> Path | None:
    if path is None:
        here = Path(FILE_NAME)
        return here if here.is_file() else None
    if not path.is_file():
        raise LakehouseError(
            ErrorKind.NOT_FOUND, "the configuration file is not there", path=str(path)
        )
    return path


def _fields(kinds: Iterable[type]) -> dict[str, tuple[Any, Any]]:
    """Key -> (type, default) of the fields that a file can give: scalars and lists of text."""
    found: dict[str, tuple[Any, Any]] = {}
    for kind in kinds:
        hints = get_type_hints(kind)
        for item in dataclasses.fields(kind):
            if values.is_plain(hints[item.name]) and (kind, item.name) not in _NOT_IN_FILES:
                key = _RENAMED.get(item.name, item.name)
                found.setdefault(key, (hints[item.name], _default(item)))
    return found


def _profile_fields() -> dict[str, tuple[Any, Any]]:
    return {
        f"{above}{key}": spec for kind, above in _PROFILE for key, spec in _fields([kind]).items()
    }


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _known() -> dict[str, tuple[Any, Any]]:
    known = {
        f"{name}.{key}": spec
        for name, kinds in _SECTIONS.items()
        for key, spec in _fields(kinds).items()
    }
    known |= {f"node.peers.{role}": (str, "") for role in ROLES}
    return known


def _lookup(key: str) -> tuple[Any, Any] | None:
    """The type and default of ``key``, None if there is no such key."""
    parts = key.split(".")
    if parts[0] == "buckets" and len(parts) == 3:
        return _fields([BucketEntry]).get(parts[2])
    if parts[0] == "profiles" and len(parts) > 2:
        return _profile_fields().get(".".join(parts[2:]))
    return _known().get(key)


def _from_file(file: Path | None) -> dict[str, Value]:
    if file is None:
        return {}
    try:
        tree = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the configuration file is not TOML",
            path=str(file),
            reason=str(error),
        ) from error
    found = {}
    for key, raw in _flatten(tree):
        spec = _lookup(key)
        if spec is None:
            raise _unknown(f"{file.name} has an unknown key", key, _all_keys(key))
        found[key] = Value(values.checked(key, raw, spec[0], file.name), file.name)
    return found


def _flatten(tree: Mapping[str, object], above: str = "") -> Iterable[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    found = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX):
            continue
        key = variable.removeprefix(ENV_PREFIX).replace("__", ".").lower()
        spec = _lookup(key)
        if spec is None:
            near = [ENV_PREFIX + k.replace(".", "__").upper() for k in _all_keys(key)]
            raise _unknown("the environment has an unknown variable", variable, near)
        found[key] = Value(values.parsed(key, text, spec[0], variable), variable)
    return found


def _all_keys(like: str) -> list[str]:
    """Every known key, with the names of ``like`` in place of ``<name>``."""
    parts = like.split(".")
    name = parts[1] if len(parts) > 1 else PRIMARY
    own = re.compile(r"^(buckets|profiles)\.<name>")
    return [own.sub(lambda match: f"{match[1]}.{name}", key) for key in config_keys()]


def _unknown(message: str, key: str, known: list[str]) -> LakehouseError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return LakehouseError(
        ErrorKind.INVALID,
        message,
        key=key,
        nearest=near[0],
        hint=f"did you mean {near[0]}?",
    )


def _merge(given: Mapping[str, Value], buckets: Iterable[str]) -> dict[str, Value]:
    defaults = {key: default for key, (_, default) in _known().items()}
    for name in buckets:
        for key, (_, default) in _fields([BucketEntry]).items():
            defaults[f"buckets.{name}.{key}"] = default
    defaults[f"buckets.{PRIMARY}.url"] = _DEFAULT_PRIMARY
    merged = {key: given.get(key, Value(default, "default")) for key, default in defaults.items()}
    # What is not said of a profile is as its file, or the release, has it.
    return merged | {key: held for key, held in given.items() if key.startswith("profiles.")}


def _section(kind: type[D], name: str, merged: Mapping[str, Value], base: Path) -> D:
    """A section's dataclass; what is a place on disk is made absolute."""
    fields: dict[str, Any] = {}
    python_names = {new: old for old, new in _RENAMED.items()}
    for key in _fields([kind]):
        field = python_names.get(key, key)
        fields[field] = values.placed(key, merged[f"{name}.{key}"].value, base)
    if kind is NodeSettings:
        peers = {role: str(merged[f"node.peers.{role}"].value) for role in ROLES}
        fields["peers"] = {role: address for role, address in peers.items() if address}
    return kind(**fields)


def _ingest(merged: Mapping[str, Value], base: Path) -> IngestSettings:
    ingest = _section(IngestSettings, "ingest", merged, base)
    compaction = _section(CompactionSettings, "compaction", merged, base)
    return dataclasses.replace(ingest, compaction=compaction)


def _vectors(merged: Mapping[str, Value], base: Path) -> VectorSettings:
    profiles: dict[str, dict[str, object]] = {}
    for key, held in merged.items():
        if key.startswith("profiles."):
            _, name, field = key.split(".", 2)
            profiles.setdefault(name, {})[field] = held.value
    settings = _section(VectorSettings, "vectors", merged, base)
    if profiles:
        _check_profiles(profiles, settings.profiles_dir)
    return dataclasses.replace(settings, profiles=profiles)


def _check_profiles(profiles: Mapping[str, Mapping[str, object]], folder: str) -> None:
    from lakehouse.vectord.profiles import builtin_profiles

    for name in profiles:
        if name != name_key(name):
            raise LakehouseError(
                ErrorKind.INVALID,
                "a profile of the configuration has a name in small letters",
                key=f"profiles.{name}",
                nearest=f"profiles.{name_key(name)}",
            )
    builtin_profiles(folder, profiles)


def _gateway(merged: Mapping[str, Value], base: Path) -> GatewaySettings:
    gateway = _section(GatewaySettings, "gateway", merged, base)
    if merged["gateway.auth"].value == "off" and not gateway.hosts:
        # Whoever reaches the port is an operator: a web page must not reach it by its own name.
        return dataclasses.replace(gateway, hosts=LOOPBACK_HOSTS)
    return gateway


def bucket_class_of(name: str, entry: BucketEntry) -> str:
    """The class of a bucket, as written or as its name has it."""
    return entry.bucket_class or (PRIMARY if name == PRIMARY else TENANT)


def _check_reference(key: str, reference: str) -> None:
    """Refuse a secret that stands in the place of its reference, without showing it."""
    if reference and reference.partition(":")[0] not in SECRET_FORMS:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"{key} must be {' or '.join(SECRET_FORMS.values())}",
            key=key,
            hint="put the secret into a file of mode 600 or a variable, and name that",
        )


def _check(config: Config) -> None:
    strangers = [role for role in config.node.roles if role not in ROLES]
    if strangers or not config.node.roles:
        raise LakehouseError(
            ErrorKind.INVALID,
            "node.roles names a role that there is not",
            key="node.roles",
            roles=list(strangers),
            known=list(ROLES),
        )
    if config.listen.auth not in ("off", "tokens"):
        raise LakehouseError(
            ErrorKind.INVALID,
            "gateway.auth is off or tokens",
            key="gateway.auth",
            value=config.listen.auth,
        )
    _check_telemetry(config.telemetry)
    rescue = config.rescue.bucket
    if rescue and (rescue == PRIMARY or rescue not in config.buckets):
        raise LakehouseError(
            ErrorKind.INVALID,
            "rescue.bucket is a bucket of the configuration other than the primary one",
            key="rescue.bucket",
            value=rescue,
            buckets=[name for name in config.buckets if name != PRIMARY],
            hint=f"declare it under [buckets.{rescue}]",
        )
    for name, bucket in config.buckets.items():
        if not bucket.url:
            raise LakehouseError(
                ErrorKind.INVALID, "a bucket has no url", key=f"buckets.{name}.url", bucket=name
            )
        check_bucket_name(name)
        check_bucket_class(name, bucket_class_of(name, bucket))
        check_label(bucket.residency, name)
        _check_reference(f"buckets.{name}.secret_ref", bucket.secret_ref)
    _check_places(config.buckets)
    _check_reference("node.secret_ref", config.node.secret_ref)
    listening = {
        "gateway.http": config.listen.http,
        "gateway.grpc": config.listen.grpc,
        "telemetry.http": config.telemetry.http,
    }
    for key, address in listening.items():
        if not address and key == "telemetry.http":
            continue
        host, _ = values.host_and_port(key, address)
        if config.listen.auth == "off" and not values.is_loopback(host):
            raise LakehouseError(
                ErrorKind.INVALID,
                'auth = "off" binds loopback only: anybody who reaches the port is an operator',
                key=key,
                value=address,
                hint='set gateway.auth = "tokens" and make one with: lakehouse token create',
            )


def _check_places(buckets: Mapping[str, BucketEntry]) -> None:
    """Refuse two buckets of one place: who may write to one would write to the other, be it the
    catalog's ledger, and a copy there would be none."""
    sites = [(name, site_of(bucket)) for name, bucket in buckets.items()]
    for (one, mine), (other, theirs) in itertools.combinations(sites, 2):
        if overlap(mine, theirs):
            raise LakehouseError(
                ErrorKind.INVALID,
                "two buckets have one place, or one lies inside the other",
                key=f"buckets.{one}.url",
                other=f"buckets.{other}.url",
                hint="give each bucket a folder or a prefix of its own, none inside another's",
            )


def _check_telemetry(telemetry: TelemetrySettings) -> None:
    allowed = {"traces": ("off", "otlp"), "access_log": ("off", "debug", "info")}
    for key, known in allowed.items():
        value = getattr(telemetry, key)
        if value not in known:
            raise LakehouseError(
                ErrorKind.INVALID,
                f"telemetry.{key} is none of the known ones",
                key=f"telemetry.{key}",
                value=value,
                known=list(known),
            )
    if telemetry.sample_ratio > 1:
        raise LakehouseError(
            ErrorKind.INVALID,
            "telemetry.sample_ratio is between 0 and 1",
            key="telemetry.sample_ratio",
            value=telemetry.sample_ratio,
        )
