"""Reading a delimited text file that a person made: plain or gzipped, and never with a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from env.errors import InputError
from env.sources import dumpsys, json_records

MAGIC_SQLITE = b"SQLite format 3\x00"
_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook or another Office document; save the sheet as CSV",
    b"bplist0": "an Apple property list; give a CSV with columns user,t,target",
    b"\x1f\x8b": "compressed twice; unpack it with gzip -d",
    MAGIC_SQLITE: "a compressed database; unpack it with gzip -d",
    b"PAR1": "a compressed Parquet file; unpack it with gzip -d",
    b"BZh": "compressed with bzip2; unpack it, or compress it with gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or compress it with gzip",
    b"%PDF": "a PDF document; give a CSV with columns user,t,target",
    b"\x89PNG": "a picture; give a CSV with columns user,t,target",
}
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
MAX_FIELD = 1 << 24  # characters: `data:` addresses take hundreds of thousands, an unclosed quote takes all
_C1 = bytes(range(0x80, 0xA0))  # control characters in Latin-1, letters and dashes in Windows' CP1252
_WANTED = "give a CSV with columns user,t,target, or one whose columns --columns names"
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_NOT_CP1252 = b"\x81\x8d\x8f\x90\x9d"
_SEP = re.compile(r"sep=([\t,;|])")  # Excel's first line, which names the delimiter
_QUOTED = re.compile(r'"[^"]*(?:"|$)')
_NUMBER_OR_TIME = re.compile(r"\d+(?:[.,]\d*)?|\d{4}-?\d\d-?\d\d[T ].*", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class TableFile:
    """A text file that was looked at: where it lies, whether it is gzipped, and its delimiter.

    header  the fields of its first record that is not blank, stripped
    rows    those of JSON and the like, which hold records and no lines
    notes   what its reader should know
    form    what it is, where it is not JSON and holds no lines
    whole   what has to be imported for it, where that is more than the file
    """

    path: Path
    gzipped: bool
    delimiter: str
    header: list[str]
    rows: list[list[str]] | None = None
    notes: tuple[str, ...] = ()
    form: str = ""
    whole: Path | None = None


def first_bytes(path: Path, n: int = 4096) -> bytes:
    """The first `n` bytes of a regular file. Raises InputError for what is no readable regular file."""
    if path.is_dir():
        raise _folder(path)
    if not path.is_file():
        raise InputError(f"{path}: is no regular file; name a CSV with columns user,t,target, or a database")
    try:
        with path.open("rb") as stream:
            return stream.read(n)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def look(path: Path) -> TableFile:
    """Look at a file's first line.

    Raises InputError for an empty file, one that is not text in UTF-8, or a broken gzip.
    """
    head = first_bytes(path)
    if not head:
        raise InputError(f"{path}: is empty; give a CSV with columns user,t,target")
    gzipped = head[:2] == b"\x1f\x8b"
    if gzipped:
        try:
            with gzip.open(path, "rb") as stream:
                head = stream.read(4096)
        except (EOFError, OSError, zlib.error) as error:
            raise _broken_gzip(path, error) from error
        if not head:
            raise InputError(f"{path}: is empty once unpacked; give a CSV with columns user,t,target")
    if path.suffix.lower() in (".rda", ".rds", ".rdata"):
        raise InputError(
            f"{path}: is an R data file; write it as CSV in R, or say webtrackr for that recording"
        )
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is {what}")
    if head[:64].count(0) > 48:
        raise InputError(f"{path}: is no text, but NUL bytes; {_WANTED}")
    if (wide := _wide(head)) is not None:
        raise InputError(
            f"{path}: is {wide}, and UTF-8 is wanted; convert it with iconv -f {wide} -t UTF-8 OLD > NEW"
        )
    first_line = next((line for line in _text(path, gzipped) if line.strip()), "")
    if not first_line:
        raise InputError(f"{path}: holds nothing but blank lines; give a CSV with columns user,t,target")
    if (no_table := _no_table(first_line)) is not None:
        raise InputError(f"{path}: is {no_table}")
    records = json_records if first_line.lstrip().startswith(("{", "[")) else None
    if dumpsys.recognises(head.decode("utf-8", "replace")):
        records = dumpsys
    if records is not None:
        found = records.table_of("".join(_text(path, gzipped)))
        if isinstance(found, str):
            raise InputError(
                f"{path}: is {found}" + ("" if "damaged" in found else f", and a table is wanted; {_WANTED}")
            )
        header, rows, notes = found
        return TableFile(path, gzipped, "", [x.strip() for x in header], rows, notes)
    bare = _QUOTED.sub("", first_line)
    counts = {d: bare.count(d) for d in ("\t", ",", ";", "|")}
    said = _SEP.fullmatch(first_line.strip("\r\n "))
    delimiter = said[1] if said else max(counts, key=counts.__getitem__)
    with closing(_records(path, gzipped, delimiter)) as lines:
        _, header = next(lines, (0, []))
    return TableFile(path=path, gzipped=gzipped, delimiter=delimiter, header=[x.strip() for x in header])


def read_rows(table: TableFile, *, skip_header: bool = True) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of every record that is not blank, header left out if asked.

    Raises InputError, with the line, where the text breaks off or cannot be decoded or parsed, and where
    a quotation mark swallows what follows.
    """
    if table.rows is not None:
        yield from enumerate(table.rows, start=1)
        return
    lines = _records(table.path, table.gzipped, table.delimiter)
    if skip_header:
        next(lines, None)
    yield from lines


