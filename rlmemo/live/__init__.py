"""On one's own machine: what is opened is read as it comes, planned for at once, and judged once it is known.

    python -m rlmemo.live start       record and plan; --act none, the default, does nothing but say it
    python -m rlmemo.live status      what it has seen, what it would have done, what that would have saved
    python -m rlmemo.live stop
    python -m rlmemo.live doctor      what works here, and what to do about the rest
    python -m rlmemo.live extension   the browser's extension: where it is, and its key

`activitywatch` and `fronts` turn what ActivityWatch says into opens; `rlmemo.store.live_ledger` keeps them;
`mind` follows them with a policy, a planner and the judge's own world; `loop` goes round; an executor
(`acts`) does what a plan says, or nothing. `extension/` is the browser's extension: `browser_port` lets it
in, `browser_desk` is where it meets the loop, and `pages_executor` leaves it orders.
"""
