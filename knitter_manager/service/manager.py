"""ManagerService: each method converts, calls the domain, converts back. Reads are answered by every manager from its own state;
writes by the one that writes. See manager.proto for what each method promises."""

from knitter_manager.service.checks import CheckCalls
from knitter_manager.service.objects import ObjectCalls
from knitter_manager.service.sets import SetCalls
from knitter_manager.service.standing import StandingCalls
from knitter_manager.service.tenants import TenantCalls
from knitter_manager.service.views import ViewCalls


class ManagerService(TenantCalls, ObjectCalls, SetCalls, ViewCalls, CheckCalls, StandingCalls):
    """All of it."""
