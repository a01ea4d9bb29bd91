"""Networks, tenants, IP groups and claims as people declare them: checks, and YAML ↔ `knitter_common.model`."""
