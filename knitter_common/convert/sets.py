"""Wishes, ports, port sets and the operations on them ↔ messages: the path of every allocation.

Lists and maps are asked first whether they hold anything: copying an empty one costs three to six times as much as asking. And
what is seldom set is set by a statement of its own: a keyword that is not needed costs three times as much as asking. What is
part of a set is written where it belongs (`_put_…`): a message that is made and then put into another one is copied, at each level.
"""

from knitter.v1 import manager_pb2 as manager
from knitter.v1 import types_pb2 as types
from knitter_common.convert.enums import network_type, nic_type, number, port_set_state
from knitter_common.convert.owners import owner_from_proto, owner_to_proto, put_owner
from knitter_common.convert.values import json_from_struct, put_time, struct_from_json, time_from_proto, time_to_proto
from knitter_common.convert.wires import dns_from_proto, dns_to_proto, route_from_proto, route_to_proto
from knitter_common.errors import Invalid
from knitter_common.model import Allocation, Bandwidth, Bind, Binding, PlanError, Port, PortAddress, PortSet, Return, Wish


def bandwidth_to_proto(bandwidth: Bandwidth) -> types.Bandwidth:
    """Traffic limits."""
    return types.Bandwidth(
        ingress_rate=bandwidth.ingress_rate,
        ingress_burst=bandwidth.ingress_burst,
        egress_rate=bandwidth.egress_rate,
        egress_burst=bandwidth.egress_burst,
    )


def bandwidth_from_proto(message: types.Bandwidth) -> Bandwidth:
    """Traffic limits."""
    return Bandwidth(
        ingress_rate=message.ingress_rate,
        ingress_burst=message.ingress_burst,
        egress_rate=message.egress_rate,
        egress_burst=message.egress_burst,
    )


def wish_to_proto(wish: Wish) -> types.Wish:
    """One interface as it was asked for."""
    message = types.Wish()
    _put_wish(message, wish)
    return message


def _put_wish(message: types.Wish, wish: Wish) -> None:
    message.network, message.interface, message.nic_type = wish.network, wish.interface, number(wish.nic_type)
    if wish.roles:
        message.roles.extend(wish.roles)
    if wish.accelerate:
        message.accelerate = True
    if wish.addresses:
        message.addresses.extend(wish.addresses)
    if wish.mac:
        message.mac = wish.mac
    if wish.ip_group:
        message.ip_group = wish.ip_group
    if wish.ip_claim:
        message.ip_claim = wish.ip_claim
    if wish.default_routes:
        message.default_routes.extend(wish.default_routes)
    if wish.metadata is not None:
        message.metadata.CopyFrom(struct_from_json(wish.metadata))
    if wish.cni_args is not None:
        message.cni_args.CopyFrom(struct_from_json(wish.cni_args))
    if wish.primary:
        message.primary = True
    if wish.place:
        message.place = wish.place
    if wish.bandwidth is not None:
        message.bandwidth.CopyFrom(bandwidth_to_proto(wish.bandwidth))


def wish_from_proto(message: types.Wish) -> Wish:
    """One interface as it was asked for."""
    return Wish(
        network=message.network,
        interface=message.interface,
        roles=tuple(message.roles[:]) if message.roles else (),
        nic_type=nic_type(message.nic_type, "wish.nic_type"),
        accelerate=message.accelerate,
        addresses=tuple(message.addresses[:]) if message.addresses else (),
        mac=message.mac,
        ip_group=message.ip_group,
        ip_claim=message.ip_claim,
        default_routes=tuple(message.default_routes[:]) if message.default_routes else (),
        metadata=json_from_struct(message.metadata) if message.HasField("metadata") else None,
        cni_args=json_from_struct(message.cni_args) if message.HasField("cni_args") else None,
        primary=message.primary,
        place=message.place,
        bandwidth=bandwidth_from_proto(message.bandwidth) if message.HasField("bandwidth") else None,
    )


_MOST_KNOWN = 1024
_known: dict[bytes, Wish] = {}


def _known_wish(message: types.Wish) -> Wish:
    """As `wish_from_proto`; the pods of a deployment all wish the same, so the newest wishes are remembered."""
    key = message.SerializeToString()
    wish = _known.get(key)
    if wish is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        wish = _known[key] = wish_from_proto(message)
    return wish


