"""Whether labels satisfy a selector, by the rules of Kubernetes' LabelSelector."""

from collections.abc import Mapping

from knitter_common.model import LabelRequirement, LabelSelector


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """All requirements hold. An empty selector matches everything."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    return all(_holds(requirement, labels) for requirement in selector.match_expressions)


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    present = requirement.key in labels
    match requirement.operator:
        case "In":
            return present and labels[requirement.key] in requirement.values
        case "NotIn":  # also where the label is absent
            return not present or labels[requirement.key] not in requirement.values
        case "Exists":
            return present
    return not present  # DoesNotExist


def shown(selector: LabelSelector) -> str:
    """As kubectl writes it: "app=web,tier in (a,b),!old"."""
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    for one in selector.match_expressions:
        values = f"({','.join(one.values)})"
        match one.operator:
            case "In":
                parts.append(f"{one.key} in {values}")
            case "NotIn":
                parts.append(f"{one.key} notin {values}")
            case "Exists":
                parts.append(one.key)
            case _:
                parts.append(f"!{one.key}")
    return ",".join(parts) or "everything"
