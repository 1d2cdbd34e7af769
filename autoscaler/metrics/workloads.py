"""Which workload a pod belongs to, guessed from its name alone: all that a metric's history keeps.

Pure. The rules follow how Kubernetes controllers name pods; a pod of none of them is its own workload. A bare pod whose
own name ends like a controller's suffix is taken for one: ``llama-3`` becomes ``llama``.
"""

import re

# Controllers draw random suffixes from this alphabet (no vowels, no 0, 1, 3) so that no words come out.
# Source: k8s.io/apimachinery/pkg/util/rand.
_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]"

_RULES = (
    # Deployment: the ReplicaSet's template hash (up to ten of the alphabet), then five random ones.
    re.compile(rf"(?P<workload>.+)-{_RANDOM}{{6,10}}-{_RANDOM}{{5}}"),
    # CronJob: minutes since 1970, then the Job's suffix.
    re.compile(rf"(?P<workload>.+)-\d{{8}}(-\d+)?-{_RANDOM}{{5}}"),
    # Indexed Job: the index, then five random ones.
    re.compile(rf"(?P<workload>.+)-\d+-{_RANDOM}{{5}}"),
    # Job, DaemonSet or bare ReplicaSet: five random ones.
    re.compile(rf"(?P<workload>.+)-{_RANDOM}{{5}}"),
    # StatefulSet and most training operators: the ordinal.
    re.compile(r"(?P<workload>.+)-\d{1,5}"),
)


def workload_of(pod: str) -> str:
    """Name of the Deployment, StatefulSet, Job or the like that made the pod; the pod's own name when none of the rules
    matches.
    """
    for rule in _RULES:
        match = rule.fullmatch(pod)
        if match:
            return match.group("workload")
    return pod
