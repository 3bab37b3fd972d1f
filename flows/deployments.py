"""What runs when: deployments, schedules, triggers, work pools and concurrency on a Prefect server, in one place.

``retrain/<scenario>`` by cron or interval, never twice at once: a run that is due while one is at work is cancelled.
``deploy/<scenario>`` when the event ``recstill.model.registered`` tells of a new version, one after the other.
``audit/nightly``. Registering again changes what is there; nothing is doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from flows.events import REGISTERED, resource_id
from flows.prefect_server import server_client
from flows.slots import GPU_LIMIT, stage_limit
from flows.work_pools import IMAGE_CHECKOUT, POOL, PoolType, ensure_pool

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

TAG = "recstill"
NIGHTLY = "30 2 * * *"
_AUDIT = "nightly"
# Templates that the server fills from the event; types survive, a version stays a number.
_FROM_EVENT = {"version": "{{ event.payload.version }}", "attestation": "{{ event.payload.attestation }}"}


@dataclass(frozen=True)
class Plan:
    """What `recstill schedule` was asked for.

    Attributes:
        scenarios: Of params.yaml.
        cron: When to retrain, in UTC; with ``every`` and this None: only by hand.
        every: How often to retrain.
        audit_cron: When to audit, in UTC.
        pool: The work pool.
        pool_type: What the pool starts for a run.
        image: For containers.
        approve: Whether a deployment waits for a person's yes.
    """

    scenarios: Sequence[str]
    cron: str | None = None
    every: timedelta | None = None
    audit_cron: str = NIGHTLY
    pool: str = POOL
    pool_type: PoolType = "process"
    image: str | None = None
    approve: bool = False


@dataclass(frozen=True)
class Registration:
    """A deployment as the server has it.

    Attributes:
        name: ``<flow>/<deployment>``.
        when: Its schedules and triggers in words.
        pool: Its work pool.
        following: When it runs next; None when no schedule says so.
    """

    name: str
    when: str
    pool: str
    following: datetime | None = None


@dataclass(frozen=True)
class _Deployment:
    flow: str
    name: str
    description: str
    parameters: dict[str, Any] = field(default_factory=dict)
    cron: str | None = None
    every: timedelta | None = None
    at_once: Literal["cancel", "queue"] = "cancel"
    model: str | None = None  # whose registered versions trigger it

    @property
    def entry(self) -> str:
        """``flows.retrain.retrain``: imported in the checkout, after the step that changes to it."""
        return f"flows.{self.flow}.{self.flow}"


def register(root: Path, plan: Plan) -> list[Registration]:
    """Register what the plan says, and the limits that its runs observe.

    Args:
        root: The checkout that the runs work in, when they are processes; containers have their own.
        plan: The plan.

    Raises:
        RecstillError: No server is named, it does not answer, or it refuses; the pool is there with another type.
    """
    from flows.graph import scenario_stages

    addresses = [stage.address for scenario in plan.scenarios for stage in scenario_stages(root, scenario)]
    with server_client() as client:
        job = ensure_pool(client, root, plan.pool, plan.pool_type, plan.image)
        for limit in (GPU_LIMIT, *map(stage_limit, addresses)):
            client.upsert_global_concurrency_limit_by_name(limit, 1)
        folder = str(root) if plan.pool_type == "process" else IMAGE_CHECKOUT
        for deployment in _planned(plan):
            _apply(client, deployment, plan.pool, job, folder)
        return _listed(client)


def listed() -> list[Registration]:
    """Every deployment of Recstill on the server, by name.

    Raises:
        RecstillError: No server is named, or it does not answer.
    """
    with server_client() as client:
        return _listed(client)


def remove(scenarios: Sequence[str]) -> list[str]:
    """Take the deployments of scenarios off the server, with their triggers, due runs and limits; without any, all.

    The nightly audit goes with the last scenario. A scenario that params.yaml does not know any more can be removed.

    Returns:
        The names of what was there.

    Raises:
        RecstillError: No server is named, or it does not answer.
    """
    with server_client() as client:
        found = {name: entry.id for name, entry in _read(client).items()}
        wanted = [name for name in found if not scenarios or name.partition("/")[2] in scenarios]
        if all(name in wanted or name == f"audit/{_AUDIT}" for name in found):
            wanted = list(found)
        for name in wanted:
            client.delete_resource_owned_automations(_resource(found[name]))
            client.delete_deployment(found[name])
        gone = {name.partition("/")[2] for name in wanted}
        for limit in client.read_global_concurrency_limits(limit=200):
            if limit.name.startswith(stage_limit("")) and limit.name.rpartition("@")[2] in gone:
                client.delete_global_concurrency_limit_by_name(limit.name)
        return sorted(wanted)


def _planned(plan: Plan) -> list[_Deployment]:
    found: list[_Deployment] = []
    for scenario in plan.scenarios:
        found.append(
            _Deployment(
                flow="retrain",
                name=scenario,
                description=f"Retrain {scenario} when its data have moved on; register what passes the gate.",
                parameters={"scenario": scenario},
                cron=plan.cron,
                every=plan.every,
            )
        )
        found.append(
            _Deployment(
                flow="deploy",
                name=scenario,
                description=f"Check a registered version of {scenario} and make it the one that is served.",
                parameters={"name": scenario, "approval": plan.approve},
                at_once="queue",
                model=scenario,
            )
        )
    return [
        *found,
        _Deployment(
            flow="audit", name=_AUDIT, description="Read back and re-hash every release.", cron=plan.audit_cron
        ),
    ]


def _apply(client: SyncPrefectClient, one: _Deployment, pool: str, job: dict[str, Any], folder: str) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from prefect.events import DeploymentEventTrigger
    from prefect.utilities.callables import parameter_schema

    flow = getattr(import_module(f"flows.{one.flow}"), one.flow)
    schedules: list[DeploymentScheduleCreate] = []
    if one.cron:
        schedules = [DeploymentScheduleCreate(schedule=CronSchedule(cron=one.cron, timezone="UTC"))]
    elif one.every:
        schedules = [DeploymentScheduleCreate(schedule=IntervalSchedule(interval=one.every))]
    strategy = {"cancel": ConcurrencyLimitStrategy.CANCEL_NEW, "queue": ConcurrencyLimitStrategy.ENQUEUE}[one.at_once]
    identity = client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=one.name,
        description=one.description,
        tags=[TAG],
        parameters=one.parameters,
        schedules=schedules,
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions(collision_strategy=strategy),
        entrypoint=one.entry,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": folder}}],
        work_pool_name=pool,
        job_variables=job,
        parameter_openapi_schema=parameter_schema(flow).model_dump(exclude_unset=True),
        enforce_parameter_schema=True,
        paused=False,
    )
    # Triggers have no name of their own on the server: those of before go, these come.
    client.delete_resource_owned_automations(_resource(identity))
    if one.model:
        trigger = DeploymentEventTrigger(
            name=f"{one.flow}/{one.name}",
            description=f"A version of {one.model} has been registered.",
            expect={REGISTERED},
            match={"prefect.resource.id": resource_id(one.model)},
            parameters=dict(_FROM_EVENT),
        )
        trigger.set_deployment_id(identity)
        client.create_automation(trigger.as_automation())


def _listed(client: SyncPrefectClient) -> list[Registration]:
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    waiting = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    found = []
    for name, entry in _read(client).items():
        words = [_schedule_words(one.schedule) for one in entry.schedules if one.active]
        for automation in client.read_resource_related_automations(_resource(entry.id)):
            words += [f"on {event}" for event in sorted(getattr(automation.trigger, "expect", ()))]
        due = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[entry.id])),
            flow_run_filter=waiting,
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=1,
        )
        following = due[0].expected_start_time if due else None
        found.append(Registration(name, ", ".join(words) or "by hand", entry.work_pool_name or "", following))
    return found


def _read(client: SyncPrefectClient) -> dict[str, Any]:
    """Recstill's deployments by ``<flow>/<deployment>``, sorted."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    entries = client.read_deployments(deployment_filter=ours)
    return dict(sorted((f"{(entry.entrypoint or '').rpartition('.')[2]}/{entry.name}", entry) for entry in entries))


def _resource(identity: UUID) -> str:
    return f"prefect.deployment.{identity}"


def _schedule_words(schedule: Any) -> str:
    if cron := getattr(schedule, "cron", None):
        return f"{cron} {schedule.timezone or 'UTC'}"
    return f"every {schedule.interval}"
