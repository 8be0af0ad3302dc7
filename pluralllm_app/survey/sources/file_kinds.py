"""Files that are of another kind than their names say, by how they begin."""

import re

WORKBOOK = b"PK\x03\x04"
KINDS = {  # how a file begins -> what it is, and what to do
    re.escape(
        WORKBOOK
    ): "an Excel workbook or another zip archive: name it .xlsx or save the table as CSV",
    rb"\xd0\xcf\x11\xe0": "a workbook of an older Excel (.xls): save the table as CSV",
    rb"%PDF": "a PDF document: save the table as CSV",
    rb"BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!": (
        "compressed in another way than gzip: unpack it first"
    ),
    rb"\x1f\x8b": "compressed by gzip twice: unpack it first",
    rb"\$FL[23]|<stata_dta>": "a data set of SPSS or Stata: name it .sav or .dta",
    rb"SQLite format": "a data base of SQLite: save the table as CSV",
    rb"(?i)\s*<(!doctype|html|\?xml|table)": "a web page or in XML: save the table as CSV",
}
START = 16  # bytes of a file to know it by
PARQUET = b"PAR1"


def refuse_other_kinds(start: bytes, ending: str) -> None:
    """Raise ValueError if a file that begins with `start` is of another kind than its ending's."""
    if ending == ".xlsx" and start.startswith(WORKBOOK):
        return
    for pattern, what in KINDS.items():
        if re.match(pattern, start):
            raise ValueError(f"it is {what}")
    if ending != ".parquet" and start.startswith(PARQUET):
        raise ValueError("it is a Parquet file: give its name the ending .parquet")
    if ending == ".parquet" and start and not start.startswith(PARQUET):
        raise ValueError("it is no Parquet file: give its name the ending of what it is")
    if ending == ".xlsx" and start:
        raise ValueError("it is no workbook of Excel: give its name the ending of what it is")
