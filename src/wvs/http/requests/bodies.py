"""Request bodies that several resources take."""

from msgspec import Struct


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""
