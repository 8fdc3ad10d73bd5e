"""The index of a split: what it needs of nuScenes' tables, in a memory-mapped file.

All tables of a version as Python objects would be half a minute and many GB in every process. So
they are read once, and what a split needs of them is kept in the cache folder.
"""

from lmd_cli.data.nuscenes.index.cache import open_index
from lmd_cli.data.nuscenes.index.records import Records, SplitIndex

__all__ = ["Records", "SplitIndex", "open_index"]
