"""Makes, checks and reuses a synthetic nuScenes root."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lmd_cli.data.nuscenes.index.scenes import nuscenes_splits
from lmd_cli.data.synthetic.evidence import EVIDENCE_FILE
from lmd_cli.data.synthetic.tables import MAP_FILE, TABLE_NAMES
from lmd_cli.data.synthetic.write import VERSION, write_world
from lmd_cli.errors import DataError
from lmd_cli.runtime.cache import cache_folder
from lmd_cli.runtime.drafts import making

#: Raised whenever the same parameters give other bytes.
FORMAT = 3
MANIFEST = "synthetic.json"
DEMO_SAMPLES = 20
DEMO_IMAGE_SIZE = (450, 800)

Split = Literal["mini_val", "mini_train", "all"]
Progress = Callable[[int, int], None]

_MINI_VAL = ("scene-0103", "scene-0916")
_MINI_TRAIN = (
    *("scene-0061", "scene-0553", "scene-0655", "scene-0757"),
    *("scene-0796", "scene-1077", "scene-1094", "scene-1100"),
)
_SPLITS = ("mini_val", "mini_train", "all")


def _names(split: str) -> tuple[str, ...]:
    """All names of a split."""
    if split == "mini_val":
        return _MINI_VAL
    if split == "mini_train":
        return _MINI_TRAIN
    train = nuscenes_splits()["train"]
    return (*_MINI_VAL, *_MINI_TRAIN, *(name for name in train if name not in _MINI_TRAIN))


def scene_names(split: Split = "all", scenes: int | None = None) -> list[str]:
    """Names of the first ``scenes`` scenes of a split.

    ``all`` takes ``mini_val``'s two, then ``mini_train``'s eight, then the other scenes of
    nuScenes' ``train``; without a number, the ten of the mini splits.

    Raises:
        DataError: for an unknown split, or a number the split does not have.
    """
    if split not in _SPLITS:
        there = ", ".join(_SPLITS)
        raise DataError(f"no split {split!r} of the synthetic world; there are {there}")
    names = _names(split)
    count = min(len(names), 10) if scenes is None else scenes
    if not 1 <= count <= len(names):
        raise DataError(f"{count} scenes asked for: split {split!r} has 1 to {len(names)}")
    return list(names[:count])


def synthesize(
    output: Path,
    *,
    split: Split = "all",
    scenes: int | None = None,
    samples: int = DEMO_SAMPLES,
    seed: int = 0,
    image_size: tuple[int, int] = DEMO_IMAGE_SIZE,
    planted: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a synthetic nuScenes root (``v1.0-mini``) and return its path.

    It is written beside ``output`` and renamed when complete; what a killed process left there is
    removed. A sample's content depends on
    (seed, scene, index) and the image size only.

    Args:
        output: folder to make; must not exist, or be empty.
        split: which scene names to use, see :func:`scene_names`.
        scenes: number of scenes; all of the split's if None.
        samples: keyframes per scene.
        seed: seed of the world.
        image_size: (H, W) of the images.
        planted: with planted false alarms, some tens in each scene.
        progress: called with (finished samples, all samples).

    Raises:
        DataError: if ``output`` holds anything, or a number is out of range.
    """
    names = scene_names(split, scenes)
    _check_arguments(output, samples, image_size)
    output = Path(output).absolute()
    parameters = {"scenes": names, "samples": samples, "seed": seed, "image_size": [*image_size]}
    parameters |= {"planted": True} if planted else {}
    with making(output.parent, output.name) as folder:
        draft, order = folder / output.name, _names("all").index
        draft.mkdir(mode=0o755)
        for done in write_world(draft, names, order, samples, seed, image_size, planted):
            if progress is not None:
                progress(done, len(names) * samples)
        _write_manifest(draft, parameters)
        if output.is_dir():
            output.rmdir()  # empty: checked above
        draft.rename(output)
    return output


