"""What each reason of a decision means, in plain words, for people who read reports. One entry per reason."""

from policies.decisions import Reason

MEANINGS: dict[Reason, str] = {
    Reason.PENDING_SHARES: "pods are waiting for GPUs that no machine has free",
    Reason.NOTHING_PENDING: "no pod is waiting for a GPU",
    Reason.WAITING_FOR_NODE: "a machine that was bought earlier is still on its way and will hold the waiting pods",
    Reason.NO_OFFER_FITS: "nothing that can be bought is large enough, or of the right kind, for the pod",
    Reason.OFFERS_COOLING: "every fitting offer was refused a short time ago and is not asked for again yet",
    Reason.GPU_LIMIT: "the pool has reached its limit of GPUs",
    Reason.SPEND_LIMIT: "the pool has reached its limit of money per hour",
    Reason.PRICE_UNKNOWN: "the price of the offer is not known, so no budget can be checked",
    Reason.NODE_EMPTY: "no pod is left on the node",
    Reason.UNDER_USED: "all pods of the node fit on the other nodes",
    Reason.HEADROOM_NEEDED: "the other nodes would keep too few free GPUs for the next pods",
    Reason.NO_ROOM_ELSEWHERE: "the pods of the node do not all fit on the other nodes",
    Reason.MOVE_BUDGET_SPENT: "no more pods may be moved for now",
    Reason.WOULD_NOT_PAY_BACK: "moving the pods would cost more than giving the node back would save",
    Reason.PROTECTED: "the node or one of its pods is marked not to be disrupted",
    Reason.DRAIN_IN_PROGRESS: "another node is being emptied at the moment",
    Reason.NO_CANDIDATE: "no node could be given back",
    Reason.MOVE_FAILED: "the move did not finish, and the pod stays where it was",
    Reason.IDLE_PROVEN: "fresh measurements show that the workload has been idle for long enough",
    Reason.WAKE_SIGNAL: "requests are waiting for the workload",
    Reason.ACTIVE: "the workload is in use",
    Reason.ALREADY_ZERO: "the workload has no replicas already",
    Reason.IDLE_TOO_SHORT: "the workload is idle, but not for long enough yet",
    Reason.REPLICAS_PENDING: "replicas of the workload are still starting",
    Reason.REPLICAS_STUCK: "replicas of the workload have been starting for longer than their deadline",
    Reason.MINIMUM_UPTIME: "the workload was woken a short time ago and stays up for its minimum time",
    Reason.ZEROED_BY_USER: "somebody else scaled the workload to zero, and that is respected",
    Reason.OTHER_OWNER: "another controller scales the workload",
    Reason.SIGNAL_STALE: "the newest measurement is too old to be trusted",
    Reason.SIGNAL_ABSENT: "the measurement does not exist",
    Reason.SIGNAL_INVALID: "the measurement is not a usable number",
    Reason.SIGNAL_UNREACHABLE: "the source of measurements did not answer",
    Reason.PRESENCE_UNPROVEN: "nothing proves that the source would have seen the load",
    Reason.CONTROLLER_JUST_STARTED: "the controller has not watched for long enough since it started",
    Reason.FROZEN: "changes are switched off",
    Reason.CAPACITY: "the cloud has no capacity of that kind",
    Reason.QUOTA: "the account's quota is used up",
    Reason.THROTTLED: "the cloud asked to slow down",
    Reason.AUTH: "the cloud did not accept the credentials or the permissions",
    Reason.INVALID: "the cloud refused the order as invalid",
    Reason.OUTCOME_UNKNOWN: "it is not known whether the order took effect; it is repeated under the same key",
    Reason.DEADLINE_PASSED: "it took longer than its deadline",
    Reason.OVERDUE: "it takes longer than it should; it is still tried",
    Reason.MACHINE_LOST: "the machine is gone, and nobody here asked for that",
    Reason.NO_CLAIM: "the machine carries our tag and belongs to no claim",
}


def meaning(reason: str) -> str:
    """The plain words for ``reason``; the reason itself where it is not one of ours (a log of another version)."""
    try:
        return MEANINGS[Reason(reason)]
    except (ValueError, KeyError):
        return reason
