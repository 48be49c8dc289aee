"""JSON Schemas of the parts of Kubernetes and Container Apps that examples/deploy uses.

Written by hand, and closed: what is misspelt, or not listed here, is refused. They are from the references of
Kubernetes (https://kubernetes.io/docs/reference/kubernetes-api/), of KEDA (https://keda.sh/docs/latest/reference/,
https://keda.sh/docs/latest/scalers/azure-storage-queue/) and of Microsoft.App 2025-01-01
(https://learn.microsoft.com/azure/templates/microsoft.app/2025-01-01/containerapps).
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER_TEXT: Schema = {"type": "string", "pattern": "^[0-9]+$"}
FLAG: Schema = {"type": "boolean"}
UUID: Schema = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
AMOUNTS: Schema = {"type": "object", "additionalProperties": {"type": "string", "pattern": "^[0-9.]+(m|Mi|Gi)?$"}}


def closed(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object with these properties and no others."""
    assert set(required) <= set(properties)
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def many(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


def one_of(*texts: str) -> Schema:
    return {"enum": list(texts)}


METADATA = closed("name", name=NAME, annotations=LABELS, labels=LABELS)

PROBE = closed(
    "httpGet",
    httpGet=closed("path", "port", path=TEXT, port={"type": ["string", "integer"]}),
    periodSeconds=COUNT,
    failureThreshold=COUNT,
)

CONTAINER = closed(
    "name",
    "image",
    name=NAME,
    image=TEXT,
    args=many(TEXT),
    env=many(closed("name", "value", name=TEXT, value={"type": "string"})),
    ports=many(closed("containerPort", name=NAME, containerPort=COUNT)),
    startupProbe=PROBE,
    livenessProbe=PROBE,
    readinessProbe=PROBE,
    resources=closed(requests=AMOUNTS, limits=AMOUNTS),
    securityContext=closed(
        allowPrivilegeEscalation=FLAG, readOnlyRootFilesystem=FLAG, capabilities=closed(drop=many(TEXT))
    ),
    volumeMounts=many(closed("name", "mountPath", name=NAME, mountPath=TEXT)),
)

POD = closed(
    "containers",
    serviceAccountName=NAME,
    enableServiceLinks=FLAG,
    terminationGracePeriodSeconds=COUNT,
    securityContext=closed(
        runAsNonRoot=FLAG,
        runAsUser=COUNT,
        runAsGroup=COUNT,
        seccompProfile=closed("type", type=one_of("RuntimeDefault", "Localhost", "Unconfined")),
    ),
    containers=many(CONTAINER),
    volumes=many(closed("name", name=NAME, emptyDir=closed())),
)


def _kind(version: str, **properties: Schema) -> Schema:
    return closed(
        "apiVersion",
        "kind",
        "metadata",
        *properties,
        apiVersion={"const": version},
        kind=TEXT,
        metadata=METADATA,
        **properties,
    )


QUEUE_TRIGGER = closed(
    "type",
    "metadata",
    type={"const": "azure-queue"},
    authenticationRef=closed("name", name=NAME),
    metadata=closed(  # texts, all of them: KEDA takes no numbers here
        "queueName",
        "accountName",
        queueName=NAME,
        accountName=NAME,
        queueLength=NUMBER_TEXT,
        activationQueueLength=NUMBER_TEXT,
        queueLengthStrategy=one_of("all", "visibleonly"),
        cloud=TEXT,
    ),
)

KINDS: dict[str, Schema] = {
    "ServiceAccount": _kind("v1"),
    "Deployment": _kind(
        "apps/v1",
        spec=closed(
            "selector",
            "template",
            selector=closed("matchLabels", matchLabels=LABELS),
            template=closed("metadata", "spec", metadata=closed("labels", labels=LABELS), spec=POD),
        ),
    ),
    "TriggerAuthentication": _kind(
        "keda.sh/v1alpha1",
        spec=closed(
            "podIdentity",
            podIdentity=closed("provider", provider=one_of("azure-workload"), identityId=UUID),
        ),
    ),
    "ScaledObject": _kind(
        "keda.sh/v1alpha1",
        spec=closed(
            "scaleTargetRef",
            "triggers",
            scaleTargetRef=closed("name", name=NAME),
            minReplicaCount=COUNT,
            maxReplicaCount=COUNT,
            pollingInterval=COUNT,
            cooldownPeriod=COUNT,
            triggers=many(QUEUE_TRIGGER),
        ),
    ),
}

_ANY: Schema = {}  # an expression of Bicep may stand there
_FEW: Schema = {"type": "integer", "minimum": 1, "maximum": 10}

CONTAINER_APP = closed(
    "environmentId",
    "template",
    environmentId=_ANY,
    configuration=closed(activeRevisionsMode=one_of("Single", "Multiple")),
    template=closed(
        "containers",
        terminationGracePeriodSeconds=COUNT,
        containers=many(
            closed(
                "name",
                "image",
                name=NAME,
                image=_ANY,
                args=many(TEXT),
                env=many(closed("name", "value", name=TEXT, value=_ANY)),
                probes=many(
                    closed(
                        "type",
                        "httpGet",
                        type=one_of("Liveness", "Readiness", "Startup"),
                        httpGet=closed("path", "port", path=TEXT, port=COUNT),
                        periodSeconds={"type": "integer", "minimum": 1, "maximum": 240},
                        failureThreshold=_FEW,
                    )
                ),
                resources=closed(cpu=_ANY, memory={"type": "string", "pattern": "^[0-9.]+Gi$"}),
            )
        ),
        scale=closed(
            minReplicas=COUNT,
            maxReplicas={"type": "integer", "minimum": 1, "maximum": 1000},
            pollingInterval=COUNT,
            cooldownPeriod=COUNT,
            rules=many(
                closed(
                    "name",
                    "azureQueue",
                    name=NAME,
                    azureQueue=closed(
                        "accountName",
                        "queueName",
                        "identity",
                        accountName=_ANY,
                        queueName=_ANY,
                        queueLength=COUNT,
                        identity=_ANY,
                    ),
                )
            ),
        ),
    ),
)
