"""Credentials out of what people read: one function, for every line of a log, report, page and name of a run.

Paths, hosts and names of users' parameters stay. What cannot be told from a secret is treated as one: a hidden harmless word
costs less than a password in a log that is shipped elsewhere.
"""

import functools
import re
from typing import Any

HIDDEN = "***"

# Names whose values are secrets wherever they stand; and those that are only where a URL's query, or its kind, has them.
_SECRETIVE = (
    r"(?:[\w.-]*(?:passw|secret|credential|signature|bearer|userpwd|authorization|access[_-]?key|account[_-]?key|api[_-]?key|"
    r"private[_-]?key|token)[\w.-]*|pwd|pass|passphrase|cookie|x-api-key)"
)
_IN_QUERY = (
    rf"(?:{_SECRETIVE}|sig|key|hmac|hdnea|auth|policy|code|session|key-pair-id|googleaccessid|[\w.-]*header\.[\w.-]+)"
)
# Quoted, or up to a blank; a comma or semicolon ends it only where another `name=` follows.
_VALUE = r"""(?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|(?:(?![,;&]\s*[\w .-]+=)[^\s"'])+)"""

# Pattern, and what is put in the place of what it matches.
_RULES = (
    # scheme://user:password@host, whatever the password holds; a port before a path is none, nor is what our hints say to write.
    (r"(://)(?!USER:PASSWORD@)[^\s/@:'\"]*:(?!\d*/)[^\s'\"]*@(?=[\w\[.-])", rf"\1{HIDDEN}@"),
    (r"(?<!abfss)(?<!abfs)(?<!wasbs)(?<!wasb)(://)(?!USER:PASSWORD@)[^\s/?#@'\"]+@", rf"\1{HIDDEN}@"),
    (r"(%3A%2F%2F)(?:(?!%2F|%40)[^\s&/])+%40", rf"\1{HIDDEN}%40"),
    # Parameters of a query, as they are or percent-encoded; what is hidden already keeps the backtick of its markdown.
    (rf"([?&]{_IN_QUERY}=)(?!\*\*\*`)[^\s&'\"<>#]+", rf"\1{HIDDEN}"),
    (rf"((?:%3F|%26){_IN_QUERY}%3D)(?:(?!%26)[^\s&'\"<>#])+", rf"\1{HIDDEN}"),
    # name=value of connection strings and of options; "name": "value" of JSON; header: value.
    (rf"(?<![\w.-])({_SECRETIVE}\s*=\s*){_VALUE}", rf"\1{HIDDEN}"),
    (rf"""((["']){_SECRETIVE}\2\s*:\s*)(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)""", rf"\1\2{HIDDEN}\2"),
    (
        r"\b((?:proxy-)?authorization|cookie|x-api-key)(\s*:\s*)(?!\*\*\*)(?:(?:basic|bearer|digest)\s+)?[^\s'\",;]+",
        rf"\1\2{HIDDEN}",
    ),
    (r"\b(passw(?:or)?d|passphrase|secret)(:\s+)(?!\*\*\*)[^\s'\",;]+", rf"\1\2{HIDDEN}"),
    (r"\b(bearer|basic)(\s+)(?=\S*[\d=+/_.-])[\w.~+/=-]{8,}", rf"\1\2{HIDDEN}"),
    # user/password@server of Oracle and ODBC.
    (r"\b((?:OCI|ODBC|GEOR(?:ASTER)?):)[^\s/,@]+[/,][^\s@,]+(?=[@,])", rf"\1{HIDDEN}"),
    # By their own shape: keys of AWS, tokens of GitHub and GitLab, JSON web tokens.
    (r"\b(?-i:(?:AKIA|ASIA)[0-9A-Z]{12,})\b", HIDDEN),
    (r"\b(?:gh[pousr]_|github_pat_|glpat-)\w{16,}", HIDDEN),
    (r"\b(?-i:eyJ)[\w-]{8,}\.[\w-]+\.[\w-]*", HIDDEN),
)  # fmt: skip


@functools.cache
def _rules() -> list[tuple[re.Pattern[str], str]]:
    """The rules, compiled when first needed: that takes as long as a small import."""
    return [(re.compile(pattern, re.IGNORECASE), replace) for pattern, replace in _RULES]


# One of these is in every text that a rule could change.
_HINT = re.compile(r"[=@:%]|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|eyJ|bearer|basic", re.IGNORECASE)
_NAME = re.compile(_SECRETIVE, re.IGNORECASE)


def redacted(text: str) -> str:
    """A text with `***` in the place of every credential; told twice, it is the same."""
    if not _HINT.search(text):
        return text
    for pattern, replace in _rules():
        text = pattern.sub(replace, text)
    return text


def redacted_record(value: Any) -> Any:
    """JSON-able data likewise: every string in it, and whole where the key is a secret's name."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {
            key: HIDDEN if isinstance(each, str) and each and _NAME.fullmatch(str(key)) else redacted_record(each)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redacted_record(each) for each in value]
    return value
