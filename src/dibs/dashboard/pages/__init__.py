"""The pages, one file each: what may stand in its address, and what it asks for.

A page's `look` blocks and returns what its template needs. The template's blocks whose names begin with `live` are
rendered again while somebody looks, and are sent where they changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dibs.dashboard.page import Page
from dibs.dashboard.pages import dead, job, jobs, overview, queues, workers

#: By path below the dashboard's root.
PAGES: Mapping[str, Page] = MappingProxyType(
    {page.path: page for page in (overview.PAGE, queues.PAGE, jobs.PAGE, job.PAGE, dead.PAGE, workers.PAGE)}
)
