"""What a data set holds, by hashes: of its tables, and of some or all of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmd_cli.data.nuscenes.split import SplitSamples
from lmd_cli.errors import ForeignFileError
from lmd_cli.runtime.files import is_inside, open_given

#: Samples, evenly spread, whose files are hashed unless all are.
SAMPLES = 8
#: Of an index, what only detection reads.
OTHERS = ("others", "others_of")
_PIECE = 2**20


def index_sha256(dataset: Any, *, others: bool = False) -> str | None:
    """Hash of what the split needs of nuScenes' tables; nothing for data of the user's own.

    Args:
        dataset: all samples.
        others: with their annotations that are no vehicles, which only some commands read.
    """
    if not isinstance(dataset, SplitSamples):
        return None
    index, left_out = dataset.index, () if others else OTHERS
    meta = {name: value for name, value in index.meta.items() if name not in left_out}
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(set(index.arrays).difference(left_out)):
        array = index.arrays[name]
        digest.update(f"\n{name} {array.dtype.descr} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def file_hashes(dataset: Any, *, whole: bool = False) -> dict[str, str]:
    """SHA-256 of files by their name under the data root, sorted; what is not there is left out.

    Args:
        dataset: of nuScenes' tables; of other data sets no files are known.
        whole: every file that samples are loaded from, not only those of :data:`SAMPLES` samples.
    """
    if not isinstance(dataset, SplitSamples):
        return {}
    names = sorted(filter(is_inside, _all_names(dataset) if whole else _some_names(dataset)))
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(lambda name: file_sha256(dataset.dataroot / name), names)
        return {name: value for name, value in zip(names, hashes, strict=True) if value}


def _all_names(dataset: SplitSamples) -> set[str]:
    return {name for names in dataset.needed_files().values() for name in names}


def _some_names(dataset: SplitSamples) -> Iterator[str]:
    count = len(dataset)
    spread = sorted({k * count // SAMPLES for k in range(SAMPLES)})
    return iter({name for index in spread for name in dataset.files_of(index)})


def file_sha256(path: Path) -> str | None:
    """Hash of a plain file, or of one that a link leads to; nothing if it cannot be read."""
    digest = hashlib.sha256()
    with suppress(OSError, ForeignFileError), open(path, "rb", opener=open_given) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
        return digest.hexdigest()
    return None
