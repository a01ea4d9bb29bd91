"""Where declared objects come from. A source produces objects (and, from Kubernetes, pods) and keeps the manager as it declares.

    files.py       a folder, watched: reads it when it changes and brings the manager to what it declares
    reading.py     what a folder declares now, and what in it cannot be read
    applying.py    one object at a time to the manager: made, changed, deleted, each by comparing revisions
    kinds.py       the manager's calls for each kind of object
    report.py      what people are told of a source

A source for Kubernetes comes beside files.py: it will use applying.py for custom resources, and hand pods to a planner of its own
(`knitter_monitor/planner`), which asks the manager to Allocate with replace=true. Both are built of the same parts: a reading that
says what is declared and whether it is whole, and an applier that deletes only what a whole reading has missed twice.
"""