def port_address_to_proto(address: PortAddress) -> types.PortAddress:
    """One address of a port."""
    return types.PortAddress(cidr=address.cidr, gateway=address.gateway)


def port_address_from_proto(message: types.PortAddress) -> PortAddress:
    """One address of a port."""
    return PortAddress(message.cidr, message.gateway)


def port_to_proto(port: Port) -> types.Port:
    """One interface as it was planned."""
    message = types.Port()
    _put_port(message, port)
    return message


def _put_port(message: types.Port, port: Port) -> None:
    message.id, message.network_id, message.network = port.id, port.network_id, port.network
    message.interface, message.mac = port.interface, port.mac
    message.nic_type, message.type = number(port.nic_type), number(port.type)
    for address in port.addresses:
        put = message.addresses.add()
        put.cidr, put.gateway = address.cidr, address.gateway
    if port.node_gateway:
        message.node_gateway = True
    if port.routes:
        message.routes.extend([route_to_proto(route) for route in port.routes])
    if port.mtu:
        message.mtu = port.mtu
    if port.roles:
        message.roles.extend(port.roles)
    if port.accelerate:
        message.accelerate = True
    if port.metadata is not None:
        message.metadata.CopyFrom(struct_from_json(port.metadata))
    if port.physical_network:
        message.physical_network = port.physical_network
    if port.segmentation_id:
        message.segmentation_id = port.segmentation_id
    if port.masquerade:
        message.masquerade = True
    if port.dns is not None:
        message.dns.CopyFrom(dns_to_proto(port.dns))
    if port.primary:
        message.primary = True
    if port.place:
        message.place = port.place
    if port.bandwidth is not None:
        message.bandwidth.CopyFrom(bandwidth_to_proto(port.bandwidth))
    if port.ip_group:
        message.ip_group = port.ip_group
    if port.public:
        message.public = True
    if port.exported:
        message.exported = True
    if port.external:
        message.external = True
    if port.default_network:
        message.default_network = True


def port_from_proto(message: types.Port) -> Port:
    """One interface as it was planned."""
    return Port(
        id=message.id,
        network_id=message.network_id,
        network=message.network,
        interface=message.interface,
        mac=message.mac,
        addresses=tuple([PortAddress(address.cidr, address.gateway) for address in message.addresses]) if message.addresses else (),
        routes=tuple([route_from_proto(route) for route in message.routes]) if message.routes else (),
        mtu=message.mtu,
        roles=tuple(message.roles[:]) if message.roles else (),
        nic_type=nic_type(message.nic_type, "port.nic_type"),
        accelerate=message.accelerate,
        metadata=json_from_struct(message.metadata) if message.HasField("metadata") else None,
        type=network_type(message.type, "port.type"),
        physical_network=message.physical_network,
        segmentation_id=message.segmentation_id,
        node_gateway=message.node_gateway,
        masquerade=message.masquerade,
        dns=dns_from_proto(message.dns) if message.HasField("dns") else None,
        primary=message.primary,
        place=message.place,
        bandwidth=bandwidth_from_proto(message.bandwidth) if message.HasField("bandwidth") else None,
        ip_group=message.ip_group,
        public=message.public,
        exported=message.exported,
        external=message.external,
        default_network=message.default_network,
    )


def binding_to_proto(binding: Binding) -> types.Binding:
    """The sandbox that uses a set."""
    return types.Binding(container_id=binding.container_id, netns=binding.netns, time=time_to_proto(binding.time))


def binding_from_proto(message: types.Binding) -> Binding:
    """The sandbox that uses a set."""
    return Binding(container_id=message.container_id, netns=message.netns, time=time_from_proto(message.time))


def plan_error_to_proto(error: PlanError) -> types.PlanError:
    """Why planning failed."""
    return types.PlanError(reason=error.reason, message=error.message, metadata=error.metadata)


def plan_error_from_proto(message: types.PlanError) -> PlanError:
    """Why planning failed."""
    return PlanError(reason=message.reason, message=message.message, metadata=dict(message.metadata))


