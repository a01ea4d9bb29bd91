"""Checks of label selectors, by the rules of Kubernetes' LabelSelector."""

from knitter_common.model import LabelRequirement, LabelSelector, Usability
from knitter_common.names import label_key, label_value, nearest, shown
from knitter_common.objects.fields import at_most, checked, labels, refuse

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_LIMIT = 64  # requirements, values and labels of one selector


def label_selector(field: str, selector: LabelSelector) -> LabelSelector:
    """The canonical form: labels by key, expressions as written."""
    at_most(f"{field}.matchLabels", tuple(selector.match_labels), _LIMIT)
    at_most(f"{field}.matchExpressions", selector.match_expressions, _LIMIT)
    return LabelSelector(
        match_labels=labels(f"{field}.matchLabels", dict(selector.match_labels)),
        match_expressions=tuple(
            _requirement(f"{field}.matchExpressions[{index}]", entry) for index, entry in enumerate(selector.match_expressions)
        ),
    )


def usability(field: str, value: Usability | None) -> Usability | None:
    """Who may use it; None where no side is told."""
    if value is None or value == Usability():
        return None
    return Usability(
        namespaces=None if value.namespaces is None else label_selector(f"{field}.namespaces", value.namespaces),
        pods=None if value.pods is None else label_selector(f"{field}.pods", value.pods),
        nodes=None if value.nodes is None else label_selector(f"{field}.nodes", value.nodes),
    )


def _requirement(field: str, entry: LabelRequirement) -> LabelRequirement:
    checked(f"{field}.key", label_key, entry.key)
    if entry.operator not in OPERATORS:
        refuse(f"{field}.operator", f"{shown(entry.operator)} is no operator; {nearest(entry.operator, OPERATORS)}", entry.operator)
    needs = entry.operator in ("In", "NotIn")
    if needs and not entry.values:
        refuse(f"{field}.values", f"is empty; {entry.operator} needs at least one value")
    if not needs and entry.values:
        refuse(f"{field}.values", f"must be empty; {entry.operator} takes no values")
    at_most(f"{field}.values", entry.values, _LIMIT)
    for index, value in enumerate(entry.values):
        checked(f"{field}.values[{index}]", label_value, value)
    return entry
