"""What a split needs of nuScenes' tables, as a file that is mapped into memory.

The devkit holds all tables of a version as Python objects: half a minute and many GB in every
process. So it is asked once, and what it says is kept in the cache folder.
"""

from lmd_cli.data.index.cache import open_index
from lmd_cli.data.index.records import Records, SplitIndex

__all__ = ["Records", "SplitIndex", "open_index"]
