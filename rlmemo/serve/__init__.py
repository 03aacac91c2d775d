"""Plans over HTTP for one's own devices: they send what is opened, and are answered what to have ready.

    python -m rlmemo.serve --policy runs/first           on the machine that holds the run
    python -m rlmemo.live start --policy http://…        on the device

`door` lets in who has the token, `app` knows the addresses, `people` holds a mind for each recording (that of
`rlmemo.live`), and `rlmemo.store` keeps what they stand on. For many people `replicas` thinks on Ray's
workers, several people in one of the `passes`. The device's side is `rlmemo.live.elsewhere`.
"""
