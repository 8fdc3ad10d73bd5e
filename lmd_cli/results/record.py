"""``run.json``: the identity of a run, compared before another one continues in its folder."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lmd_cli.assembly.targets import source_of_target
from lmd_cli.config.schema import is_custom
from lmd_cli.config.shipped import PACKAGE
from lmd_cli.data.content import index_sha256
from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.fingerprint import changed, fingerprint
from lmd_cli.runtime.revision import revision

_PACKAGES = ("lmd-cli", "torch", "numpy", "pandas", "pillow")
#: Entries of ``run.json`` that must agree for a run to go on in a folder.
IDENTITY = (
    *("config", "rows", "perturbed", "without", "weights", "samples", "schedule"),
    *("threads", "compute", "device", "processor", "versions"),
)


#: Hash of the tables with annotations that only some commands read.
ANNOTATIONS = "annotations_sha256"


@functools.cache
def package_versions() -> Mapping[str, str]:
    """Versions of what computes the results."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def processor(device: torch.device) -> str:
    """What sums numbers: the GPU's name, or the CPU's vector instructions.

    Both choose the order of a sum, so results agree to the last bit only on the same.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.backends.cpu.get_cpu_capability())


def sample_list_sha256(tokens: Sequence[str]) -> str:
    """Hash of the tokens in order, one a line."""
    return hashlib.sha256("".join(f"{token}\n" for token in tokens).encode()).hexdigest()


def identity(
    config: Any, built: Any, dataset: Any, threads: int, device: torch.device
) -> dict[str, Any]:
    """The entries of ``run.json`` that say which run it is, whatever the command.

    Nothing in them depends on when, where or how often the run was started.

    Args:
        config: a ``RunConfig``.
        built: a ``BuiltNetwork``.
        dataset: all samples.
        device: what computes; a GPU's number does not count, because a rank's own must not show
            in the results.

    Raises:
        LmdError: the network raises at the first samples, or does not follow the contract.
    """
    network, output, precision = built.network, config.model.output, config.compute.precision
    settings = config.model_dump(mode="json")
    return {
        "config": settings,
        "config_sha256": json_sha256(settings),
        "checkpoint": built.checkpoint,
        "weights": {"sha256": built.sha256, "random": built.random},
        "samples": {
            "count": len(dataset.tokens),
            "sha256": sample_list_sha256(dataset.tokens),
            "tables_sha256": index_sha256(dataset),
        },
        "fingerprint": fingerprint(network, dataset, output, device, precision),
        "threads": threads,
        "device": device.type,
        "processor": processor(device),
        "versions": package_versions(),
        "code": code_revisions(config),
    }


def json_sha256(value: Any) -> str:
    """Hash of plain values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def code_revisions(config: Any) -> dict[str, Any]:
    """Revision of this package, and of the modules of targets of the user's own."""
    revisions = {"lmd": revision(PACKAGE)}
    for kind in ("model", "data"):
        section = getattr(config, kind)
        source = source_of_target(kind, section.target) if is_custom(section) else None
        if source is not None:
            revisions[kind] = revision(source)
    return revisions


def differing(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """Fields that differ, with both values: ``("data.split", "val", "mini_val")``."""
    rows: list[tuple[str, Any, Any]] = []
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            rows += differing(before, after, f"{prefix}{key}.")
        elif before != after:
            rows.append((f"{prefix}{key}", before, after))
    return rows


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Fields that differ, as ``data.split: 'val' there, 'mini_val' here``."""
    return [f"{key}: {there!r} there, {here!r} here" for key, there, here in differing(old, new)]


def _anywhere(record: Mapping[str, Any], key: str) -> Any:
    """An entry without the folder where the data lies: the same root has many names, and what is
    in it is identified by its samples' tokens."""
    value = record.get(key)
    if key == "samples" and isinstance(value, Mapping):
        return {name: value[name] for name in value if name != "tables_sha256"}
    data = value.get("data") if key == "config" and isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(data, Mapping):
        return value
    return {**value, "data": {name: data[name] for name in data if name != "dataroot"}}


def require_own(
    old: Mapping[str, Any] | None, new: Mapping[str, Any], folder: Path, results: Path | None
) -> None:
    """Refuses to go on with another run's results, or with some of which nobody knows whose.

    Args:
        old: the record that is there, if any.
        new: this run's.
        folder: the run's.
        results: where there are any.

    Raises:
        ResultsError: says so, and to what field it is due.
    """
    if old is not None:
        _require_same_run(old, new, folder)
    elif results is not None:
        raise ResultsError(
            f"{results} holds results without a run.json, so nothing shows that they are this "
            "run's; use another --output, or --overwrite to replace them"
        )


def no_resume(folder: Path) -> ResultsError:
    """What is said of results that ``--no-resume`` would lose."""
    return ResultsError(
        f"{folder} holds results, and --no-resume was given; add --overwrite to replace them, or "
        "use another --output"
    )


def _require_same_run(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    hint = "Use another --output, or --overwrite to replace them"
    different = _different_identity(old, new)
    if different:
        raise ResultsError(f"{folder} holds the results of another run:{different}\n{hint}")
    if different := another_network(old, new):
        raise ResultsError(f"{folder} holds results of another network: {different}. {hint}")
    if other_tables(old, new):
        raise ResultsError(f"{folder} holds results of other data: the tables changed. {hint}")


def other_tables(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two records know of tables with different contents."""
    hashes = [(record.get("samples") or {}).get("tables_sha256") for record in (old, new)]
    differ = None not in hashes and hashes[0] != hashes[1]
    return differ or old.get(ANNOTATIONS) != new.get(ANNOTATIONS)


def another_network(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What the fingerprints of two records say of code, weights and data that differ; nothing if
    they agree, or one has none."""
    same = all(old.get(key) == new.get(key) for key in ("device", "processor", "versions"))
    exact = same and old.get("threads") == new.get("threads") and new.get("device") == "cpu"
    return changed(old.get("fingerprint") or (), new.get("fingerprint") or (), exact=exact)


def require_same_ranks(first: Mapping[str, Any], own: Mapping[str, Any], rank: int) -> None:
    """Refuses to mix the rows of processes that compute different things.

    Raises:
        ResultsError: names every field that differs.
    """
    different = _different_identity(first, own)
    if network := another_network(first, own):
        different += f"\n  {network}"
    if different:
        raise ResultsError(
            f"rank {rank} is not like rank 0 (there), so their rows would not fit together:"
            f"{different}\n"
            "Start every process with the same command, packages and kind of processor"
        )


def _different_identity(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Lines of the fields that differ; empty if none does."""
    there, here = ({key: _anywhere(record, key) for key in IDENTITY} for record in (old, new))
    return "".join(f"\n  {line}" for line in differences(there, here))
