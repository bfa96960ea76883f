"""Names of signers (`example.com/name`). Called by certificate requests and by volumes that hold trust bundles."""

from apiserver.registry.validation import names
from machinery.field_errors import FieldError

_DOMAIN, _WHOLE = 253, 571
_FORM = "must be a fully qualified domain and path of the form 'example.com/signer-name'"


def validate_signer_name(signer: str, path: str) -> list[FieldError]:
    """A domain of at least two labels, a slash, subdomains."""
    if not signer:
        return [FieldError.required(path)]
    parts = signer.split("/")
    if len(parts) != 2:
        return [FieldError.invalid(path, signer, _FORM)]
    domain, rest = parts
    labels = domain.split(".")
    errors = [FieldError.too_long(path, _DOMAIN)] if len(domain) > _DOMAIN else []
    errors += _first_bad(path, domain, labels, names.dns_label)
    if len(labels) < 2:
        detail = "should be a domain with at least two segments separated by dots"
        errors.append(FieldError.invalid(path, domain, detail))
    errors += _first_bad(path, rest, rest.split("."), names.dns_subdomain)
    if len(signer) > _WHOLE:
        errors.append(FieldError.too_long(path, _WHOLE))
    return errors


def _first_bad(path: str, whole: str, labels: list[str], check: names.NameCheck) -> list[FieldError]:
    for label in labels:
        if texts := check(label, False):
            return [FieldError.invalid(path, whole, f'validating label "{label}": {text}') for text in texts]
    return []
