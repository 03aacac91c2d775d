"""An ActivityWatch that answers from lists of rows, as aw-server does: what began before is cut off."""

from __future__ import annotations

from typing import Any

from rlmemo.live.activitywatch import AFK, WEB, WINDOW, ActivityWatch, Away, Bucket, BucketRow

W, P, A = "aw-watcher-window_box", "aw-watcher-web-firefox_box", "aw-watcher-afk_box"
KINDS = {W: WINDOW, P: WEB, A: AFK}
T = 1.7e9


class FakeServer(ActivityWatch):
    """held: rows by bucket, in time order; away: whether it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, list[BucketRow]] = {W: [], P: [], A: []}
        self.created, self.away, self.came = "1", False, False

    def buckets(self) -> list[Bucket]:
        self._there()
        return [Bucket(name, KINDS[name], "box", self.created) for name in self.held]

    def rows(self, bucket: Bucket, start: float | None) -> list[BucketRow]:
        self._there()
        start = -1e9 if start is None else start
        found = [r for r in self.held[bucket.name] if r.end >= start]
        return [BucketRow(r.bucket, r.kind, r.id, max(r.t, start), r.end, r.data) for r in found]

    def tell(self, name: str, t: float, **data: Any) -> None:
        """A heartbeat: the same as before makes the row longer, anything else ends it and begins another."""
        rows = self.held[name]
        if rows:
            last = rows[-1]
            rows[-1] = BucketRow(name, last.kind, last.id, last.t, T + t, last.data)
            if last.data == data:
                return
        rows.append(BucketRow(name, KINDS[name], sum(map(len, self.held.values())), T + t, T + t, data))

    def _there(self) -> None:
        if self.away:
            raise Away("nothing listens there")
