"""Nothing of an address but its host is stored, shown or said, whatever the row calls it; names stay.

Every input has the word SECRET where something private stands. It must be in no table, in no file of the
database, in nothing that is printed, and in no prompt.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env.errors import InputError
from env.sources import load_timelines
from env.sources.names import MAX_NAME, kept_target, label, shown, target_and_kind
from env.timeline import KINDS, Event
from rlmemo import timelines
from rlmemo.store import database, schema
from rlmemo.store.database import open_store
from rlmemo.store.records import Prediction, Prewarm, state_text
from tests.shared_cases import case

T = 1_772_438_400
PAGES = {
    "https://bank.example": r"""
        https://ada:SECRET@bank.example/SECRET?SECRET#SECRET
        https://SECRET:pa/SECRET@bank.example/SECRET
        https://SECRET:p?w@bank.example
        HTTPS://BANK.EXAMPLE:443/SECRET
        HTTPS:\\bank.example\SECRET
        https:\/\/bank.example\/SECRET
        https:/bank.example/SECRET
        https:bank.example?tok=SECRET
        http:SECRET@bank.example
        https: //bank.example/SECRET
        https :// bank.example/SECRET
        h ttps://bank.example/SECRET
        https://bank.example SECRET
        https://bank.example/x SECRET?token=SECRET
        https://bank.example,SECRET/
        https://bank.example:SECRET/
        https://bank.example&token=SECRET/
        https://bank.example;SECRET
        https://bank.example%2FSECRET
        https://bank.example%3FSECRET
        https://ada%3ASECRET%40bank.example/
        https://bank.example\SECRET
        https%3A%2F%2Fbank.example%2FSECRET
        https%253A%252F%252Fbank.example%252FSECRET%253Fx
        HTTPS%3a//bank.example/login?token=SECRET
        https&#58;//bank.example/SECRET
        https&colon;//bank.example/SECRET
        &quot;https://bank.example/SECRET&quot;
        ｈｔｔｐｓ：／／bank.example／SECRET
        https：//bank.example?SECRET
        https∶⁄⁄bank.example⁄SECRET
        bank.example／SECRET？x=1
        ws://bank.example/SECRET
        wss://bank.example:443/SECRET
        ftp://ada:SECRET@bank.example:21/SECRET
        sftp://ada:SECRET@bank.example/x
        ssh://git@bank.example:acme/SECRET.git
        git@bank.example:acme/SECRET.git
        feed:https://bank.example/rss?key=SECRET
        feed://bank.example/SECRET
        jar:https://bank.example/x.jar!/SECRET
        wyciwyg://0/https://bank.example/SECRET
        filesystem:https://bank.example/temporary/SECRET
        view-source:https://bank.example/acct?iban=SECRET
        view-source:view-source:https://bank.example/SECRET
        view-source:bank.example/SECRET
        view-source://bank.example/SECRET
        blob:https://bank.example/SECRET
        url:https://bank.example/SECRET
        URL: https://bank.example/SECRET
        microsoft-edge:https://bank.example/SECRET
        //bank.example/x?y=SECRET
        ///bank.example/SECRET
        //ada:SECRET@bank.example/
        user:SECRET@bank.example/path
        ada@bank.example/SECRET
        bank.example/SECRET
        BANK.EXAMPLE/SECRET
        bank.example?SECRET
        bank.example#SECRET
        bank.example/#/SECRET
        bank.example:443/SECRET
        <https://bank.example/SECRET>
        (https://bank.example/SECRET)
        "https://bank.example/?q=SECRET"
        “https://bank.example/SECRET”
        [SECRET or not](https://bank.example/SECRET)
        Title - https://bank.example/SECRET?token=SECRET
        Title – bank.example/SECRET
        Title - bank.example/acct?iban=SECRET - Firefox
        Title - view-source:https://bank.example/SECRET
        chrome.exe --app=https://bank.example/SECRET
        C:\chrome.exe --app=https://bank.example/SECRET
        https//bank.example/SECRET
        https;//ada:SECRET@bank.example/SECRET
        ://bank.example/SECRET
        Title - //bank.example/SECRET
        https://bank.example%00SECRET/
        onenote:https://bank.example/SECRET
        bank.example./SECRET
        <a href="https://bank.example/SECRET">SECRET</a>
        https://bank.example/?next=view-source:file:///SECRET
    """,
    "http://localhost:3000": """
        localhost:3000/login?token=SECRET
        localhost:3000#SECRET
        http://user:SECRET@localhost:3000/
        Title | localhost:3000/login?token=SECRET | Chrome
    """,
    "http://192.168.0.7": """
        192.168.0.7/admin?pw=SECRET
        192.168.0.7?SECRET
        192.168.0.7:80#SECRET
        http://0xC0.0xA8.0.7/SECRET
        http://3232235527/SECRET
        Title 192.168.0.7/SECRET
    """,
    "http://[::1]:8080": """
        [::1]:8080/SECRET?y=SECRET
        [0:0:0:0:0:0:0:1]:8080/x#SECRET
        http://[::1%25SECRET]:8080/
        Title [::1]:8080/SECRET
    """,
    "http://intranet": """
        intranet/wiki?who=SECRET
        intranet/wiki#SECRET
        intranet?SECRET
        Title - intranet/wiki?who=SECRET - Chrome
    """,
    "https://xn--bcher-kva.example": """
        bücher.example/SECRET
        https://BÜCHER.example./SECRET
        https://b%C3%BCcher.example/SECRET
        xn--bcher-kva.example/SECRET
        https://bücher。example/SECRET
    """,
    "chrome-extension://abc": """
        chrome-extension://abc/page?SECRET
        moz-extension://abc/SECRET
        intent://abc/#Intent;scheme=x;S.x=SECRET;end
        web+foo://abc/SECRET
        hxxps://abc/SECRET
    """,
}
HOSTLESS = {
    "mailto:": "mailto:bob@SECRET?subject=SECRET; MAILTO:SECRET@x.example; mailto%3Abob%40SECRET; "
    "SECRET.bob@mail.example; Compose mailto:bob@SECRET - Mail",
    "data:": "data:text/html,SECRET; DATA:text/plain,SECRET; data: text/html,SECRET; Title - data:SECRET",
    "javascript:": "javascript:alert(SECRET); JavaScript:alert(SECRET); javascript: alert(SECRET); "
    "javascript：alert(SECRET); javascript://%0aalert(SECRET)",
    "tel:": "tel:+49SECRET; tel://+49SECRET",
    "sms:": "sms:+49?body=SECRET; sms://SECRET",
    "magnet:": "magnet:?xt=urn:btih:SECRET",
    "blob:": "blob:SECRET; blob:null/SECRET; blob://",
    "about:": "about:SECRET; about:#SECRET",
    "about:blank": "about:blank#SECRET; about:blank/SECRET; About:blank?SECRET",
    "about:reader": "about:reader?url=https%3A%2F%2Fbank.example%2FSECRET; about:reader?url=https://SECRET",
    "intent:": "intent:#Intent/S.x=SECRET/end",
    "web+foo:": "web+foo:bar?SECRET; web+foo:SECRET",
    "foo:": "foo:SECRET; Foo:bar?SECRET",
    "vnd.youtube:": "vnd.youtube:SECRET",
    "ms-word:": "ms-word:ofe|u|https://bank.example/SECRET",
    "spotify:": "spotify:track:SECRET; spotify://track/SECRET",
    "reader:": "reader://?url=https://bank.example/SECRET",
    "otpauth:": "otpauth://totp/Acme:ada?secret=SECRET",
    "com.apps.123:": "com.apps.123:/oauth2redirect?code=SECRET",
    "(local file)": r"file:///home/SECRET; FILE:///C:/SECRET; file:SECRET; file://server/SECRET; "
    r"file : ///SECRET; "
    r"jar:file:///home/x.zip!/SECRET; view-source:file:///SECRET; C:\x.html?token=SECRET; C:/x.html?SECRET; "
    r"\\server\share\SECRET.docx; \\cdn.example\x?y=SECRET; Title - file:///home/SECRET/x.pdf",
}  # fmt: skip
INVISIBLE = {
    "\u200bhttps://bank.example/SECRET": "bank.example",
    "\ufeffhttps://bank.example/SECRET": "bank.example",
    "\u202ehttps://bank.example/SECRET": "bank.example",
    "\u2066https://bank.example/SECRET\u2069": "bank.example",
    "ht\ttps://bank.example/SECRET": "bank.example",
    "ht\x01tps://bank.example/SECRET": "bank.example",
    "https\u200b://bank.example/SECRET": "bank.example",
    "https://bank.example\tSECRET": "bank.example",
    "https://bank.example\x01SECRET": "bank.example",
    "https://bank.example\r\nSECRET": "bank.example",
    "x\nhttps://bank.example/SECRET": "bank.example",
    "java\nscript:alert(SECRET)": "javascript:",
    "java\u00adscript:alert(SECRET)": "javascript:",
    "mail\u200dto:SECRET": "mailto:",
}
ADDRESSES = [
    *((x.strip(), page.split("://")[1]) for page, many in PAGES.items() for x in many.strip().split("\n")),
    *((x, kept) for kept, many in HOSTLESS.items() for x in many.split("; ")),
    *INVISIBLE.items(),
]
WITHOUT = ("https://", "https:///?SECRET", "http://[SECRET]/", "/login?token=SECRET", "#access_token=SECRET")
NAMES = r"""
    Firefox 115.0.2.1|Chapter 3 verse:12|10:30/11:00|Fix it · owner/repo#12 - GitHub|At 10:30/11:00|1. Intro
    com.android.chrome|org.mozilla.firefox|code.exe|Mail: Inbox|Visual Studio Code|node.js
    1Password 7|C#|F#|C:\Program Files\x.exe|C:/Program Files/x.exe
    \\?\C:\Program Files\x.exe|\\server\apps\x.exe|/usr/bin/firefox|Notes: todo|Re: hello?
    What?|What? (game)|AT&T|AC/DC|TCP/IP Monitor|100% Orange Juice|Civilization:6
    std::vector|Perl::Tidy|com.android.chrome:sandboxed_process0|com.example.app/.Main
    com.a.b/com.a.b.Main|1.2.3|v1.2.3.4 beta|HTTP: The Definitive Guide
    JavaScript: The Good Parts|Data: the quarter|12:30|12:30:45 Alarm|Score: 3:2|Q&A: 2
    Microsoft.WindowsCalculator_8wekyb3d8bbwe!App|Safari.app/Contents/MacOS
    /Applications/Safari.app/Contents/MacOS|ada: ~/src|root@db: /srv|~/bin/run.sh
    names.py - rlmemo - Visual Studio Code|env/sources/names.py - rlmemo|React@18
    python@3.11|[Draft] Mail|(1) WhatsApp|report.pdf|日本語アプリ|Ärger: mehr|🎮 Games|Notepad++
    and/or|a=b|bank.example
""".replace("\n", "|").split("|")


@pytest.mark.parametrize("kind", ["", "app", "page", "file"])
@pytest.mark.parametrize(("address", "kept"), ADDRESSES)
def test_an_address_is_reduced_whatever_its_kind_is_said_to_be(address: str, kept: str, kind: str) -> None:
    assert target_and_kind(address, kind) == (kept, "file" if kept == "(local file)" else "page")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [x.strip() for x in NAMES if x.strip()])
def test_a_name_stays_as_it_is(name: str, kind: str) -> None:
    if kind != "page":
        assert target_and_kind(name, kind) == (name, kind)
        assert target_and_kind(name) == (name, "app")
        assert shown(name, 200) == repr(name)


@pytest.mark.parametrize("address", WITHOUT)
def test_a_page_without_a_host_has_no_name(address: str) -> None:
    assert target_and_kind(address, "page") == ("", "page")
    assert kept_target(address, "page") == ("(no host)", "page")


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://a.example/b/c/?q=SECRET#SECRET", "a.example/b/c"),
        ("https://ada:SECRET@a.example:443/b;jsessionid=SECRET/c", "a.example/b/c"),
        ("https://a.example/b%3Ftoken=SECRET", "a.example/b"),
        ("localhost:3000/login?token=SECRET", "localhost:3000/login"),
        ("https://a.example/b SECRET", "a.example/b"),
        ("https://a.example/b/https://bank.example/SECRET", "a.example/b"),
        ("view-source:https://a.example/b?SECRET", "a.example/b"),
        ("mailto:SECRET/x", "mailto:"),
        ("file:///SECRET/x", "(local file)"),
    ],
)
def test_with_the_path_no_more_than_host_and_path_is_kept(address: str, kept: str) -> None:
    assert target_and_kind(address, "app", "path")[0] == kept


def test_a_mail_address_in_a_title_leaves_its_host() -> None:
    assert target_and_kind("Inbox - SECRET@mail.example - Mail") == ("Inbox - @mail.example - Mail", "app")
    assert shown("Inbox - SECRET@mail.example") == "'Inbox - @mail.example'"


PIECES = st.one_of(
    st.sampled_from([x for x, _ in ADDRESSES] + [x.strip() for x in NAMES]),
    st.sampled_from(
        ["https", "http:", "//", ":", "/", "\\", "?", "#", "@", "=", "&", "%", "%3a", "view-source:", "data:"]
    ),
    st.sampled_from(["foo:", "a.example", "1.2", "[::1]", ":80", "…", "ü"]),
    st.sampled_from([" ", "\n", "\u200b", "-", "~", "(", ";"]),
    st.text(max_size=4),
    st.text(min_size=100, max_size=160),
)


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(PIECES, max_size=6).map("".join),
    st.sampled_from(["", *KINDS]),
    st.sampled_from(["host", "path"]),
)
def test_what_is_kept_is_a_name_and_stays_what_it_is(text: str, kind: str, page: str) -> None:
    target, found = target_and_kind(text, kind, page)
    assert found in KINDS
    assert len(target) <= MAX_NAME
    assert not any(c in target for c in "\n\t\x1b\u202e\u200b")
    if target:
        assert kept_target(target, found) == (target, found)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a.",
        "a@",
        "?a",
        "&a",
        "a:",
        "a/",
        "%3a",
        "ü",
        "a b ",
        "a-",
        "(",
        "a;",
        "&amp;",
        "view-source:",
        "x b.c/d?",
        "[",
        "[::1",
    ],
)
def test_a_long_text_is_judged_in_no_time(text: str) -> None:
    began = time.perf_counter()
    for kind in ("", "page"):
        target_and_kind(text * (200_000 // len(text)), kind)
    assert time.perf_counter() - began < 5.0


def files_of(db: Path) -> bytes:
    """What the files of a database hold, read by another process: this one may hold them (`raw_opens`)."""
    found = sorted(str(path) for path in db.parent.glob(db.name + "*"))
    return subprocess.run(["cat", *found], capture_output=True, check=True).stdout


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize("kind", [None, "", *KINDS])
def test_nothing_private_is_stored_shown_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    private = [x for x, _ in ADDRESSES if "\n" not in x] + list(WITHOUT)
    header = "user,t,target" + ("" if kind is None else ",kind")
    rows = [
        f"ada,{T + 60 * i},{quoted(x)}" + ("" if kind is None else f",{kind}") for i, x in enumerate(private)
    ]
    rows += [f"ada,{quoted(x)},Mail" + ("" if kind is None else f",{kind}") for x in private[:40]]
    Path("usage.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    assert timelines.main(["import", "usage.csv"]) == 0
    assert b"secret" not in files_of(tmp_path / "rlmemo.db").lower()
    timelines.main(["import", "usage.csv", "--json", "--name", "again"])
    timelines.main(["show", "rlmemo.db", "--source", "again", "--top", "500", "--plot", "none"])
    timelines.main(["show", "usage.csv", "--top", "500", "--plot", "none"])
    timeline = load_timelines("usage.csv").timelines[0]
    prompt = state_text([(e.t, e.target) for e in timeline], "UTC")
    told = capsys.readouterr()
    assert "bank.example" in told.out
    assert "secret" not in (told.out + told.err + prompt).lower()


@pytest.mark.parametrize(
    "text",
    [
        "ada,1,https://bank.example/?t=SECRET\n",
        "user,t,target\nada,https://bank.example/?t=SECRET,Mail\n",
        "user,t,target,kind\nada,1772438400,Mail,https://bank.example/?t=SECRET\n",
        'user,t,target\nada,1772438400,"https://bank.example/?t=SECRET\nada,1772438460,Mail\n',
        "user,t,target\nada,1772438400,https:///?t=SECRET\n",
    ],
)
def test_no_refusal_tells_more_of_an_address(tmp_path: Path, text: str) -> None:
    (tmp_path / "usage.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        load_timelines(str(tmp_path / "usage.csv"))
    assert "secret" not in str(caught.value).lower()


@pytest.mark.parametrize(
    "text",
    [
        "user,t,target,https://bank.example/?t=SECRET\nada,1772438400,Mail,1\n",
        "user,t,target,duration\nada,1772438400,Mail,https://bank.example/?t=SECRET\n",
        "1772438400123,https://bank.example/?t=SECRET,1\n",
        "1772438400123,Mail,1\nhttps://bank.example/?t=SECRET,Mail,1\n1772438400123,Mail,http://a/?SECRET\n",
        (
            "user_id\tsession_id\ttimestamp\tapp_name\tevent_type\n"
            "1\t1\t2018-01-01 08:00:00\thttps://bank.example/?t=SECRET\tOpened\n"
            "1\t1\t2018-01-01 08:00:00\tMail\thttps://bank.example/?t=SECRET\n"
        ),
    ],
)
def test_no_report_tells_more_of_an_address(tmp_path: Path, text: str) -> None:
    (tmp_path / "usage.csv").write_text(text)
    loaded = load_timelines(str(tmp_path / "usage.csv"))
    told = str(loaded.report.lines()) + str([x.names for x in loaded.timelines])
    assert "secret" not in told.lower()


@pytest.mark.parametrize("name", ["15a_schemes_nokind.csv", "15c_schemes_app.csv"])
def test_the_cases_with_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    timelines.main(["import", str(case("timelines/" + name))])
    stored = files_of(tmp_path / "rlmemo.db").lower()
    told = capsys.readouterr()
    for private in (b"secret", b"de00", b"tax.pdf", b"49123456", b"privacy", b"bob"):
        assert private not in stored
        assert private.decode() not in (told.out + told.err).lower()


def test_one_site_has_one_name(tmp_path: Path) -> None:
    names = load_timelines(str(case("timelines/14_hosts.csv")), collapsed=False).timelines[0].names
    assert names == (
        "news.example", "www.news.example", "news.example:8443", "xn--mnchen-3ya.example", "[::1]:5600",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        ("https://a.example:443", "a.example"),
        ("http://a.example:80/", "a.example"),
        ("a.example:443/x", "a.example"),
        ("a.example:80/x", "a.example"),
        ("wss://a.example:443/", "a.example"),
        ("ftp://a.example:21/", "a.example"),
        ("https://a.example:0443/", "a.example"),
        ("https://a.example:/", "a.example"),
        ("https://a.example:8443/", "a.example:8443"),
        ("https://A.Example../", "a.example"),
        ("https://%61.ex%61mple/", "a.example"),
        ("https://ａ.ｅxample/", "a.example"),
        ("https://WWW.a.example/", "www.a.example"),
        ("https://faß.example/", "xn--fa-hia.example"),
        ("https://XN--FA-HIA.example/", "xn--fa-hia.example"),
        ("https://हिन्दी.example/", "xn--j2bd4cyah0f.example"),
        ("https://раураl.example/", "xn--l-7sba6dbr.example"),
        ("https://i❤.example/", "xn--i-7iq.example"),
        ("https://a_b.example/", "a_b.example"),
        ("http://127.1/", "127.0.0.1"),
        ("http://0x7f.0.0.1/", "127.0.0.1"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://[2001:DB8:0:0::1]:443/", "[2001:db8::1]"),
    ],
)
def test_a_host_has_one_name_however_it_is_written(host: str, kept: str) -> None:
    assert target_and_kind(host, "page") == (kept, "page")


def test_recorded_addresses_are_reduced_and_not_said(tmp_path: Path) -> None:
    with open_store(tmp_path / "memo.db") as s:
        s.add_events("live", "me", [Event(T + i, x) for i, (x, _) in enumerate(ADDRESSES)], tz="UTC")
        with pytest.raises(InputError, match="event 1 cannot be stored: target 'https:…'") as caught:
            s.add_events("live", "me", [Event(T, "https:///?SECRET")], tz="UTC")
        assert b"secret" not in files_of(tmp_path / "memo.db").lower()
    assert "SECRET" not in str(caught.value)


def test_a_user_and_a_device_may_be_called_by_an_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = "https://u:SECRET@bank.example/SECRET?t=SECRET", "bank.example/SECRET2#SECRET"
    rows = [(one, other), (other, one), ("ada@example.com", "SM-G960F/DS")]
    text = "".join(f"{user},{T},Mail,{device}\n" for user, device in rows)
    (tmp_path / "mine.csv").write_text(f"user,t,target,device\n{text}")
    timelines.main(["import", str(tmp_path / "mine.csv"), "--db", str(tmp_path / "memo.db")])
    assert "SECRET" not in capsys.readouterr().out
    assert not any(b"SECRET" in x.read_bytes() for x in tmp_path.glob("memo.db*"))
    found = load_timelines(str(tmp_path / "memo.db")).timelines
    assert len({x.user for x in found}) == len({x.devices for x in found}) == 3
    assert ("ada@example.com", ("SM-G960F/DS",)) in [(x.user, x.devices) for x in found]


@given(st.text(max_size=40) | st.sampled_from([x for many in PAGES.values() for x in many.split()]))
def test_a_label_stays_what_it_is(text: str) -> None:
    assert label(label(text)) == label(text)


def test_what_is_said_to_be_a_page_and_has_no_host_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"user,t,target,kind\nada,{T},\\share\\SECRET,page\nada,{T},Mail,app\n")
    report = load_timelines(str(path)).report
    assert report.dropped["target has no host"] == 1
    assert "SECRET" not in str(report.as_dict())


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Path]:
    """Makes a database as an older version would have, with these apps opened and predicted."""

    def make(targets: list[str]) -> Path:
        db = tmp_path / "old.db"
        with monkeypatch.context() as patched:
            patched.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:3])
            open_store(db).close()
        with sqlite3.connect(db) as connection:
            connection.execute("INSERT INTO timelines VALUES (1, 's', 'ada', 'UTC', 1, 0, 0)")
            for i, target in enumerate(targets):
                connection.execute(
                    "INSERT INTO events (timeline_id, t, target, kind) VALUES (1, ?, ?, 'app')",
                    [float(T + i), target],
                )
                probabilities = {target: 0.25, "Mail": 0.5}
                plan = [{"delay_s": 0.0, "target": target}]
                steps = [[float(T + i), target]]
                connection.execute(
                    "INSERT INTO predictions VALUES "
                    "(?, ?, 1, 'ada', ?, NULL, 'mfu', '1', ?, ?, ?, 0.1, 0.5, ?, 1, 1)",
                    [
                        i + 1, str(i), float(T + i), state_text([(T + i, target)], "UTC"), json.dumps(plan),
                        json.dumps(probabilities), json.dumps({"hits": 1, "next_target": target}),
                    ],
                )  # fmt: skip
                connection.execute(
                    "INSERT INTO moments (prediction_id, source, tz, synthetic, part, steps, teaches) "
                    "VALUES (?, 's', 'UTC', 0, 'test', ?, 0.5)",
                    [i + 1, json.dumps(steps)],
                )
        connection.close()
        return db

    return make


def test_what_an_older_version_stored_is_read_without_what_is_private(
    old: Callable[[list[str]], Path],
) -> None:
    db = old([x for x, _ in ADDRESSES])
    assert b"SECRET" in db.read_bytes()
    timeline = load_timelines(str(db), collapsed=False).timelines[0]
    assert [e.target for e in timeline] == [kept for _, kept in ADDRESSES]


def test_opening_what_an_older_version_stored_takes_out_what_is_private(
    old: Callable[[list[str]], Path],
) -> None:
    db = old([*(x for x, _ in ADDRESSES), *WITHOUT, "Mail", "Ärger: mehr"])
    with open_store(db) as s:
        found = s.predictions()
        assert [p.plan[0].target for p in found[:10]] == [kept for _, kept in ADDRESSES[:10]]
        assert found[0].probabilities == {"bank.example": 0.25, "Mail": 0.5}
        assert found[0].outcome == {"hits": 1, "next_target": "bank.example"}
        assert found[0].state.endswith('0 s ago "bank.example"')
        assert found[-2].plan == (Prewarm("Mail"),)
        assert found[-1].state.endswith('0 s ago "Ärger: mehr"')
    assert b"secret" not in files_of(db).lower()


def test_targets_that_become_one_share_their_probability(old: Callable[[list[str]], Path]) -> None:
    db = old(["https://a.example/?SECRET"])
    with sqlite3.connect(db) as connection:
        two = json.dumps({"a.example:443/SECRET": 0.5, "a.example/?SECRET": 0.25})
        connection.execute("UPDATE predictions SET probabilities = ?", [two])
    connection.close()
    with open_store(db) as s:
        prediction: Prediction = s.predictions()[0]
        assert prediction.probabilities == {"a.example": 0.75}
