"""Networks, tenants, IP groups and claims as people declare them: checks, and YAML ↔ `knitter_common.model`."""

from knitter_common.objects.read import API_VERSION, Loaded, Object, identity, load_text, read_text
from knitter_common.objects.validate import (
    type_name,
    validate_ip_claim,
    validate_ip_group,
    validate_network,
    validate_node,
    validate_tenant,
)
from knitter_common.objects.write import dump, owner_text, time_text, to_dict

__all__ = [
    "API_VERSION",
    "Loaded",
    "Object",
    "dump",
    "identity",
    "load_text",
    "owner_text",
    "read_text",
    "time_text",
    "to_dict",
    "type_name",
    "validate_ip_claim",
    "validate_ip_group",
    "validate_network",
    "validate_node",
    "validate_tenant",
]