def _check_arguments(output: Path, samples: int, image_size: tuple[int, int]) -> None:
    if samples < 1:
        raise DataError(f"{samples} samples per scene asked for: at least 1 is needed")
    if not (32 <= image_size[0] <= 900 and 32 <= image_size[1] <= 1600):
        raise DataError(f"image size {image_size} (H, W) is outside (32, 32) to (900, 1600)")
    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise DataError(f"{output} exists already; give a new or empty folder", path=output)


def check_root(root: Path, parameters: dict[str, Any] | None = None) -> str | None:
    """What is wrong with a synthetic root, or None if it is whole.

    Compares the tables' digests and the number and total size of all files with the manifest.

    Args:
        parameters: if given, those that the root must have been made with.
    """
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"its manifest {MANIFEST} cannot be read ({error})"
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return f"its manifest is not of format {FORMAT}"
    if parameters is not None and manifest.get("parameters") != parameters:
        return "it was made with other parameters"
    files, size = _measure(root)
    if (files, size) != (manifest.get("files"), manifest.get("bytes")):
        return (
            f"it has {files} files with {size} bytes, "
            f"not {manifest.get('files')} with {manifest.get('bytes')}"
        )
    return _wrong_table(root, manifest.get("tables", {}))


def _wrong_table(root: Path, digests: dict[str, str]) -> str | None:
    for name in _table_files():
        try:
            if _digest(root / name) != digests.get(name):
                return f"{name} has been changed"
        except OSError as error:
            return f"{name} cannot be read ({error})"
    return None


def _table_files() -> list[str]:
    return [f"{VERSION}/{name}.json" for name in TABLE_NAMES] + [
        f"{VERSION}/{EVIDENCE_FILE}",
        MAP_FILE,
    ]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _measure(root: Path) -> tuple[int, int]:
    """Number and total size of the files below ``root``, the manifest left out."""
    count = size = 0
    for folder, _, names in os.walk(root):
        for name in names:
            if not (name == MANIFEST and Path(folder) == root):
                count, size = count + 1, size + (Path(folder) / name).stat().st_size
    return count, size


def _write_manifest(root: Path, parameters: dict[str, Any]) -> None:
    files, size = _measure(root)
    manifest = {
        "format": FORMAT,
        "parameters": parameters,
        "files": files,
        "bytes": size,
        "tables": {name: _digest(root / name) for name in _table_files()},
    }
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1))


def demo_root(cache_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """The demo's validation root: ``mini_val``, 2 x 20 samples, seed 0.

    Made on first use in the cache folder, checked and reused afterwards; a damaged or outdated
    one is made again. It does not matter if two processes make it at once.
    """
    return cached_root("mini_val", DEMO_SAMPLES, cache_dir=cache_dir, progress=progress)


def cached_root(
    split: Split,
    samples: int,
    *,
    seed: int = 0,
    image_size: tuple[int, int] = DEMO_IMAGE_SIZE,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """All scenes of a split in the cache folder: made if missing or damaged, else reused."""
    names = scene_names(split)
    parameters = {"scenes": names, "samples": samples, "seed": seed, "image_size": [*image_size]}
    name = f"synthetic-{split}-{samples}-seed{seed}-{image_size[0]}x{image_size[1]}"
    root = (cache_dir or cache_folder()) / name
    if check_root(root, parameters) is None:
        return root
    with making(root.parent, name) as folder:
        fresh = folder / name
        synthesize(
            fresh, split=split, samples=samples, seed=seed, image_size=image_size, progress=progress
        )
        _replace(root, fresh, parameters)
    return root


def _replace(root: Path, fresh: Path, parameters: dict[str, Any]) -> None:
    """Put ``fresh`` in the place of ``root``, unless another process has just done so."""
    if check_root(root, parameters) is None:
        return
    if root.exists():
        root.rename(fresh.parent / "damaged")
    try:
        fresh.rename(root)
    except OSError:
        if check_root(root, parameters) is not None:
            raise
