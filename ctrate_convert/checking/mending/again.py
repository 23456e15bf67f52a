"""Tell what of a shard can be converted again: sources that still exist, and volumes of views."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from ctrate_convert.deleting.aside import put_back
from ctrate_convert.errors import CtrateError
from ctrate_convert.planning.views.offer import offer_of
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.presence import Presence, presence
from ctrate_convert.store.records.plan import Plan, PlannedSample, PlannedShard


class Again:
    """The samples of ``plan`` that can be converted again.

    A source is looked for where it was planned. A view is made from whichever shard holds its
    volume now, since a repair of that dataset may have put it into another one.
    """

    def __init__(self, dataset: Dataset, plan: Plan) -> None:
        self._dataset, self._plan = dataset, plan

    def lines(self, shard: PlannedShard) -> Iterator[PlannedSample]:
        """Yield the lines of those that were planned into ``shard``.

        Raises:
            DamageError: the plan was changed.
        """
        folder = Path(self._plan.settings.data_folder)
        for sample in load_samples(self._dataset, self._plan, shard):
            if self._plan.settings.view is not None:
                if sample.key in self._views:
                    yield self._views[sample.key]
                continue
            put_back(folder, sample.source)  # a killed deletion may have left it hidden
            if presence(folder, sample.source) is Presence.THERE:
                yield sample

    @cached_property
    def _views(self) -> dict[str, PlannedSample]:
        settings = self._plan.settings
        try:
            return offer_of(Dataset(Path(settings.data_folder)), settings, lambda *_: None).samples
        except (CtrateError, OSError):
            return {}  # that dataset is away: nothing of it can be converted again