def _records(path: Path, gzipped: bool, delimiter: str) -> Generator[tuple[int, list[str]]]:
    """(number of its first line, fields) of every record that is not blank.

    A space after the delimiter is skipped, so that a quotation mark after it is one. A newline inside quotes
    is part of the field, if the quotes are in order and no row lies between them.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    lines: list[str] = []  # those of the record that is being read
    last: list[str] = []

    def noted() -> Iterator[str]:
        for line in _text(path, gzipped):
            lines.append(line)
            yield line

    reader = csv.reader(noted(), delimiter=delimiter, skipinitialspace=True)
    before = width = 0
    try:
        for fields in reader:
            if len(lines) > 1 or (fields and fields[-1].endswith(("\n", "\r"))):
                _check_quotes(path, before, lines, delimiter, width)
            last = lines.copy()
            lines.clear()
            line, before = before + 1, reader.line_num
            if not fields or (len(fields) == 1 and not fields[0].strip()):
                continue
            if width == 0 and _SEP.fullmatch(last[0].strip("\r\n ")):
                continue
            width = width or len(fields)
            yield line, fields
        if last and not last[-1].endswith(("\n", "\r")) and last[-1].count('"') % 2:
            _check_quotes(path, before - len(last), last, delimiter, width)
    except csv.Error as error:
        if len(lines) > 1:
            raise _unclosed(path, before + 1) from error
        raise InputError(
            f"{path}, line {before + 1}: cannot be parsed as delimited text ({error}); "
            "look for an unclosed quotation mark"
        ) from error


def _check_quotes(path: Path, before: int, lines: list[str], delimiter: str, width: int) -> None:
    """Raise InputError where a record of several lines is one by mistake."""
    try:
        for _ in csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True):
            pass
    except csv.Error as error:
        raise _unclosed(path, before + 1) from error
    # a line within that has as many fields, and a number or a time where the first line has one, is a row
    own, *inner = (next(csv.reader([x], delimiter=delimiter, skipinitialspace=True), []) for x in lines)
    told = [bool(_NUMBER_OR_TIME.fullmatch(x.strip())) for x in own]
    for fields in inner:
        if len(fields) == width > 1 and any(
            known and _NUMBER_OR_TIME.fullmatch(x.strip()) for known, x in zip(told, fields, strict=False)
        ):
            raise _unclosed(path, before + 1)


def _unclosed(path: Path, line: int) -> InputError:
    # the line is not quoted: it may hold an address, and what is in it is nobody's business
    return InputError(
        f"{path}, line {line}: a quotation mark opened here is never closed, or only after other rows; "
        "close it, or write it twice if a character is meant"
    )


def _no_table(line: str) -> str | None:
    """What a text is that is no table, and what to do with it; None for what may be one."""
    start = line.lstrip()
    if start.startswith("<"):
        return f"XML or HTML, and a table is wanted; {_WANTED} (Google Takeout gives JSON where asked to)"
    return None


def _wide(head: bytes) -> str | None:
    """The encoding with two or four bytes a character in which a text begins so, as iconv calls it."""
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    # an ASCII text has its noughts at every other byte
    even, odd = head[:64:2].count(0), head[1:64:2].count(0)
    if max(even, odd) <= 8 or 4 * min(even, odd) > max(even, odd):
        return None
    return "UTF-16BE" if even > odd else "UTF-16LE"


def _text(path: Path, gzipped: bool) -> Iterator[str]:
    """The file's lines as text; every way in which reading can fail becomes an InputError."""
    try:
        with (
            _binary(path, gzipped) as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", errors="strict", newline="") as text,  # type: ignore[arg-type]
        ):
            yield from text
    except UnicodeDecodeError as error:
        line, byte, encoding = _undecodable(path, gzipped)
        raise InputError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8, which is wanted; {encoding}"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken_gzip(path, error) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _binary(path: Path, gzipped: bool) -> IO[bytes]:
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def _undecodable(path: Path, gzipped: bool) -> tuple[int, int, str]:
    """The first line that is not UTF-8, the byte at fault, and what to do.

    All of the file is looked at: the bytes that tell CP1252 from Latin-1 need not be in its first such line.
    """
    first, found = (1, 0), b""
    alone = together = 0
    with _binary(path, gzipped) as raw:
        for number, line in enumerate(raw, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                if not found:
                    first = number, line[error.start]
                found += bytes(set(line) - set(found))
                for run in _BEYOND_ASCII.findall(line):
                    alone, together = alone + (len(run) < 3), together + (len(run) >= 3)
    if together > alone:  # words in another script, or in two bytes a character: Latin's letters stand alone
        return *first, "save it as UTF-8 in the program that made it, or iconv -f ENCODING -t UTF-8 OLD > NEW"
    named = "LATIN1" if not set(found) & set(_C1) else "" if set(found) & set(_NOT_CP1252) else "CP1252"
    if not named:
        return *first, "save it as UTF-8 in the program that made it"
    spelled = {"LATIN1": "Latin-1", "CP1252": "CP1252 (Windows)"}[named]
    return *first, f"if the file is {spelled}, convert it with iconv -f {named} -t UTF-8 OLD > NEW"


def _broken_gzip(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: the gzip archive is truncated or damaged ({error}); fetch or make it anew "
        f"(gzip -t {path.name} tells)"
    )


def _folder(folder: Path) -> InputError:
    """What is said of a folder that is no recording."""
    try:
        names = sorted(
            x.name for x in folder.iterdir() if x.suffix in (".csv", ".tsv", ".db", ".gz", ".sqlite")
        )
    except OSError as error:
        return InputError(f"{folder}: cannot be read ({error.strerror})")
    if names:
        return InputError(f"{folder}: is a directory; name a file in it, such as {names[0]}")
    return InputError(
        f"{folder}: is a directory that holds no .parquet file (subfolders are not read); name a file, or a "
        "folder of Parquet files"
    )
