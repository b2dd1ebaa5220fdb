"""Text that is not UTF-8: decoded as the job says, else an error that names the field and the row.

OGR hands over the bytes of a file that does not declare what they are (a Shapefile without .cpg, a CSV) as if they were UTF-8.
"""

import codecs
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lib.errors import DataError

_SHOWN_BYTES = 40
# Of the other formats OGR has decoded what is declared: only what is no UTF-8 for all that is decoded here.
_UNDECLARED = ("CSV",)


def ogr_name(encoding: str) -> str:
    """A codec's name as OGR and iconv know it: `latin-1` is ISO-8859-1."""
    name = codecs.lookup(encoding).name
    return name.replace("iso8859", "iso-8859").upper()


@dataclass(slots=True)
class Texts:
    """The text columns of one reading, batch after batch.

    Attributes:
        label: the source's base name, for messages.
        driver: OGR's short name.
        encoding: the codec of text that is not declared; None where the job says none.
        row: rows read before the next batch.
        is_numbered: those are all of the source's, so that a row's number there is known.
        skips: whether rows with other bytes are only noted.
        bad: those of the latest batch, by their place in it, with what is wrong; their texts are null.
    """

    label: str
    driver: str
    encoding: str | None
    row: int = 0
    is_numbered: bool = True
    skips: bool = False
    bad: dict[int, str] = field(default_factory=dict)

    def checked(self, columns: list[Any], names: list[str]) -> list[Any]:
        """A batch's columns with all text in UTF-8.

        Raises:
            DataError: some is not, and the job does not say what it is, or it is not that either.
        """
        self.bad = {}
        found = [self._checked(column, name) for column, name in zip(columns, names, strict=True)]
        self.row += len(columns[0]) if columns else 0
        return found

    def _checked(self, column: Any, name: str) -> Any:
        if isinstance(column, pa.ExtensionArray):  # JSON
            return column.type.wrap_array(self._checked(column.storage, name))
        kind = column.type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        is_list = pa.types.is_list(kind) and pa.types.is_string(kind.value_type)
        if not (is_text or is_list):
            return column
        if is_text and self.encoding and self.driver in _UNDECLARED:
            return self._decoded(column, name, always=True)
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            if is_text and self.encoding:
                return self._decoded(column, name, always=False)
            return self._mended(column, name) if is_text else self._mended_lists(column, name)
        return column

    def _decoded(self, column: Any, name: str, *, always: bool) -> Any:
        assert self.encoding is not None  # noqa: S101 - for mypy: asked before
        values = []
        for row, value in enumerate(_bytes_of(column)):
            if value is not None and (always or not _is_utf8(value)):
                try:
                    value = value.decode(self.encoding).encode()  # noqa: PLW2901 - the value itself, decoded
                except UnicodeError:
                    self._note(name, row, value, f"no {self.encoding}")
                    value = None  # noqa: PLW2901
            values.append(value)
        return _as_text(values, column.type)

    def _mended(self, column: Any, name: str) -> Any:
        values = _bytes_of(column)
        for row, value in enumerate(values):
            if value is not None and not _is_utf8(value):
                self._note(name, row, value, "no UTF-8")
                values[row] = None
        if not self.bad:
            raise DataError(
                f"{self.label}: field {name!r} is damaged between rows {self.row + 1} and {self.row + len(column)}"
            )
        return _as_text(values, column.type)

    def _mended_lists(self, column: Any, name: str) -> Any:
        values: list[Any] = []
        for row in range(len(column)):
            texts = _bytes_of(column[row].values) if column[row].is_valid else None
            wrong = next((each for each in texts or () if each is not None and not _is_utf8(each)), None)
            if wrong is not None:
                self._note(name, row, wrong, "no UTF-8")
                texts = None
            values.append(texts and [None if each is None else each.decode() for each in texts])
        return pa.array(values, column.type)

    def _note(self, name: str, row: int, value: bytes, what: str) -> None:
        """Note a row whose text is something else.

        Raises:
            DataError: it is not to be skipped.
        """
        start = repr(value[:_SHOWN_BYTES])[1:]
        if self.skips:
            self.bad.setdefault(row, f"field {name!r} is {what}: {start}")
            return
        number = self.row + row + 1 if self.is_numbered else None
        raise DataError(
            f"{self.label}: field {name!r} of {'a row' if number is None else f'row {number}'} is {what}: {start}",
            hint="say how its text is encoded with --encoding, such as ISO-8859-1 or CP1252; or --skip-bad leaves such rows out",
            field=name,
            row=number,
        )


def _bytes_of(column: Any) -> list[bytes | None]:
    binary = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    values: list[bytes | None] = column.view(binary).to_pylist()
    return values


def _as_text(values: list[bytes | None], kind: Any) -> Any:
    return pa.array(values, pa.binary()).view(pa.string()).cast(kind)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
