"""Text that is not UTF-8: decoded as the job says, else an error that names the field and the row.

OGR hands over the bytes of a file that does not declare what they are (a Shapefile without .cpg, a CSV) as if they were UTF-8.
"""

import codecs
from dataclasses import dataclass
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
    """

    label: str
    driver: str
    encoding: str | None
    row: int = 0
    is_numbered: bool = True

    def checked(self, columns: list[Any], names: list[str]) -> list[Any]:
        """A batch's columns with all text in UTF-8.

        Raises:
            DataError: some is not, and the job does not say what it is, or it is not that either.
        """
        found = [self._checked(column, name) for column, name in zip(columns, names, strict=True)]
        self.row += len(columns[0]) if columns else 0
        return found

    def _checked(self, column: Any, name: str) -> Any:
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
            raise self._refused(column, name) from None
        return column

    def _decoded(self, column: Any, name: str, *, always: bool) -> Any:
        assert self.encoding is not None  # noqa: S101 - for mypy: asked before
        values = []
        for row, value in enumerate(_bytes_of(column)):
            if value is not None and (always or not _is_utf8(value)):
                try:
                    value = value.decode(self.encoding).encode()  # noqa: PLW2901 - the value itself, decoded
                except UnicodeError:
                    raise self._no_text(name, row, value, f"no {self.encoding}") from None
            values.append(value)
        return pa.array(values, pa.binary()).view(pa.string()).cast(column.type)

    def _refused(self, column: Any, name: str) -> DataError:
        if pa.types.is_list(column.type):
            return DataError(f"{self.label}: a text in the lists of field {name!r} is no UTF-8")
        for row, value in enumerate(_bytes_of(column)):
            if value is not None and not _is_utf8(value):
                return self._no_text(name, row, value, "no UTF-8")
        return DataError(
            f"{self.label}: field {name!r} is damaged between rows {self.row + 1} and {self.row + len(column)}"
        )

    def _no_text(self, name: str, row: int, value: bytes, what: str) -> DataError:
        start = repr(value[:_SHOWN_BYTES])[1:]
        number = self.row + row + 1 if self.is_numbered else None
        return DataError(
            f"{self.label}: field {name!r} of {'a row' if number is None else f'row {number}'} is {what}: {start}",
            hint="say how its text is encoded with --encoding, such as ISO-8859-1 or CP1252",
            field=name,
            row=number,
        )


def _bytes_of(column: Any) -> list[bytes | None]:
    binary = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    values: list[bytes | None] = column.view(binary).to_pylist()
    return values


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
