"""What an ADD asks of the manager, without Kubernetes: wishes of annotations or configuration, the primary first. Pure."""

from dataclasses import replace

from knitter_agent.cni import Call
from knitter_agent.record import Key
from knitter_common.errors import Denied, Invalid
from knitter_common.model import ADMIN, Allocation, Binding, SandboxOwner, Wish
from knitter_common.wishes import plan


def allocation_of(call: Call, key: Key, node: str, default_network: str, now: int) -> Allocation | None:
    """The allocation, or None when the call wants no interface of ours. Raises Invalid naming key and place, Denied for a pod of a
    namespace that has the operator's name.

    The set belongs to the sandbox: one per invocation. `default_network` is the agent's setting; the configuration's goes first.
    """
    conf = call.conf
    if call.args.get("K8S_POD_NAMESPACE") == ADMIN:
        said = f"CNI_ARGS: namespace {ADMIN} cannot be a tenant: that is the operator's name; rename the namespace"
        raise Denied("TENANT_DENIED", said, tenant=ADMIN)
    delegated = conf.prev_result is not None or bool(conf.delegates)
    wishes = plan(conf.annotations, conf.networks, call.interface, conf.default_network or default_network, delegated)
    if not wishes:
        return None
    return Allocation(
        owner=SandboxOwner(node, key.container_id, key.network, key.interface),
        tenant=call.tenant,
        node=node,
        wishes=tuple(_asked(wish, call) if wish.primary else wish for wish in wishes),
        binding=Binding(key.container_id, call.netns, now),
        request_id=call.request_id,
    )


def _asked(wish: Wish, call: Call) -> Wish:
    """The primary interface with what the runtime's capabilities ask for it; an annotation's own wish must not contradict."""
    primary = call.conf.primary
    if primary.addresses and wish.addresses and set(primary.addresses) != set(wish.addresses):
        said = f"runtimeConfig.ips {', '.join(primary.addresses)} contradicts {', '.join(wish.addresses)} of {wish.place}"
        raise Invalid("CNI_CONFIG_INVALID", said, field="runtimeConfig.ips")
    if primary.mac and wish.mac and primary.mac != wish.mac:
        raise Invalid(
            "CNI_CONFIG_INVALID",
            f"runtimeConfig.mac {primary.mac} contradicts {wish.mac} of {wish.place}",
            field="runtimeConfig.mac",
        )
    if primary.bandwidth and wish.bandwidth and primary.bandwidth != wish.bandwidth:
        said = f"runtimeConfig.bandwidth contradicts that of {wish.place}"
        raise Invalid("CNI_CONFIG_INVALID", said, field="runtimeConfig.bandwidth")
    return replace(
        wish,
        addresses=wish.addresses or primary.addresses,
        mac=wish.mac or primary.mac,
        bandwidth=wish.bandwidth or primary.bandwidth,
    )
