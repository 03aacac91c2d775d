"""Reading a delimited text file that a person made: plain or gzipped, and never with a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from env.errors import InputError
from env.sources.names import shown

MAGIC_SQLITE = b"SQLite format 3\x00"
_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"PAR1": "a Parquet file; save it as CSV",
    b"BZh": "compressed with bzip2; unpack it, or compress it with gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or compress it with gzip",
    b"%PDF": "a PDF document; give a CSV with columns user,t,target",
    b"\x89PNG": "a picture; give a CSV with columns user,t,target",
}


@dataclass(frozen=True)
class TableFile:
    """A text file that was looked at: where it lies, whether it is gzipped, and its delimiter.

    header  the fields of its first line that is not blank, stripped
    """

    path: Path
    gzipped: bool
    delimiter: str
    header: list[str]


def first_bytes(path: Path, n: int = 4096) -> bytes:
    """The first `n` bytes of a regular file. Raises InputError for what is no readable regular file."""
    if path.is_dir():
        raise InputError(f"{path}: is a directory; name a file in it{_some_files(path)}")
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
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[:64].count(0) > 8:
        raise InputError(
            f"{path}: is UTF-16, and UTF-8 is wanted; convert it with iconv -f UTF-16 -t UTF-8 OLD > NEW"
        )
    header_line = ""
    for line in _text(path, gzipped):
        if line.strip():
            header_line = line
            break
    if not header_line:
        raise InputError(f"{path}: holds nothing but blank lines; give a CSV with columns user,t,target")
    counts = {d: header_line.count(d) for d in ("\t", ",", ";")}
    delimiter = max(counts, key=counts.__getitem__)
    header = [x.strip() for x in next(csv.reader([header_line[:10_000]], delimiter=delimiter))]
    return TableFile(path=path, gzipped=gzipped, delimiter=delimiter, header=header)


def read_rows(table: TableFile, *, skip_header: bool = True) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every line that is not blank, header left out if asked.

    Raises InputError, with the line, where the text breaks off or cannot be decoded or parsed.
    """
    path = table.path
    reader = csv.reader(_text(path, table.gzipped), delimiter=table.delimiter)
    before = 0
    try:
        for fields in reader:
            line = reader.line_num
            if line - before > 1 and len(fields) > 0:
                raise InputError(
                    f"{path}, line {before + 1}: a quotation mark opened here is closed on another line "
                    f"({_short(' '.join(fields))}); close it, or write it twice if a character is meant"
                )
            before = line
            if not fields or (len(fields) == 1 and not fields[0].strip()):
                continue
            if skip_header:
                skip_header = False
                continue
            yield line, fields
    except csv.Error as error:
        raise InputError(
            f"{path}, line {before + 1}: cannot be parsed as delimited text ({error}); "
            "look for an unclosed quotation mark"
        ) from error


def _text(path: Path, gzipped: bool) -> Iterator[str]:
    """The file's lines as text; every way in which reading can fail becomes an InputError."""
    try:
        with _binary(path, gzipped) as raw:
            yield from io.TextIOWrapper(raw, encoding="utf-8-sig", errors="strict", newline="")  # type: ignore[arg-type]
    except UnicodeDecodeError as error:
        line, byte = _undecodable(path, gzipped)
        raise InputError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8, which is wanted; if the file is Latin-1, "
            "convert it with iconv -f LATIN1 -t UTF-8 OLD > NEW"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken_gzip(path, error) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _binary(path: Path, gzipped: bool) -> IO[bytes]:
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def _undecodable(path: Path, gzipped: bool) -> tuple[int, int]:
    """The first line that is not UTF-8, and the byte at fault."""
    with _binary(path, gzipped) as raw:
        for number, line in enumerate(raw, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return 1, 0


def _broken_gzip(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: the gzip archive is truncated or damaged ({error}); fetch or make it anew "
        f"(gzip -t {path.name} tells)"
    )


def _some_files(folder: Path) -> str:
    try:
        names = sorted(
            x.name for x in folder.iterdir() if x.suffix in (".csv", ".tsv", ".db", ".gz", ".sqlite")
        )
    except OSError:
        return ""
    return f", such as {names[0]}" if names else ""


def _short(text: str, limit: int = 60) -> str:
    return shown(text, limit)