def port_set_to_proto(port_set: PortSet) -> types.PortSet:
    """All interfaces of one owner."""
    message = types.PortSet()
    put_owner(message.owner, port_set.owner)
    message.tenant, message.node, message.state = port_set.tenant, port_set.node, number(port_set.state)
    for wish in port_set.wishes:
        _put_wish(message.wishes.add(), wish)
    for port in port_set.ports:
        _put_port(message.ports.add(), port)
    put_time(message.create_time, port_set.create_time)
    put_time(message.expire_time, port_set.expire_time)
    if port_set.binding is not None:
        message.binding.CopyFrom(binding_to_proto(port_set.binding))
    if port_set.error is not None:
        message.error.CopyFrom(plan_error_to_proto(port_set.error))
    if port_set.revision:
        message.revision = port_set.revision
    if port_set.labels:
        message.labels.update(port_set.labels)
    if port_set.sticky:
        message.sticky = True
    return message


def port_set_from_proto(message: types.PortSet) -> PortSet:
    """All interfaces of one owner."""
    return PortSet(
        owner=owner_from_proto(message.owner),
        tenant=message.tenant,
        node=message.node,
        wishes=tuple([wish_from_proto(wish) for wish in message.wishes]) if message.wishes else (),
        ports=tuple([port_from_proto(port) for port in message.ports]) if message.ports else (),
        binding=binding_from_proto(message.binding) if message.HasField("binding") else None,
        error=plan_error_from_proto(message.error) if message.HasField("error") else None,
        state=port_set_state(message.state, "port_set.state"),
        create_time=time_from_proto(message.create_time),
        revision=message.revision,
        labels=dict(message.labels) if message.labels else {},
        sticky=message.sticky,
        expire_time=time_from_proto(message.expire_time) if message.HasField("expire_time") else 0,
    )


def allocation_to_proto(allocation: Allocation) -> manager.Allocation:
    """What an owner wants."""
    return manager.Allocation(
        owner=owner_to_proto(allocation.owner),
        tenant=allocation.tenant,
        node=allocation.node,
        wishes=[wish_to_proto(wish) for wish in allocation.wishes],
        binding=None if allocation.binding is None else binding_to_proto(allocation.binding),
        labels=allocation.labels,
        sticky=allocation.sticky,
        replace=allocation.replace,
        request_id=allocation.request_id,
    )


def allocation_from_proto(message: manager.Allocation) -> Allocation:
    """What an owner wants."""
    return Allocation(
        owner=owner_from_proto(message.owner),
        tenant=message.tenant,
        node=message.node,
        wishes=tuple([_known_wish(wish) for wish in message.wishes]) if message.wishes else (),
        binding=binding_from_proto(message.binding) if message.HasField("binding") else None,
        labels=dict(message.labels) if message.labels else {},
        sticky=message.sticky,
        replace=message.replace,
        request_id=message.request_id,
    )


def give_back_to_proto(give_back: Return) -> manager.Return:
    """A set is given up."""
    return manager.Return(
        owner=owner_to_proto(give_back.owner),
        revision=give_back.revision,
        container_id=give_back.container_id,
        unbind_only=give_back.unbind_only,
        request_id=give_back.request_id,
    )


def give_back_from_proto(message: manager.Return) -> Return:
    """A set is given up."""
    return Return(
        owner=owner_from_proto(message.owner),
        revision=message.revision,
        container_id=message.container_id,
        unbind_only=message.unbind_only,
        request_id=message.request_id,
    )


def bind_to_proto(bind: Bind) -> manager.Bind:
    """A sandbox takes a reserved set."""
    return manager.Bind(
        owner=owner_to_proto(bind.owner), binding=binding_to_proto(bind.binding), node=bind.node, request_id=bind.request_id
    )


def bind_from_proto(message: manager.Bind) -> Bind:
    """A sandbox takes a reserved set. Raises Invalid(FIELD_INVALID) without a container id."""
    if not message.binding.container_id:
        raise Invalid("FIELD_INVALID", "binding.container_id: is empty; say which sandbox", field="binding.container_id")
    return Bind(
        owner=owner_from_proto(message.owner),
        binding=binding_from_proto(message.binding),
        node=message.node,
        request_id=message.request_id,
    )
