"""Name formats: DNS labels and subdomains, path segments, qualified names, label values, ports.

Owns the regular expressions and upstream's texts for them. Every check takes the value and returns what is wrong
with it (empty = fine), so that callers choose path and reason. Results are remembered: never change them. Called by
all validation modules.
"""

import ipaddress
import re
from collections.abc import Callable

from machinery.caching import keep_short

NameCheck = Callable[[str, bool], list[str]]
"""(name, is it a generateName prefix?) -> what is wrong."""

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_UNDERSCORED = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_UNDERSCORED_SUBDOMAIN = _UNDERSCORED + r"(\." + _UNDERSCORED + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = "(" + _QUALIFIED + ")?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"

_label = re.compile(_LABEL).fullmatch
_subdomain = re.compile(_SUBDOMAIN).fullmatch
_underscored = re.compile(_UNDERSCORED_SUBDOMAIN).fullmatch
_label_1035 = re.compile(_LABEL_1035).fullmatch
_qualified = re.compile(_QUALIFIED).fullmatch
_label_value = re.compile(_LABEL_VALUE).fullmatch
_config_key = re.compile(_CONFIG_KEY).fullmatch
_port_charset = re.compile("[-a-z0-9]+").fullmatch
_wildcard_subdomain = re.compile(r"\*\." + _SUBDOMAIN).fullmatch
_env_name_printable = re.compile("[ -<>-~]+").fullmatch
_percent = re.compile("[0-9]+%").fullmatch
_http_header = re.compile("[-A-Za-z0-9]+").fullmatch


def _regex_error(message: str, pattern: str, *examples: str) -> str:
    text = message
    if examples:
        text += " (e.g. " + " or ".join(f"'{example}', " for example in examples)
        text += f"regex used for validation is '{pattern}')"
    else:
        text += f" (regex used for validation is '{pattern}')"
    return text


