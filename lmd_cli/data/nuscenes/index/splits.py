"""Which scenes a split is: nuScenes', one of the version's own ``splits.json``, or a list."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from lmd_cli.data.nuscenes.index.scenes import nuscenes_splits
from lmd_cli.errors import DataError, ForeignFileError
from lmd_cli.runtime.files import open_given

#: A split's name, or names of scenes.
Split: TypeAlias = str | Sequence[str]
#: Where a version's own splits are, as nuscenes-devkit looks for them.
OWN_SPLITS = "splits.json"


def split_name(split: Split) -> str:
    """What a split is called in messages."""
    return split if isinstance(split, str) else f"of {len(split)} scenes"


def split_scenes(folder: Path, split: Split, present: Iterable[str]) -> tuple[set[str], set[str]]:
    """Names of the split's scenes that are ``present`` in the version, and of those that are not.

    Args:
        folder: the version's, with its tables.
        split: see :data:`Split`.
        present: names of the version's scenes.

    Raises:
        DataError: no such split (says which there are), none of its scenes is present, or
            ``splits.json`` cannot be read.
    """
    names = set(present)
    if isinstance(split, str):
        splits = {**own_splits(folder), **nuscenes_splits()}
        scenes = _of_name(folder, split, splits)
    else:
        splits, scenes = {}, set(split)
    if not scenes & names:
        raise DataError(_none_present(folder, split, splits, names))
    return scenes & names, scenes - names


def own_splits(folder: Path) -> dict[str, list[str]]:
    """The splits of a version's ``splits.json``; none without one.

    Raises:
        DataError: it is no mapping of names to lists of scenes' names.
    """
    path = folder / OWN_SPLITS
    try:
        with open(path, "rb", opener=open_given) as file:
            content = json.loads(file.read())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, ForeignFileError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}", path=path) from error
    if not isinstance(content, dict):
        content = {"": None}
    for name, scenes in content.items():
        if not isinstance(scenes, list) or not all(isinstance(scene, str) for scene in scenes):
            raise DataError(
                f"{path}: expected a mapping of splits' names to lists of scenes' names, such as "
                f'{{"garage": ["scene-0103"]}}; {name!r} is something else',
                path=path,
            )
    return content


def _of_name(folder: Path, split: str, splits: dict[str, list[str]]) -> set[str]:
    if split in splits:
        return set(splits[split])
    near = difflib.get_close_matches(split, splits, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise DataError(
        f"split {split} not found{hint}; splits: {', '.join(splits)}. One of your own goes into "
        f"{folder / OWN_SPLITS}, or data.split is a list of scenes"
    )


def _none_present(folder: Path, split: Split, splits: dict[str, list[str]], names: set[str]) -> str:
    usable = [name for name, members in splits.items() if names & set(members)]
    known = sorted(names)
    more = ", ..." if len(known) > 3 else ""
    return (
        f"no scene of split {split_name(split)} is in version {folder.name}, whose {len(names)} "
        f"scenes ({', '.join(known[:3])}{more}) belong to: "
        f"{', '.join(usable) or 'no known split'}. One of your own goes into {folder / OWN_SPLITS}"
    )