LABEL_ERROR = _regex_error(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an "
    "alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
SUBDOMAIN_ERROR = _regex_error(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end "
    "with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
UNDERSCORED_ERROR = _regex_error(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
    "start and end with an alphanumeric character",
    _UNDERSCORED_SUBDOMAIN,
    "example.com",
)
WILDCARD_ERROR = _regex_error(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case "
    "alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    r"\*\." + _SUBDOMAIN,
    "*.example.com",
)
LABEL_1035_ERROR = _regex_error(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end "
    "with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_QUALIFIED_CHARS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
QUALIFIED_ERROR = _regex_error(_QUALIFIED_CHARS, _QUALIFIED, "MyName", "my.name", "123-abc")
LABEL_VALUE_ERROR = _regex_error(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end "
    "with an alphanumeric character",
    _LABEL_VALUE,
    "MyValue",
    "my_value",
    "12345",
)
CONFIG_KEY_ERROR = _regex_error(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)
PERCENT_ERROR = _regex_error(
    "a valid percent string must be a numeric string followed by an ending '%'", "[0-9]+%", "1%", "93%"
)
HTTP_HEADER_ERROR = _regex_error(
    "a valid HTTP header must consist of alphanumeric characters or '-'", "[-A-Za-z0-9]+", "X-Header-Name"
)
ENV_NAME_ERROR = "a valid environment variable name must consist only of printable ASCII characters other than '='"


def max_len(limit: int) -> str:
    """Upstream's text for a name that is too long."""
    return f"must be no more than {limit} characters"


def _masked(name: str) -> str:
    # A generateName prefix may end in a dash: the random suffix follows it.
    return name[:-1] + "a" if len(name) > 1 and name.endswith("-") else name


@keep_short(4096)
def dns_subdomain(name: str, prefix: bool = False) -> list[str]:
    """RFC 1123 subdomain, at most 253."""
    if prefix:
        name = _masked(name)
    errors = [] if len(name) <= 253 else [max_len(253)]
    if not _subdomain(name):
        errors.append(SUBDOMAIN_ERROR)
    return errors


def underscored_subdomain(name: str) -> list[str]:
    """As `dns_subdomain`, with underscores (search paths)."""
    errors = [] if len(name) <= 253 else [max_len(253)]
    return errors if _underscored(name) else [*errors, UNDERSCORED_ERROR]


@keep_short(4096)
def dns_label(name: str, prefix: bool = False) -> list[str]:
    """RFC 1123 label, at most 63."""
    if prefix:
        name = _masked(name)
    errors = [] if len(name) <= 63 else [max_len(63)]
    if not _label(name):
        errors.append("must not contain dots" if _subdomain(name) else LABEL_ERROR)
    return errors


@keep_short(4096)
def dns_1035_label(name: str, prefix: bool = False) -> list[str]:
    """RFC 1035 label (starts with a letter), at most 63."""
    if prefix:
        name = _masked(name)
    errors = [] if len(name) <= 63 else [max_len(63)]
    if not _label_1035(name):
        errors.append(LABEL_1035_ERROR)
    return errors


def wildcard_subdomain(name: str) -> list[str]:
    """`*.` and a subdomain."""
    errors = [] if len(name) <= 253 else [max_len(253)]
    if not _wildcard_subdomain(name):
        errors.append(WILDCARD_ERROR)
    return errors


def path_segment(name: str, prefix: bool = False) -> list[str]:
    """Anything that can be one segment of a URL path (RBAC names)."""
    if not prefix and name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{char}'" for char in ("/", "%") if char in name]


def any_name(name: str, prefix: bool = False) -> list[str]:
    """No rule beyond what the URL demands."""
    return []


@keep_short(4096)
def qualified_name(name: str) -> list[str]:
    """Label and annotation keys, finalizers: optional subdomain prefix, slash, name of at most 63."""
    prefix, slash, part = name.rpartition("/")
    errors: list[str] = []
    if slash:
        if "/" in prefix:
            return [
                f"a valid label key {QUALIFIED_ERROR} with an optional DNS subdomain prefix and '/' (e.g. "
                f"'example.com/MyName')"
            ]
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            errors += [f"prefix part {text}" for text in dns_subdomain(prefix)]
    if not part:
        errors.append("name part must be non-empty")
    elif len(part) > 63:
        errors.append(f"name part {max_len(63)}")
    if not _qualified(part):
        errors.append(f"name part {QUALIFIED_ERROR}")
    return errors


@keep_short(4096)
def label_value(value: str) -> list[str]:
    """Label values: empty, or at most 63 of the usual characters."""
    errors = [] if len(value) <= 63 else [max_len(63)]
    if not _label_value(value):
        errors.append(LABEL_VALUE_ERROR)
    return errors


@keep_short(4096)
def config_key(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets."""
    errors = [] if len(value) <= 253 else [max_len(253)]
    if not _config_key(value):
        errors.append(CONFIG_KEY_ERROR)
    if value == ".":
        errors.append("must not be '.'")
    elif value == "..":
        errors.append("must not be '..'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors


@keep_short(4096)
def env_name(value: str) -> list[str]:
    """Environment variable names: printable ASCII without '='."""
    if not value or not _env_name_printable(value):
        return [ENV_NAME_ERROR]
    return []


def http_header(value: str) -> list[str]:
    """HTTP header names."""
    return [] if _http_header(value) else [HTTP_HEADER_ERROR]


@keep_short(4096)
def port_name(value: str) -> list[str]:
    """IANA service names: names of container ports."""
    errors: list[str] = []
    if len(value) > 15:
        errors.append("must be no more than 15 characters")
    if not _port_charset(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= char <= "z" for char in value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def port_number(value: object) -> list[str]:
    """1 … 65535."""
    if isinstance(value, int) and 1 <= value <= 65535:
        return []
    return ["must be between 1 and 65535, inclusive"]


def ip_name(name: str, prefix: bool = False) -> list[str]:
    """The canonical form of an address (IPAddress objects)."""
    if texts := ip(name):
        return texts
    canonical = str(ipaddress.ip_address(name))
    return [] if canonical == name else [f'must be in canonical form ("{canonical}")']


def strict_cidr(value: str) -> list[str]:
    """A range in its canonical form."""
    if texts := cidr(value):
        return texts
    canonical = str(ipaddress.ip_network(value))
    return [] if canonical == value else [f'must be in canonical form ("{canonical}")']


def percent(value: str) -> list[str]:
    """`25%`."""
    return [] if _percent(value) else [PERCENT_ERROR]


@keep_short(4096)
def ip(value: str) -> list[str]:
    """An IPv4 or IPv6 address."""
    try:
        parsed = ipaddress.ip_address(value)
    except ValueError:
        if _leading_zeros(value):
            return ["must not have leading 0s"]
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return ["must not be an IPv4-mapped IPv6 address"]
    return []


def _leading_zeros(value: str) -> bool:
    """An IPv4 address but for zeros before a part, which some read as octal."""
    parts = value.split(".")
    return len(parts) == 4 and all(part.isdecimal() and len(part) <= 3 and int(part) < 256 for part in parts)


def cidr(value: str) -> list[str]:
    """An address with a prefix length."""
    try:
        if "/" not in value:
            raise ValueError
        interface = ipaddress.ip_interface(value)
    except ValueError:
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    if interface.ip != interface.network.network_address:
        return ["must not have bits set beyond the prefix length"]
    return []
